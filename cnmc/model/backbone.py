"""timm networks with one output logit."""

from __future__ import annotations

import difflib
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from cnmc.errors import CnmcError
from cnmc.model.weights import cached_weights, load_weights, read_state_dict


def build_network(
    name: str,
    *,
    pretrained: bool,
    weights: Path | str | None,
    drop_rate: float,
    num_logits: int = 1,
) -> nn.Module:
    """Build a timm network with a new head, and load its weights.

    The random initialization uses PyTorch's global generator; seed it first.

    Args:
        name: timm's name, with or without the tag of its weights, such as
            ``legacy_seresnext50_32x4d``.
        pretrained: Load weights from ``weights`` if given, else from timm's hub. False initializes
            the network randomly.
        weights: A ``.safetensors`` file or a PyTorch state dict, which may be wrapped as
            ``{"state_dict": ...}`` and have keys with the prefix ``module.``. Its head is ignored
            if it has another number of classes.
        drop_rate: Dropout before the head, 0 <= value < 1.
        num_logits: Number of outputs.

    Returns:
        The network in training mode: B x 3 x H x W floats to B x num_logits logits.

    Raises:
        CnmcError: The name is unknown, the file is unreadable or does not fit, or the hub has no
            weights or cannot be reached.
    """
    _check_name(name)
    if not pretrained:
        return _create(name, drop_rate, num_logits)
    if weights is None:
        return _create_from_hub(name, drop_rate, num_logits)
    network = _create(name, drop_rate, num_logits)
    load_weights(network, read_state_dict(weights), source=weights)
    return network


def _check_name(name: str) -> None:
    """Refuse a name or tag that timm does not know."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise CnmcError(f"model.name={name}: timm {timm.__version__} has no such network; {hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(architecture)]
    if tag and tag not in tags:
        known = " or ".join(filter(None, tags)) or "no tag"
        raise CnmcError(f"model.name={name}: timm has no weights {tag}; expected {known}")


def _create_from_hub(name: str, drop_rate: float, num_logits: int) -> nn.Module:
    cached = cached_weights(name)
    try:
        return _create(name, drop_rate, num_logits, from_hub=True, file=cached)
    # The errors of timm and of two download libraries have no common base.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(
            f"model.name={name}: loading its ImageNet weights from {cached or 'the hub'} failed "
            f"({type(error).__name__}: {reason}); give a file with model.weights=<file>, or start "
            "from random weights with model.pretrained=false"
        ) from error


def _create(
    name: str,
    drop_rate: float,
    num_logits: int,
    *,
    from_hub: bool = False,
    file: Path | None = None,
) -> nn.Module:
    network: nn.Module = timm.create_model(
        name,
        pretrained=from_hub,
        pretrained_cfg_overlay=None if file is None else {"file": str(file)},
        drop_rate=drop_rate,
        num_classes=num_logits,
    )
    head = network.get_classifier()  # type: ignore[operator]
    if type(head) is nn.Linear:
        head.__class__ = _Linear32
    return network


class _Linear32(nn.Linear):
    """A linear layer that computes in 32 bits, also under mixed precision.

    16-bit logits would have ties, and the thresholds that are chosen among them would differ.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in PyTorch
        """Return the logits: B x features to B x logits, float32 under mixed precision."""
        device = input.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(input)
        with torch.autocast(device, enabled=False):
            return super().forward(input.float())

"""timm networks with one output logit, and their weights from a file or from timm's hub."""

from __future__ import annotations

import difflib
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cnmc.errors import CnmcError

HUB_TIMEOUT = 5.0
"""Seconds to wait for the first answer of the hub."""


def build_network(
    name: str, *, pretrained: bool, weights: Path | str | None, drop_rate: float
) -> nn.Module:
    """Build a timm network with a new head of one logit, and load its weights.

    ``pretrained`` loads ``weights`` (a ``.safetensors`` file or a PyTorch state dict, bare or as
    ``{"state_dict": ...}``) or else the weights of timm's hub. A head with another number of
    classes is ignored. Random weights are drawn from PyTorch's global generator; seed it first.

    Raises:
        CnmcError: The name is unknown, the file is unreadable or does not fit, or the hub has no
            weights or cannot be reached.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise CnmcError(f"model.name={name}: timm {timm.__version__} has no such network; {hint}")
    network = _create(name, drop_rate, from_hub=pretrained and weights is None)
    if pretrained and weights is not None:
        _load(network, _read_state_dict(Path(weights).expanduser()), weights)
    head = network.get_classifier()  # type: ignore[operator]
    if type(head) is nn.Linear:
        head.__class__ = _Linear32
    return network


def _create(name: str, drop_rate: float, *, from_hub: bool) -> nn.Module:
    file = None
    try:
        file = _downloaded(name) if from_hub else None
        network: nn.Module = timm.create_model(
            name,
            pretrained=from_hub,
            pretrained_cfg_overlay=None if file is None else {"file": str(file)},
            drop_rate=drop_rate,
            num_classes=1,
        )
    # The errors of timm and of two download libraries have no common base.
    except Exception as error:
        weights = f" with the weights in {file or 'the hub'}" if from_hub else ""
        hint = "; give model.weights=<file>, or model.pretrained=false for random weights"
        raise CnmcError(
            f"model.name={name}: cannot build this network{weights} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}){hint if from_hub else ''}"
        ) from error
    return network


def _downloaded(name: str) -> Path | None:
    """Return the weights that were downloaded earlier; None if the hub has to be asked."""
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.hf_hub_id:
        address = huggingface_hub.hf_hub_url(config.hf_hub_id, "model.safetensors")
        cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    elif config is not None and config.url:
        address = str(config.url)
        cached = str(Path(torch.hub.get_dir(), "checkpoints", Path(address).name))
    else:
        return None
    if isinstance(cached, str) and Path(cached).is_file():
        return Path(cached)
    # Without an answer here, the download libraries would retry for a minute. An error status is
    # an answer too.
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - timm's own addresses
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT).close()  # noqa: S310
    return None


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return tensors by parameter name; no code in the file is executed."""
    if not path.is_file():
        raise CnmcError(
            f"model.weights={path}: no such file; model.pretrained=false starts from random weights"
        )
    try:
        if path.suffix == ".safetensors":
            state: dict[str, Any] = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            state = dict(content.get("state_dict", content))
    # Damaged files raise many kinds of exception.
    except Exception as error:
        raise CnmcError(
            f"model.weights={path}: cannot be read ({type(error).__name__}); expected .safetensors "
            "or a PyTorch state dict that contains only tensors"
        ) from error
    for key, value in state.items():
        is_plain = (
            isinstance(value, Tensor)
            and value.layout is torch.strided
            and value.device.type == "cpu"
            and not (value.is_complex() or value.is_quantized)
        )
        if not (is_plain and value.float().isfinite().all()):
            raise CnmcError(
                f"model.weights={path}: {key}: expected a dense tensor of finite real numbers"
            )
    for prefix in ("module.", "network."):  # of DataParallel, and of this project's checkpoints
        if all(key.startswith(prefix) for key in state):
            return {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _load(network: nn.Module, state: dict[str, Tensor], source: Path | str) -> None:
    """Copy a state dict into a network, except a head with another number of classes.

    Other missing or unexpected keys are refused, since a part of the network would stay random.
    """
    own = network.state_dict()
    heads = network.pretrained_cfg["classifier"]  # type: ignore[index]
    for head in (heads,) if isinstance(heads, str) else heads:
        kernel, bias = f"{head}.weight", f"{head}.bias"
        if kernel in state and kernel in own and len(state[kernel]) != len(own[kernel]):
            state |= {key: own[key] for key in (kernel, bias) if key in own}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:1000]
        raise CnmcError(f"model.weights={source}: does not fit the network: {reason}") from error


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

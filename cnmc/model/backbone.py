"""timm networks with one output logit, and where their ImageNet weights come from.

Weights come from a local file, from timm's hub, or not at all. A file that does not fit the
network to the last key is refused: a network that silently starts half random trains all the same,
and nothing but the result shows it.
"""

from __future__ import annotations

import difflib
import pickle
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor, nn

from cnmc.errors import CnmcError

HUB_TIMEOUT = 5.0
"""Seconds until a hub that does not answer counts as out of reach."""

PICKLE_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_MAX_LISTED = 12


def build_network(
    name: str,
    *,
    pretrained: bool,
    weights: Path | str | None,
    drop_rate: float,
    num_logits: int = 1,
) -> nn.Module:
    """Build a timm network, its weights loaded and its head new.

    The new head, and all of a network without weights, come from PyTorch's global random
    generator: seed it before.

    Args:
        name: timm's name, with or without the tag of its weights, such as
            ``legacy_seresnext50_32x4d``.
        pretrained: Start from weights: from ``weights`` where given, else from timm's hub. False
            starts from random numbers, whatever ``weights`` says.
        weights: A ``.safetensors`` file or a PyTorch state dict, which may be wrapped as
            ``{"state_dict": ...}`` and its keys prefixed with ``module.``. Its head is left out
            where it has another number of classes.
        drop_rate: Dropout before the head, 0 <= value < 1. Always given, as timm's own default
            differs by network.
        num_logits: Outputs of the head.

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
        return _build_from_hub(name, drop_rate, num_logits)
    network = _create(name, drop_rate, num_logits)
    load_weights(network, read_state_dict(weights), source=str(weights))
    return network


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read named tensors from a file, never running code that is in it.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.

    Returns:
        Tensors on the CPU by name, without a ``state_dict`` wrapping or a common prefix.

    Raises:
        CnmcError: The file is missing, damaged, holds more than tensors, is of another kind, or a
            tensor is sparse, complex, quantized or not finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CnmcError(
            f"model.weights={path}: no such file; give a .safetensors or .pth file, or start from "
            f"random numbers with model.pretrained=false"
        )
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        elif path.suffix in PICKLE_SUFFIXES:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's, about kinds that are refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise CnmcError(
                f"model.weights={path}: unknown kind of file; expected .safetensors or one of "
                f"{', '.join(PICKLE_SUFFIXES)}"
            )
    except CnmcError:
        raise
    except pickle.UnpicklingError as error:
        raise CnmcError(
            f"model.weights={path}: damaged, or holds Python objects other than tensors, which are "
            f"not loaded because they could run code; save the bare state dict of the network"
        ) from error
    # A damaged file fails in as many ways as there are places to cut it.
    except Exception as error:
        raise CnmcError(
            f"model.weights={path}: cannot be read ({type(error).__name__}: {_one_line(error)}); "
            f"the file is probably incomplete, copy it again"
        ) from error

    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(key, str) for key in content)
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise CnmcError(
            f"model.weights={path}: holds no state dict; expected tensors by parameter name, bare "
            f'or under the key "state_dict"'
        )
    odd = [key for key, value in content.items() if not is_plain(value)]
    if odd:
        raise CnmcError(
            f"model.weights={path}: {_listed(odd)}: expected dense tensors of finite real numbers"
        )
    for prefix in ("module.", "network."):  # of PyTorch's wrappers, and of a run's checkpoints
        if all(key.startswith(prefix) for key in content):
            return {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy a state dict into a timm network, all of it but a head of another size.

    Args:
        network: A network made by timm.
        state: Tensors by name.
        source: Where they are from, for the messages.

    Raises:
        CnmcError: A key is missing, unexpected, or of another shape. The message lists them.
    """
    own = network.state_dict()
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    classifiers = config.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)
    dropped: set[str] = set()
    for classifier in classifiers:
        kernel = f"{classifier}.weight"
        if kernel in state and kernel in own and len(state[kernel]) != len(own[kernel]):
            dropped |= {kernel, f"{classifier}.bias"}
    kept = {key: value for key, value in state.items() if key not in dropped}

    reshaped = {
        key: f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in kept.items()
        if key in own and value.shape != own[key].shape
    }
    # PyTorch itself decides what is missing: it knows that files from before its version 0.4.1
    # lack the batch counters of batch normalisation, which nothing here uses.
    result = network.load_state_dict(
        {key: value for key, value in kept.items() if key not in reshaped}, strict=False
    )
    faults = {
        "missing": [key for key in result.missing_keys if key not in dropped | reshaped.keys()],
        "unexpected": result.unexpected_keys,
        "of another shape": list(reshaped.values()),
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_listed(keys)}" for kind, keys in faults.items() if keys)
        name = config.get("architecture", type(network).__name__)
        raise CnmcError(f"model.weights={source}: does not fit {name}: {listed}")


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
    for path, layer in list(network.named_modules()):
        if type(layer) is nn.Linear and layer is head:
            network.set_submodule(path, _Head.of(layer))
    return network


class _Head(nn.Linear):
    """A linear layer that computes in 32 bits also where the network before it is in 16.

    Logits of 16 bits would tie where others do not, and a threshold chosen among them would not be
    that of the same network in 32 bits.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> _Head:
        """Return this layer in place of a usual one, with its parameters."""
        head = cls(layer.in_features, layer.out_features, device="meta")
        head.weight, head.bias = layer.weight, layer.bias
        return head

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as PyTorch names it
        """Return the logits: B x features to B x logits, float32."""
        device = input.device.type
        if not torch.is_autocast_enabled(device):
            return super().forward(input)
        with torch.autocast(device, enabled=False):
            return super().forward(input.float())


def _check_name(name: str) -> None:
    """Refuse a name that timm does not know."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise CnmcError(f"model.name={name}: timm {timm.__version__} has no such network; {hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(architecture)]
    if tag and tag not in tags:
        raise CnmcError(
            f"model.name={name}: timm has no weights with the tag {tag} for {architecture}; "
            f"expected {' or '.join(filter(None, tags)) or 'no tag'}"
        )


def _build_from_hub(name: str, drop_rate: float, num_logits: int) -> nn.Module:
    """Build a network with timm's weights: from its cache, else over the network."""
    ways_on = (
        "give a local copy with model.weights=<file>, or start from random numbers with "
        "model.pretrained=false"
    )
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise CnmcError(f"model.name={name}: timm has no weights for this network; {ways_on}")
    cached = _cached_file(config)
    address = _address(config)
    if cached is None and not _answers(address):
        host = address.split("/")[2]
        raise CnmcError(
            f"model.name={name}: its ImageNet weights are not on this machine and cannot be "
            f"downloaded, {host} does not answer; {ways_on}"
        )
    try:
        # The cached copy is named, because timm would ask the hub about it first, for most of a
        # minute where there is no network.
        return _create(name, drop_rate, num_logits, from_hub=True, file=cached)
    # Network, disk and format errors of three libraries, without a common base.
    except Exception as error:
        raise CnmcError(
            f"model.name={name}: loading its ImageNet weights from {cached or address} failed "
            f"({type(error).__name__}: {_one_line(error)}); {ways_on}"
        ) from error


def _hub_names(config: PretrainedCfg) -> tuple[str, str | None, Sequence[str]]:
    """Return repository, revision and the file names that timm tries there."""
    repository, _, revision = str(config.hf_hub_id).partition("@")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    return repository, revision or None, names


def _address(config: PretrainedCfg) -> str:
    if not config.hf_hub_id:
        return str(config.url)
    repository, revision, names = _hub_names(config)
    return huggingface_hub.hf_hub_url(repository, names[0], revision=revision)


def _cached_file(config: PretrainedCfg) -> Path | None:
    """Return the copy of a network's weights that an earlier download left, if any."""
    if not config.hf_hub_id:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(config.url)).name
        return path if path.is_file() else None
    repository, revision, names = _hub_names(config)
    for file_name in names:
        found = huggingface_hub.try_to_load_from_cache(repository, file_name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _answers(address: str) -> bool:
    """Ask once whether a server can be reached.

    The download libraries retry a dead connection for most of a minute, or wait without a limit.
    """
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 (timm's own addresses)
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that only the download library knows is no reason to give up.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False


def is_plain(value: Tensor) -> bool:
    """Return whether a tensor is dense and real, and all its numbers are finite in 32 bits."""
    return (
        value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_complex() or value.is_quantized)
        and bool(value.float().isfinite().all())
    )


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _MAX_LISTED} more" if len(keys) > _MAX_LISTED else ""
    return ", ".join(keys[:_MAX_LISTED]) + more


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""Pretrained weights, from a local file or from timm's hub.

A file whose keys do not all fit the network is refused. Otherwise a part of the network would stay
random, and only the results would show it.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping
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


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read a state dict from a file without executing code that the file may contain.

    Args:
        path: A ``.safetensors`` file, or a file of ``torch.save``.

    Returns:
        Tensors on the CPU by parameter name, without a ``state_dict`` wrapper and common prefix.

    Raises:
        CnmcError: The file is missing, damaged or contains other objects than tensors, or a tensor
            is not dense, real and finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CnmcError(
            f"model.weights={path}: no such file; model.pretrained=false starts from random weights"
        )
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about kinds of tensors that are refused below
                content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files raise many kinds of exception.
    except Exception as error:
        raise CnmcError(
            f"model.weights={path}: cannot be read ({type(error).__name__}); the file is damaged, "
            "or it contains other objects than tensors, which are not loaded since they could "
            "execute code; expected .safetensors or a PyTorch state dict"
        ) from error

    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CnmcError(f"model.weights={path}: expected a state dict (tensors by parameter name)")
    for key, value in content.items():
        if not is_plain(value):
            raise CnmcError(
                f"model.weights={path}: {key}: expected a dense tensor of finite real numbers"
            )
    for prefix in ("module.", "network."):  # of DataParallel, and of this project's checkpoints
        if all(key.startswith(prefix) for key in content):
            return {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Copy a state dict into a timm network, except a head with another number of classes.

    Args:
        network: A network created by timm.
        state: Tensors by parameter name.
        source: Origin of the tensors, for messages.

    Raises:
        CnmcError: A key is missing or unexpected, or its tensor has another shape.
    """
    own = network.state_dict()
    heads = network.pretrained_cfg["classifier"]  # type: ignore[index]
    for head in (heads,) if isinstance(heads, str) else heads:
        kernel, bias = f"{head}.weight", f"{head}.bias"
        if kernel in state and kernel in own and len(state[kernel]) != len(own[kernel]):
            state = {**state, **{key: own[key] for key in (kernel, bias) if key in own}}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:1000]
        raise CnmcError(f"model.weights={source}: does not fit the network: {reason}") from error


def cached_weights(name: str) -> Path | None:
    """Return the copy of a network's ImageNet weights that an earlier download left.

    Returns:
        None if there is no copy and the hub can be reached.

    Raises:
        CnmcError: timm has no weights for the network, or there is no copy and the hub does not
            answer.
    """
    hint = "give model.weights=<file>, or start from random weights with model.pretrained=false"
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise CnmcError(f"model.name={name}: timm has no weights for this network; {hint}")
    if config.hf_hub_id:
        file_name = "model.safetensors"
        found = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file_name)
        cached = Path(found) if isinstance(found, str) else None
        address = huggingface_hub.hf_hub_url(config.hf_hub_id, file_name)
    else:
        address = str(config.url)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(address).name
    if cached is not None and cached.is_file():
        return cached
    if not _answers(address):
        raise CnmcError(
            f"model.name={name}: its ImageNet weights are not on this machine, and "
            f"{address.split('/')[2]} does not answer; {hint}"
        )
    return None


def _answers(address: str) -> bool:
    """Return whether a server can be reached; the download libraries would retry for a minute."""
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - timm's own addresses
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):  # noqa: S310
            return True
    except OSError as error:
        # An HTTP status is an answer, and the download library may know the certificate.
        is_status = isinstance(error, urllib.error.HTTPError)
        return is_status or isinstance(getattr(error, "reason", None), ssl.SSLError)


def is_plain(value: Tensor) -> bool:
    """Return whether a tensor is dense, real and finite in 32 bits."""
    return (
        value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_complex() or value.is_quantized)
        and bool(value.float().isfinite().all())
    )

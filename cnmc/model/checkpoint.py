"""Reads the checkpoints of PyTorch without executing anything that they contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cnmc.errors import CnmcError


def read_checkpoint(path: Path, *, lazy: bool = False) -> dict[str, Any]:
    """Read a PyTorch file with a ``state_dict``.

    Args:
        path: The file.
        lazy: Read each tensor only when it is used, for a look at the other entries.

    Raises:
        CnmcError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=lazy
        )
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise ValueError("it has no state_dict")
    # Damaged pickles raise many kinds of exception.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CnmcError(f"{path} is not a checkpoint of cnmc: {reason}") from error
    return checkpoint


def load_checkpoint(path: Path, *, lazy: bool = False) -> dict[str, Any]:
    """Read a checkpoint that a run of this package wrote (see :func:`read_checkpoint`).

    Raises:
        CnmcError: As above, or the file has no ``cnmc`` entry that describes its origin.
    """
    checkpoint = read_checkpoint(path, lazy=lazy)
    if "cnmc" not in checkpoint:
        raise CnmcError(f"{path} is not a checkpoint of cnmc: it has no cnmc metadata")
    return checkpoint

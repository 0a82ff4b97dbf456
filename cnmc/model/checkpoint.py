"""Checkpoints of runs, read without executing anything that they contain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cnmc.errors import CnmcError


def load_checkpoint(path: Path, *, lazy: bool = False) -> dict[str, Any]:
    """Read a checkpoint of a run; ``lazy`` reads each tensor only when it is used.

    Raises:
        CnmcError: The file is missing, damaged, holds more than tensors and plain values, or has no
            ``cnmc`` entry that describes its origin.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(
            path, map_location="cpu", weights_only=True, mmap=lazy
        )
        if not isinstance(checkpoint, dict) or not {"state_dict", "cnmc"} <= checkpoint.keys():
            raise ValueError("expected the entries state_dict and cnmc")
    # Damaged pickles raise many kinds of exception.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CnmcError(f"{path} is not a checkpoint of cnmc: {reason}") from error
    return checkpoint

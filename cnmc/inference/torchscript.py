"""TorchScript files: a network with its rotations that PyTorch runs without the code of cnmc."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from cnmc.inference.backends import VIEWS_AT_ONCE, TorchPredictor
from cnmc.inference.runtime import METADATA, GraphInfo, Predictor, unreadable

_MAX_METADATA = 1 << 20


def open_torchscript(path: Path, num_threads: int | None = None) -> Predictor:
    """Open a TorchScript file of ``python -m cnmc.export``.

    Such a file is a zip archive whose program PyTorch interprets: it can call any of PyTorch's
    operators, but no Python and no other program. It is only loaded after its metadata were found
    and are those of a network of cnmc. That keeps other programs out by mistake, not by intent, so
    open files from people you trust; ONNX files hold less.

    Args:
        path: The file.
        num_threads: Threads of each operation; None takes all cores.

    Raises:
        CnmcError: The file is damaged or not of cnmc.
    """
    info = GraphInfo.from_json(_metadata(path), path)
    try:
        module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise unreadable(path, error) from error
    cells = max(VIEWS_AT_ONCE // info.num_rotations, 1)

    def forward(images: Tensor) -> Tensor:
        # PyTorch would compile the program anew for every size of batch, for minutes.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            logits: Tensor = module(images)[0]
        return logits

    return TorchPredictor(info, forward, cells_at_once=cells, num_threads=num_threads)


def _metadata(path: Path) -> str | None:
    """Return the text that a file keeps, by its archive alone; None where it has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            kept = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}")]
            if len(kept) != 1:
                return None
            with archive.open(kept[0]) as file:
                return file.read(_MAX_METADATA).decode()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise unreadable(path, error) from error

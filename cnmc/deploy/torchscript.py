"""TorchScript files: a network with its rotations that PyTorch runs without the code of cnmc."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnmc.deploy.backends import VIEWS_AT_ONCE, TorchPredictor
from cnmc.deploy.runtime import METADATA, GraphInfo, Predictor, unreadable

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
        return run_program(module, images)[0]

    _check_program(path, module, info)
    return TorchPredictor(info, forward, cells_at_once=cells, num_threads=num_threads)


def run_program(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a program's logits and probability."""
    # PyTorch would compile the program anew for every size of batch, for minutes.
    with torch.no_grad(), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        logits, probs = module(images)
    return logits, probs


def _check_program(path: Path, module: Any, info: GraphInfo) -> None:
    """Refuse a program that its metadata do not describe, by what it gives for a black cell."""
    try:
        cell = torch.zeros((1, info.size, info.size, 3), dtype=torch.uint8)
        found = [(output.dtype, *output.shape) for output in run_program(module, cell)]
        # Larger cells than its own it would take too, and look at some of their pixels.
        num_pixels = module.network.sources.numel()
    # A program of others can fail in any way.
    except Exception as error:
        raise unreadable(path, error) from error
    expected = [(torch.float32, 1, info.num_rotations), (torch.float32, 1)]
    if found != expected or num_pixels != info.num_rotations * info.size**2:
        raise unreadable(path, "it was made for other cells or rotations than its metadata say")


def _metadata(path: Path) -> str | None:
    """Return the text that a file keeps, by its archive alone; None where it has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            kept = [name for name in archive.namelist() if name.endswith(f"/extra/{METADATA}")]
            if len(kept) != 1:
                return None
            with archive.open(kept[0]) as file:
                return file.read(_MAX_METADATA).decode()
    # Damaged, encrypted, of another compression: each has an exception of its own.
    except Exception as error:
        raise unreadable(path, error) from error

"""Warnings about images unlike those of training, and hardly any about real cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cnmc.data.images import Pixels, decode
from cnmc.deploy.screen import warnings_of


def _larger(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.resize(pixels, None, fx=2, fy=2), dtype=np.uint8)


def _on_white(pixels: Pixels) -> Pixels:
    return np.where(pixels.max(axis=2, keepdims=True) > 0, pixels, 255).astype(np.uint8)


@pytest.mark.real
def test_hardly_any_real_cell_is_warned_about(real_data_root: Path) -> None:
    files = sorted(real_data_root.rglob("*.bmp"))
    warned = sum(bool(warnings_of(decode(path.read_bytes()))) for path in files[::10])
    assert warned <= 0.01 * len(files[::10])


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "warning", "share"),
    [
        (lambda pixels: 255 - pixels, "background not black", 1.0),
        (_on_white, "background not black", 1.0),
        (lambda pixels: pixels[..., [1, 0, 2]], "colour unlike training", 0.95),
        (lambda pixels: pixels[..., ::-1] // 2, "colour unlike training", 1.0),
        (_larger, "cell larger than in training", 0.9),
        (lambda pixels: pixels[::3, ::3], "cell smaller than in training", 0.9),
    ],
)
def test_real_cells_that_were_changed_are_warned_about(
    real_data_root: Path, change: Callable[[Pixels], Pixels], warning: str, share: float
) -> None:
    files = sorted(real_data_root.rglob("*.bmp"))[::40]
    warned = [warning in warnings_of(change(decode(f.read_bytes()))) for f in files]
    assert np.mean(warned) >= share


def test_a_photograph_is_warned_about() -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    pixels = np.asarray(cv2.resize(photograph, (640, 480)), dtype=np.uint8)
    assert "background not black" in warnings_of(pixels)

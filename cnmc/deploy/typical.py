"""Warn about images that do not look like the cells of training.

The networks only know segmented, stain-normalised cells of C-NMC 2019, but give a probability for
any image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnmc.data.images import Pixels, center_crop

BLACK = 10
"""A pixel is black where no channel is above this, because JPEG leaves traces."""

CROP = 300
"""Side in pixels of the square whose border is measured: the paper's crop."""

_RING = 4
"""Width of the border in pixels."""

TYPICAL: Mapping[str, tuple[float, float]] = {
    "black_border": (0.799, 1.0),
    "area": (13757.51, 50444.341),
    "red": (47.706, 99.329),
    "green": (20.533, 46.412),
    "blue": (61.04, 94.821),
}
"""Quantiles 0.001 and 0.999 of :func:`measure` over 1,618 training cells of C-NMC 2019 (fold 1; 6
subjects with ALL, 2 without)."""

MARGIN = 0.2
"""Share by which a range is widened on both sides, because eight people are few."""


@dataclass(frozen=True)
class Looks:
    """Measurements of an image.

    Attributes:
        black_border: Share of black pixels along the border of the central square, 0 to 1.
        area: Number of pixels that are not black.
        red: Mean red of these pixels, 0 to 255; 0 where there are none.
        green: Mean green.
        blue: Mean blue.
    """

    black_border: float
    area: float
    red: float
    green: float
    blue: float


def measure(pixels: Pixels) -> Looks:
    """Measure an image, uint8 RGB of shape (height, width, 3)."""
    cell = pixels.max(axis=2) > BLACK
    square = center_crop(cell[..., None], min(CROP, *cell.shape))[..., 0]
    inside = np.zeros_like(square)
    inside[_RING:-_RING, _RING:-_RING] = True
    red, green, blue = pixels[cell].mean(axis=0) if cell.any() else (0.0, 0.0, 0.0)
    return Looks(
        black_border=float(1 - square[~inside].mean()),
        area=float(np.count_nonzero(cell)),
        red=float(red),
        green=float(green),
        blue=float(blue),
    )


def warnings_of(looks: Looks) -> tuple[str, ...]:
    """Return how an image differs from those of training, in a few words each."""
    low, high = {}, {}
    for name, (least, most) in TYPICAL.items():
        margin = MARGIN * (most - least)
        low[name] = getattr(looks, name) < least - margin
        high[name] = getattr(looks, name) > most + margin
    found = []
    if low["black_border"]:
        found.append("background not black")
    if low["area"]:
        found.append("cell smaller than in training")
    if high["area"]:
        found.append("cell larger than in training")
    if any(low[name] or high[name] for name in ("red", "green", "blue")):
        found.append("colour unlike training")
    return tuple(found)

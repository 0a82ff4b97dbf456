"""Warn about images that do not look like the cells of training.

The networks only know segmented, stain-normalised cells of C-NMC 2019, but give a probability for
any image.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def measure(pixels: Pixels) -> dict[str, float]:
    """Measure an image, uint8 RGB of shape (height, width, 3).

    Returns:
        ``black_border``, the share of black pixels along the border of the central square, 0 to 1;
        ``area``, the number of pixels that are not black; ``red``, ``green`` and ``blue``, their
        mean colour, 0 to 255.
    """
    cell = pixels.max(axis=2) > BLACK
    square = center_crop(cell[..., None], min(CROP, *cell.shape))[..., 0]
    inside = np.zeros_like(square)
    inside[_RING:-_RING, _RING:-_RING] = True
    colour = pixels[cell].mean(axis=0) if cell.any() else np.zeros(3)
    return {
        "black_border": float(1 - square[~inside].mean()),
        "area": float(np.count_nonzero(cell)),
        **dict(zip(("red", "green", "blue"), colour.tolist(), strict=True)),
    }


def warnings_of(looks: Mapping[str, float]) -> tuple[str, ...]:
    """Return how an image differs from those of training, in a few words each."""
    low, high = {}, {}
    for name, (least, most) in TYPICAL.items():
        margin = MARGIN * (most - least)
        low[name] = looks[name] < least - margin
        high[name] = looks[name] > most + margin
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

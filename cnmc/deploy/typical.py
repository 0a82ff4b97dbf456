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

_BORDER = 4
"""Width of the border in pixels."""

TYPICAL: Mapping[str, tuple[float, float]] = {
    "black_border": (0.799, 1.0),
    "area": (13757.51, 50444.341),
    "red": (47.706, 99.329),
    "green": (20.533, 46.412),
    "blue": (61.04, 94.821),
}
"""Quantiles 0.001 and 0.999 over 1,618 training cells of C-NMC 2019 (fold 1; 6 subjects with ALL, 2
without): the share of black pixels along the border of the central square, the number of pixels
that are not black, and their mean colour in [0, 255]."""

MARGIN = 0.2
"""Share by which a range is widened on both sides, because eight people are few."""


def warnings_of(pixels: Pixels) -> list[str]:
    """Return how an RGB image of 8 bits differs from those of training, in a few words each."""
    is_cell = pixels.max(axis=2) > BLACK
    square = center_crop(is_cell[..., None], min(CROP, *is_cell.shape))[..., 0]
    is_border = np.ones_like(square)
    is_border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    colour = pixels[is_cell].mean(axis=0) if is_cell.any() else np.zeros(3)
    values = [1 - square[is_border].mean(), is_cell.sum(), *colour]
    beyond = {}
    for (name, (low, high)), value in zip(TYPICAL.items(), values, strict=True):
        margin = MARGIN * (high - low)
        beyond[name] = int(value > high + margin) - int(value < low - margin)
    warnings = {
        "background not black": beyond["black_border"] < 0,
        "cell smaller than in training": beyond["area"] < 0,
        "cell larger than in training": beyond["area"] > 0,
        "colour unlike training": any(beyond[name] for name in ("red", "green", "blue")),
    }
    return [warning for warning, applies in warnings.items() if applies]

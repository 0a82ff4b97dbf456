"""Whether an image looks like the cells that the networks were trained on.

The networks know segmented, stain-normalised cells of C-NMC 2019 alone. For anything else they give
a probability too, which means nothing; so each image is measured, and one that no cell of training
looks like is warned about.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cnmc.data.images import Pixels, center_crop, decode

BLACK = 10
"""A pixel is black where no channel is above this: JPEG leaves traces on the background."""

CROP = 300
"""Side in pixels of the square whose border is looked at: the crop of the paper."""

_RING = 4
"""Width of that border in pixels."""

TYPICAL: Mapping[str, tuple[float, float]] = {
    "black_border": (0.799, 1.0),
    "area": (13757.51, 50444.341),
    "red": (47.706, 99.329),
    "green": (20.533, 46.412),
    "blue": (61.04, 94.821),
}
"""Quantiles 0.001 and 0.999 of 1,618 real cells of C-NMC's training part (fold 1; 6 subjects with
ALL, 2 without), by ``python -m cnmc.deploy.typical data/cnmc-real``."""

MARGIN = 0.2
"""Share of a range by which it is widened on either side: eight persons are not everybody."""


@dataclass(frozen=True)
class Looks:
    """Measures of an image.

    Attributes:
        black_border: Share of black pixels, 0 to 1, along the border of the central square.
        area: Pixels of the whole image that are not black.
        red: Mean over those pixels, 0 to 255; 0 where there are none.
        green: The same.
        blue: The same.
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
    """Return, in a few words each, what sets an image apart from the cells of training."""
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


def _quantiles(files: Sequence[Path]) -> dict[str, list[float]]:
    """Return the quantiles 0.001 and 0.999 of the measures of some images."""
    looks = [asdict(measure(decode(path.read_bytes()))) for path in files]
    return {
        name: np.quantile([row[name] for row in looks], [0.001, 0.999]).round(3).tolist()
        for name in TYPICAL
    }


if __name__ == "__main__":
    found = sorted(Path(sys.argv[1]).rglob("*.bmp"))
    print(len(found), "cells", _quantiles(found))

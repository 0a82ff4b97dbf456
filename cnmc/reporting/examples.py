"""Which cells stand for the data set, as in Figure 1 of the paper: chosen by rules from pixels.

The paper does not say how its four cells were chosen. Here each rule is one number of a cell's
pixels, so that the same data always show the same cells, and not the ones that somebody liked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnmc.data.images import Pixels
from cnmc.data.manifest import Manifest
from cnmc.data.parallel import map_threads
from cnmc.reporting.cells import read_pixels

SAMPLE = 300
"""Cells of a class among which the examples are sought."""
PALE = 0.45
"""Saturation below which a pixel is pale: stained cells lie above it, plasma and red cells that
segmentation left in lie below."""

RULES = (
    f"Chosen by rules, within a fixed random sample of at most {SAMPLE} training cells a class: "
    "(a), (b) the cell whose area is nearest to the median of its class, of the quarter with the "
    "most solid outlines (area over area of the convex hull); (c) the ALL cell with the longest "
    "straight side (pixels on a side of the bounding box, over the diameter of a circle of the "
    "cell's area), of the half with the most solid outlines; (d) the normal cell with the largest "
    f"share of pale pixels (HSV saturation below {PALE}), as background has them."
)

_SIDE = 150
"""Pixels a side that are enough for outlines and colours."""


@dataclass(frozen=True)
class CellShape:
    """What the rules look at.

    Attributes:
        area: Share of the image that is not black.
        solidity: Area over the area of the convex hull, in (0, 1].
        straight: Pixels on a side of the bounding box, the longest of the four, over the diameter
            of a circle of the cell's area; a cell that is cut straight has about 1.
        pale: Share of the cell that is pale, in [0, 1].
    """

    area: float
    solidity: float
    straight: float
    pale: float


@dataclass(frozen=True)
class Example:
    """A cell of Figure 1.

    Attributes:
        panel: Letter of its panel in the paper, ``a`` to ``d``.
        words: What it is an example of, in two short lines.
        path: Its file, relative to the root of the data set.
        pixels: The whole image.
    """

    panel: str
    words: tuple[str, str]
    path: str
    pixels: Pixels


class _Rule(NamedTuple):
    """How the two examples of a class are chosen, and what they are called."""

    label: int
    class_name: str
    typical_panel: str
    odd_panel: str
    measured: str
    only_solid: bool
    clear_from: float
    """From here on what is measured is to be seen; a small data set may have no such cell."""
    clear: str
    unclear: str


_ALL = _Rule(
    label=1,
    class_name="ALL cell",
    typical_panel="a",
    odd_panel="c",
    measured="straight",
    # Leftover background has straight sides too, but sticks out.
    only_solid=True,
    clear_from=0.25,
    clear="part cut off",
    unclear="longest straight side",
)
_HEM = _Rule(
    label=0,
    class_name="normal cell",
    typical_panel="b",
    odd_panel="d",
    measured="pale",
    only_solid=False,
    clear_from=0.12,
    clear="superfluous background",
    unclear="most pale pixels",
)


def measure(pixels: Pixels) -> CellShape | None:
    """Measure a cell.

    Args:
        pixels: Shape (height, width, 3), black outside the cell.

    Returns:
        Its shape, or None where the image is black all over.
    """
    red, green, blue = cv2.split(pixels)
    mask = np.asarray(cv2.max(cv2.max(red, green), blue)) > 0
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return None
    box = mask[top : top + height, left : left + width]
    num_pixels = int(np.count_nonzero(box))
    on_sides = max(int(side.sum()) for side in (box[0], box[-1], box[:, 0], box[:, -1]))
    # The rest is a share of an area: every few pixels tell it as well.
    step = max(1, min(pixels.shape[:2]) // _SIDE)
    coarse = pixels[::step, ::step]
    coarse_mask = mask[::step, ::step]
    return CellShape(
        area=num_pixels / mask.size,
        solidity=_solidity(coarse_mask),
        straight=on_sides / math.sqrt(4 * num_pixels / math.pi),
        pale=_pale_share(coarse[coarse_mask]),
    )


def _solidity(mask: NDArray[np.bool_]) -> float:
    if not mask.any():
        return 1.0
    points = cv2.findNonZero(np.ascontiguousarray(mask).view(np.uint8))
    hull = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return float(mask.sum() / hull.sum())


def _pale_share(inside: Pixels) -> float:
    if not len(inside):
        return 0.0
    saturation = 1.0 - inside.min(axis=1) / inside.max(axis=1)
    return float((saturation < PALE).mean())


def choose_examples(manifest: Manifest) -> list[Example]:
    """Choose the cells of Figure 1 by the :data:`RULES`.

    Returns:
        Up to four, by panel: none where a class has no readable cell in the training part, and no
        cell twice.
    """
    chosen = [*_choose_of_class(manifest, _ALL), *_choose_of_class(manifest, _HEM)]
    return sorted(chosen, key=lambda example: example.panel)


def _choose_of_class(manifest: Manifest, rule: _Rule) -> Iterator[Example]:
    shapes = _measure_sample(manifest, rule.label)
    if shapes.empty:
        return
    solid = shapes[shapes["solidity"] >= shapes["solidity"].quantile(0.75)]
    typical = str((solid["area"] - shapes["area"].median()).abs().idxmin())
    pixels = read_pixels(manifest, typical)
    if pixels is not None:
        yield Example(rule.typical_panel, (rule.class_name, "typical"), typical, pixels)
    others = shapes.drop(index=typical)
    if rule.only_solid:
        others = others[others["solidity"] >= others["solidity"].median()]
    if others.empty:
        return
    odd = str(others[rule.measured].idxmax())
    pixels = read_pixels(manifest, odd)
    if pixels is not None:
        words = rule.clear if others[rule.measured].max() >= rule.clear_from else rule.unclear
        yield Example(rule.odd_panel, (rule.class_name, words), odd, pixels)


def _measure_sample(manifest: Manifest, label: int) -> pd.DataFrame:
    """Return the shapes of a sample of the training cells of a class, by path."""
    cells = manifest.cells
    of_class = cells[
        (cells["part"] == "train")
        & cells["label"].eq(label).fillna(value=False)
        & (cells["error"] == "")
    ]
    paths = of_class["path"].sample(min(SAMPLE, len(of_class)), random_state=0).to_list()

    def measure_file(path: str) -> CellShape | None:
        pixels = read_pixels(manifest, path)
        return None if pixels is None else measure(pixels)

    shapes = map_threads(
        measure_file,
        paths,
        num_workers=min(os.cpu_count() or 1, 8),
        description="Measuring cells",
        show_progress=False,
    )
    found = {path: vars(shape) for path, shape in zip(paths, shapes, strict=True) if shape}
    columns = list(CellShape.__dataclass_fields__)
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)

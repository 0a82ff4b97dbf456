"""Pictures of cells: the paper's Figure 1, and the cells that most runs get wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from cnmc.data.images import Pixels, crop_and_resize
from cnmc.data.manifest import Manifest
from cnmc.reporting import document
from cnmc.reporting.cells import read_pixels, source
from cnmc.reporting.drawing import INK, PAPER, SECONDARY, finish
from cnmc.reporting.examples import RULES, choose_examples
from cnmc.reporting.terms import CLASSES

FIGURE1, HARDEST_CELLS = "figure1", "hardest_cells"
PICTURES = (FIGURE1, HARDEST_CELLS)
"""Names of the figures that show cells."""

# Lengths in inches. Cells lie on whole pixels at 200 dpi.
_WIDTH, _MARGIN, _GAP = 7.2, 0.05, 0.1
_LINE = 0.14
_FONT_SIZE = 8.0

_EXAMPLE_SIDE, _EXAMPLE_DPI = 1.7, 200
_SHEET_SIDE, _SHEET_DPI = 1.1, 110
_SHEET_COLUMNS, _SHEET_ROWS = 6, 4
_NAME_LENGTH = 9
"""Characters of a name that fit below a cell of the sheet, after a word that says what it is."""


def figure1(manifest: Manifest, *, crop: int) -> document.Figure | None:
    """Draw example cells of the training part, as in Figure 1 of the paper.

    Args:
        manifest: The data set; up to 300 of its images are read.
        crop: ``data.crop`` of the runs, outlined in each image.

    Returns:
        The figure, or None where the training part has no labelled cell that can be read.
    """
    examples = choose_examples(manifest)
    if not examples:
        return None
    lines = 3
    drawing = _new_drawing(2 * _MARGIN + _EXAMPLE_SIDE + (lines + 0.5) * _LINE, _EXAMPLE_DPI)
    for example in examples:
        left = _MARGIN + "abcd".index(example.panel) * (_EXAMPLE_SIDE + _GAP)
        side = min(example.pixels.shape[:2])
        _draw_cell(
            drawing,
            crop_and_resize(example.pixels, crop=side, resize=_pixels(_EXAMPLE_SIDE, _EXAMPLE_DPI)),
            left=left,
            top=_MARGIN,
            side=_EXAMPLE_SIDE,
            crop=crop / side,
            lines=(
                f"({example.panel}) {example.words[0]}",
                example.words[1],
                _short(_cell_name(example.path), 26),
            ),
        )
    files = ", ".join(f"({e.panel}) {PurePosixPath(e.path).name}" for e in examples)
    missing = sorted(set("abcd") - {example.panel for example in examples})
    cropped = any(crop < min(example.pixels.shape[:2]) for example in examples)
    remarks = (
        f"Dashed: the central {crop} x {crop} pixels, which the network sees." if cropped else "",
        RULES,
        f"Files: {files}.",
        f"No cell in the training part for ({'), ('.join(missing)})." if missing else "",
        source(manifest),
    )
    return finish(
        drawing,
        name=FIGURE1,
        title="Example cells of the training part (Figure 1 of the paper)",
        alt="Images of single cells on black. "
        + "; ".join(f"({e.panel}) {e.words[0]}, {e.words[1]}" for e in examples)
        + ".",
        note=" ".join(filter(None, remarks)),
    )


def error_sheet(manifest: Manifest, hardest: pd.DataFrame, *, crop: int) -> document.Figure | None:
    """Draw the cells that most runs get wrong, as the network sees them.

    Args:
        manifest: The data set.
        hardest: Cells, the worst first: ``cell_id``, ``subject``, ``label`` (1 ALL, 0 HEM),
            ``wrong_share`` (of the runs, in [0, 1]) and ``mean_probability`` (of ALL, over the
            runs, in [0, 1]).
        crop: ``data.crop`` of the runs: side of the central square that is shown.

    Returns:
        The figure, with at most 24 cells, or None where there is none to show.
    """
    found, num_missing = _with_pixels(manifest, hardest, _SHEET_COLUMNS * _SHEET_ROWS)
    if not found:
        return None
    lines = 4
    pitch = _SHEET_SIDE + (lines + 1) * _LINE
    num_rows = math.ceil(len(found) / _SHEET_COLUMNS)
    drawing = _new_drawing(2 * _MARGIN + num_rows * pitch - 0.5 * _LINE, _SHEET_DPI)
    for place, (row, pixels) in enumerate(found):
        side = min(crop, *pixels.shape[:2])
        _draw_cell(
            drawing,
            crop_and_resize(pixels, crop=side, resize=_pixels(_SHEET_SIDE, _SHEET_DPI)),
            left=_MARGIN + place % _SHEET_COLUMNS * (_SHEET_SIDE + _GAP),
            top=_MARGIN + place // _SHEET_COLUMNS * pitch,
            side=_SHEET_SIDE,
            lines=(
                _class_name(row),
                f"mean p {_number(row['mean_probability'])}",
                f"subject {_subject(row)}",
                f"cell {_short(_cell_name(str(row['cell_id'])), _NAME_LENGTH + 3)}",
            ),
            aside=_share_wrong(row),
        )
    # Only a few are read out: two dozen would be a table.
    worst = ", ".join(
        f"{row['cell_id']} ({_class_name(row)}, {_share_wrong(row)})" for row, _ in found[:3]
    )
    reading = (
        "Below each cell: its class (HEM is normal), the share of the runs that got it wrong, and "
        "the mean probability p of ALL over the runs. The worst stand first. Shown are the "
        f"central {crop} x {crop} pixels, which are what the network sees."
    )
    remarks = (reading, _left_out(num_missing), source(manifest))
    return finish(
        drawing,
        name=HARDEST_CELLS,
        title="The cells that most runs get wrong",
        alt=f"Images of {len(found)} single cells on black, the one that most runs get wrong "
        f"first: {worst}.",
        note=" ".join(filter(None, remarks)),
    )


def _with_pixels(
    manifest: Manifest, hardest: pd.DataFrame, limit: int
) -> tuple[list[tuple[dict[str, Any], Pixels]], int]:
    """Return the first cells that have an image, and how many were passed over for want of one."""
    paths = dict(zip(manifest.cells["cell_id"], manifest.cells["path"], strict=True))
    found: list[tuple[dict[str, Any], Pixels]] = []
    num_missing = 0
    for record in hardest.to_dict(orient="records"):
        row = {str(name): value for name, value in record.items()}
        if len(found) == limit:
            break
        path = paths.get(row["cell_id"])
        pixels = None if path is None else read_pixels(manifest, path)
        if pixels is None:
            num_missing += 1
        else:
            found.append((row, pixels))
    return found, num_missing


def _left_out(num_missing: int) -> str:
    if not num_missing:
        return ""
    what = "1 cell is" if num_missing == 1 else f"{num_missing} cells are"
    return f"{what} left out: no image that can be read."


def _class_name(row: dict[str, Any]) -> str:
    return CLASSES[row["label"]] if row["label"] in {0, 1} else "?"


def _subject(row: dict[str, Any]) -> str:
    known = not pd.isna(row["subject"]) and str(row["subject"])
    return _short(str(row["subject"]), _NAME_LENGTH) if known else "unknown"


def _share_wrong(row: dict[str, Any]) -> str:
    share = row["wrong_share"]
    return f"{'?' if pd.isna(share) else format(100 * share, '.0f')} % wrong"


def _number(probability: float) -> str:
    return "?" if pd.isna(probability) else f"{probability:.2f}"


def _cell_name(path: str) -> str:
    """Return what tells a cell from the others of its part: not ``UID_`` and not the class."""
    name = PurePosixPath(path).name.removesuffix(".bmp")
    return name.removeprefix("UID_").removesuffix("_all").removesuffix("_hem")


def _short(name: str, length: int) -> str:
    """Cut the middle out of a long name; what cannot be printed shows as a question mark."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{name[-tail:]}"


def _pixels(inches: float, dpi: int) -> int:
    return round(inches * dpi)


def _new_drawing(height: float, dpi: int) -> Drawing:
    # An image in an SVG gets the resolution of its figure.
    return Drawing(figsize=(_WIDTH, round(height, 2)), dpi=dpi, facecolor=PAPER)


def _draw_cell(
    drawing: Drawing,
    pixels: Pixels,
    *,
    left: float,
    top: float,
    side: float,
    lines: Sequence[str],
    aside: str = "",
    crop: float = 1.0,
) -> None:
    """Draw a cell, the outline of its crop where that is smaller, and text below it.

    Args:
        drawing: What is drawn in.
        pixels: A square.
        left: From the left edge of the drawing, in inches.
        top: From its upper edge, in inches.
        side: Of the cell in the drawing, in inches.
        lines: Text below it; the first stands out.
        aside: What stands on the first line too, on the right.
        crop: Side of the crop as a share of the side of the image.
    """
    width, height = drawing.get_size_inches()
    axes = drawing.add_axes(
        (left / width, 1 - (top + side) / height, side / width, side / height), frameon=False
    )
    axes.set_axis_off()
    num_pixels = len(pixels)
    axes.imshow(pixels, interpolation="hanning", aspect="auto")
    if crop < 1.0:
        inset = num_pixels * (1.0 - crop) / 2
        axes.add_patch(
            Rectangle(
                (inset - 0.5, inset - 0.5),
                num_pixels * crop,
                num_pixels * crop,
                fill=False,
                edgecolor=SECONDARY,
                linewidth=0.7,
                linestyle=(0, (4, 3)),
            )
        )
    texts = [(left, position, line) for position, line in enumerate(lines)]
    for x, position, line in [*texts, (left + side, 0, aside)]:
        drawing.text(
            x / width,
            1 - (top + side + 0.05 + position * _LINE) / height,
            line,
            fontsize=_FONT_SIZE,
            fontweight="bold" if position == 0 and x == left else "normal",
            color=INK if position == 0 else SECONDARY,
            horizontalalignment="left" if x == left else "right",
            verticalalignment="top",
            # Names of files may hold what is markup for formulas.
            parse_math=False,
        )

"""The cells: the paper's Table 1 and Figure 1, and pictures of the cells that runs get wrong."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cnmc.analysis import results
from cnmc.data.audit import COUNTS, TABLE1, composition
from cnmc.data.images import Pixels, UnreadableImageError, crop_and_resize, decode, read_file
from cnmc.data.manifest import Manifest
from cnmc.data.names import CLASS_NAMES
from cnmc.data.sources.synthetic import MARKER
from cnmc.reporting import plots
from cnmc.reporting.document import Cell, Figure, Row, Table, say, table
from cnmc.reporting.findings import Findings

PICTURES = ("figure1", "hardest_cells")
"""Names of the figures that show cells."""
SAMPLE = 100
"""Number of training cells of each class among which Figure 1 chooses."""
_COLUMNS, _ROWS = 6, 4
_SIDE = 200
"""Pixels of a cell in a figure."""


def table1(findings: Findings) -> Table | str:
    """Return the composition of the data set beside Table 1 of the paper."""
    manifest = findings.cells
    if isinstance(manifest, str):
        return say("no_table1", reason=manifest)

    def text(value: Any) -> str:
        return "?" if pd.isna(value) else f"{value:,}"

    def beside(name: str) -> Cell:
        def cell(row: Row) -> str:
            is_public = row["cells_all"] + row["cells_hem"] > 0 or row["cells_unlabelled"] == 0
            here = text(row[name]) if is_public or name == "cells_unlabelled" else "?"
            return f"{here} / {text(row[f'published_{name}'])}"

        return cell

    heads = ("ALL subjects", "HEM subjects", "ALL cells", "HEM cells", "unlabelled cells")
    counts = pd.concat([composition(manifest.cells), TABLE1.add_prefix("published_")], axis=1)
    columns = {head: beside(name) for head, name in zip(heads, COUNTS, strict=True)}
    return table("table1", counts.reset_index(), columns)


def figure1(findings: Findings) -> Figure | str:
    """Draw example cells of the training part, chosen by their area."""
    manifest = findings.cells
    examples = [] if isinstance(manifest, str) else _examples(manifest)
    if isinstance(manifest, str) or not examples:
        return ""
    drawing, panels = plots.panels(2.2, columns=4)
    for axes in panels:
        axes.set_axis_off()
    for axes, (title, path, pixels) in zip(panels, examples, strict=False):
        side = min(pixels.shape[:2])
        _show(axes, pixels, side, title, PurePosixPath(path).name)
        if (share := findings.crop / side) < 1:
            style: plots.Style = {"fill": False, "edgecolor": plots.GREY, "linestyle": "--"}
            axes.add_patch(Rectangle(((1 - share) / 2, (1 - share) / 2), share, share, **style))
    values = {"crop": findings.crop, "sample": SAMPLE, "credit": _credit(manifest)}
    return plots.finish(drawing, "figure1", **values)


def _examples(manifest: Manifest) -> list[tuple[str, str, Pixels]]:
    """Return title, path and pixels of the example cells."""
    train = manifest.cells[manifest.cells["part"] == "train"]
    typical, odd = [], []
    for label, name, extreme, position in ((1, "ALL", "smallest", 0), (0, "normal", "largest", -1)):
        paths = train.loc[train["label"].eq(label).fillna(value=False), "path"].sort_values()
        sample = paths.sample(min(SAMPLE, len(paths)), random_state=0)
        read = [(path, _pixels(manifest, path)) for path in sample]
        images = [(path, pixels) for path, pixels in read if pixels is not None]
        images.sort(key=lambda image: np.count_nonzero(image[1].any(axis=-1)))
        if images:
            typical.append((f"typical {name} cell", *images[len(images) // 2]))
            odd.append((f"{extreme} {name} cell", *images[position]))
    return typical + odd


def hardest_cells(findings: Findings) -> Figure | str:
    """Draw the cells that most runs get wrong, as the network sees them."""
    manifest = findings.cells
    if isinstance(manifest, str):
        return say("no_pictures", reason=manifest)
    hardest = results.hardest_cells(findings.study.reference)
    hardest = hardest[hardest["wrong_share"] > 0.5].head(_COLUMNS * _ROWS)
    if hardest.empty:
        return say("no_pictures", reason="no cell is wrong in more than half of the runs.")
    paths = dict(zip(manifest.cells["cell_id"], manifest.cells["path"], strict=True))
    num_rows = -(-len(hardest) // _COLUMNS)
    drawing, panels = plots.panels(1.5 * num_rows, rows=num_rows, columns=_COLUMNS)
    for axes in panels:
        axes.set_axis_off()
    for axes, row in zip(panels, hardest.to_dict(orient="records"), strict=False):
        pixels = _pixels(manifest, paths.get(row["cell_id"], ""))
        if pixels is not None:
            title = f"{CLASS_NAMES[row['label']]}, {100 * row['wrong_share']:.0f} % wrong"
            words = f"p(ALL) {row['mean_probability']:.2f}, {row['subject']}"
            _show(axes, pixels, min(findings.crop, *pixels.shape[:2]), title, words)
    return plots.finish(drawing, "hardest_cells", credit=_credit(manifest))


def _show(axes: Axes, pixels: Pixels, side: int, title: str, words: str) -> None:
    square = crop_and_resize(pixels, crop=side, resize=min(side, _SIDE))
    axes.imshow(square, extent=(0, 1, 0, 1))
    axes.set_title(title, fontsize=6.5)
    axes.text(0, -0.05, words, fontsize=5.5, color=plots.GREY, va="top")


def _pixels(manifest: Manifest, path: str) -> Pixels | None:
    """Return the pixels of a cell, or None if its file cannot be read."""
    try:
        return decode(read_file(manifest.root / path))
    except UnreadableImageError:
        return None


def _credit(manifest: Manifest) -> str:
    """Return the source of the cells, which their licence requires."""
    return say("generated" if (manifest.root / MARKER).is_file() else "licence")

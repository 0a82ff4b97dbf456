"""Shared parts of the figures: style, marks, rows, legend and rendering."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnmc.reporting import document

STYLE = Path(__file__).with_name("report.mplstyle")
"""Matplotlib settings of the figures, independent of the user's."""
Style = dict[str, Any]
"""Arguments of a function of matplotlib."""
GREY, INK = "#6b7280", "#1b1e23"
LINE: Style = {"color": INK, "linewidth": 0.8, "linestyle": ":", "marker": ""}
CLASS_MARKS: dict[int, Style] = {
    1: {"color": "#d55e00", "marker": "o", "linestyle": ""},
    0: {"color": "#0072b2", "marker": "s", "linestyle": ""},
}
"""Marks of ALL and HEM."""
_WIDTH = 6.4


def panels(
    height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a new figure of a height in inches, and its panels row by row."""
    figure = Figure(figsize=(_WIDTH, height))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def marks(position: int, **changes: Any) -> Style:
    """Return colour, marker and line style of the experiment at a position."""
    styles = list(mpl.rcParams["axes.prop_cycle"])
    return {**styles[position % len(styles)], **changes}


def by_experiment(frame: pd.DataFrame) -> Iterator[tuple[Style, pd.DataFrame]]:
    """Yield style, with the label of the legend, and rows of each experiment."""
    for position, (label, rows) in enumerate(frame.groupby("experiment", sort=False)):
        yield marks(position, label=label), rows


def hollow(style: Style, **changes: Any) -> Style:
    """Return a style without lines whose marks are outlines."""
    outline = {"markeredgecolor": style["color"], "markeredgewidth": 1.0}
    return {**style, **outline, "linestyle": "", "markerfacecolor": "white", **changes}


def band(axes: Axes, x: pd.Series, low: pd.Series, high: pd.Series, color: str) -> None:
    """Shade the range between two lines."""
    axes.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)


def line(axes: Axes, rows: pd.DataFrame, style: Style, x: str, prefix: str = "") -> None:
    """Draw ``<prefix>mean`` within one ``<prefix>std``."""
    mean, std = rows[f"{prefix}mean"], rows[f"{prefix}std"]
    band(axes, rows[x], mean - std, mean + std, style["color"])
    axes.plot(rows[x], mean, **style)


def count_along(axes: Axes, label: str) -> None:
    """Put ticks of the x axis at whole numbers only."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def wrapped(label: object, length: int = 28) -> str:
    """Break a label into lines of at most this many characters."""
    return textwrap.fill(str(label), length)


def label_rows(axes: Axes, labels: Iterable[object], numbers: Sequence[str] = ()) -> None:
    """Name the rows of a panel, the first on top, and write numbers beside them."""
    names = [wrapped(label) for label in labels]
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(numbers)), labels=list(numbers))
    right.spines["right"].set_visible(False)
    for side in (axes, right):
        side.tick_params(axis="y", length=0)


def row_height(labels: Sequence[object], least: float) -> float:
    """Return the height in inches that rows with these labels take."""
    lines = max(wrapped(label).count("\n") + 1 for label in labels)
    return len(labels) * max(least, 0.15 * lines)


def _add_legend(figure: Figure) -> None:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if not entries:
        return
    names = [wrapped(name, 40) for name in entries]
    columns = min(len(names), 100 // (max(map(len, names)) + 8) or 1)
    figure.legend(list(entries.values()), names, loc="outside lower center", ncols=columns)
    width, height = figure.get_size_inches()
    lines = sum(name.count("\n") for name in names) + -(-len(names) // columns)
    figure.set_size_inches(width, height + 0.1 + 0.17 * lines)


def finish(figure: Figure, name: str, **values: Any) -> document.Figure:
    """Add the legend and render a drawing as SVG and PNG."""
    for axes in figure.axes:
        if axes.axison and not np.isfinite(axes.dataLim.get_points()).all():
            style: Style = {"transform": axes.transAxes, "ha": "center", "color": GREY}
            axes.text(0.5, 0.5, document.NOT_DEFINED, **style)
    _add_legend(figure)
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    figure.set_layout_engine("none")  # the layout is the same
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return document.figure(name, svg.getvalue().decode(), png.getvalue(), **values)

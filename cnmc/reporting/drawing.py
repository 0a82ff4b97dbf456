"""How the figures of a report look, and how a drawing becomes files.

Everything neutral has one of four colours (:data:`INK`, :data:`SECONDARY`, :data:`GRID` and
:data:`PAPER`), which the page exchanges on a dark background; data have the colours of Okabe and
Ito (https://jfly.uni-koeln.de/color/), and a marker and a line style of their own besides.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnmc.reporting import document

FloatArray = npt.NDArray[np.float64]
Style = dict[str, Any]
"""Arguments of matplotlib's ``plot``."""
Dashes = str | tuple[float, tuple[float, ...]]

INK, SECONDARY, GRID, PAPER = "#1b1e23", "#6b7280", "#e5e7eb", "#ffffff"
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, ORANGE, SKY = "#cc79a7", "#e69f00", "#56b4e9"

WIDTH = 6.4
"""Inches; text of 8.5 pt is then 10 pixels high where the figure is 560 pixels wide."""
FONT = "DejaVu Sans"
"""Comes with matplotlib, so it is the same everywhere."""
SIZE = 8.5
"""Points, of titles of panels and of axes."""
SMALL = 8.0
"""Points, of everything else."""
_DOTS_PER_INCH = 200

_STYLE: dict[Any, Any] = {
    "font.family": [FONT],
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7.0,
    "axes.titlecolor": INK,
    "axes.labelsize": SIZE,
    "axes.labelcolor": INK,
    "axes.edgecolor": SECONDARY,
    "axes.linewidth": 0.7,
    "axes.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.color": SECONDARY,
    "ytick.color": SECONDARY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # names of runs and subjects may hold dollars
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.8,
    "legend.labelspacing": 0.45,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "patch.edgecolor": INK,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
    "figure.constrained_layout.wspace": 0.03,
    "figure.constrained_layout.hspace": 0.04,
    "svg.fonttype": "path",
    "svg.hashsalt": "cnmc",
}


@dataclass(frozen=True)
class Series:
    """How one series is told from the others, in colour as well as without it."""

    color: str
    marker: str
    dashes: Dashes = "-"

    def line(self, **changes: Any) -> Style:
        """Return the style of a line with filled markers, as matplotlib takes it."""
        style: Style = {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.dashes,
            "markeredgecolor": PAPER,
            "markeredgewidth": 0.6,
        }
        return {**style, **changes}

    def marks(self, **changes: Any) -> Style:
        """Return the style of filled markers without a line."""
        return self.line(**{"linestyle": "none", **changes})

    def hollow(self, **changes: Any) -> Style:
        """Return the style of hollow markers without a line."""
        style: Style = {"markerfacecolor": PAPER, "markeredgecolor": self.color}
        return self.marks(**{**style, "markeredgewidth": 1.0, **changes})


ALL_CELLS = Series(VERMILLION, "o")
HEM_CELLS = Series(BLUE, "s", (0, (5, 1.5)))
PUBLISHED = Series(SECONDARY, "D", "-")

WHOLE_MARKS: Style = {"clip_on": False, "in_layout": False}
"""For marks at the very end of an axis. Out of the layout, since what is not clipped asks for room
at the figure's corner where there is nothing to draw."""

_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_DASHES: tuple[Dashes, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2.5, 2.5)),
    (0, (9, 2, 2, 2)),
)


def series(position: int) -> Series:
    """Return how the series at this position is drawn; 24 differ from each other."""
    return Series(
        _COLORS[position % len(_COLORS)],
        _MARKERS[position % len(_MARKERS)],
        _DASHES[position % len(_DASHES)],
    )


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the report, whatever is set outside, which stays as it is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def blank(height: float) -> Figure:
    """Return an empty figure of the report's width and this height in inches."""
    return Figure(figsize=(WIDTH, height), dpi=_DOTS_PER_INCH, layout="constrained")


def floats(frame: pd.DataFrame, column: str) -> FloatArray:
    """Return a column as floats, NaN where there is no such column."""
    if column not in frame:
        return np.full(len(frame), np.nan)
    found: FloatArray = frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
    return found


def percents(frame: pd.DataFrame, column: str) -> FloatArray:
    """Return a column of fractions in percent."""
    return 100.0 * floats(frame, column)


def limits(
    arrays: Iterable[npt.ArrayLike], *, least: float = 1.0, pad: float = 0.06
) -> tuple[float, float]:
    """Return the ends of an axis in percent that shows all these percentages.

    Args:
        arrays: What is drawn, in %; NaN counts for nothing.
        least: The axis is at least so long, in %.
        pad: Room on either side, as a fraction of the axis.
    """
    drawn = np.concatenate([np.ravel(np.asarray(array, dtype=np.float64)) for array in arrays])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return 0.0, 100.0
    # A mean plus its standard deviation may pass 100 %, where nothing is to be seen.
    low, high = max(float(drawn.min()), 0.0), min(float(drawn.max()), 100.0)
    room = max(high - low, least)
    middle = (low + high) / 2
    low, high = min(low, middle - room / 2), max(high, middle + room / 2)
    return low - pad * room, min(high + pad * room, 100.0 + pad * room)


def ticks_in_percent(axes: Axes, axis: str, at_most: int = 6) -> None:
    """Put ticks on an axis in percent, none of them outside 0 to 100."""
    along = axes.xaxis if axis == "x" else axes.yaxis
    low, high = axes.get_xlim() if axis == "x" else axes.get_ylim()
    low, high = sorted((low, high))
    places = MaxNLocator(at_most, steps=[1, 2, 5, 10]).tick_values(low, high)
    inside = [float(tick) for tick in places if max(low, 0) <= tick <= min(high, 100.0)]
    along.set_ticks(inside)


def whole_number_ticks(axes: Axes, numbers: npt.ArrayLike) -> None:
    """Let the x axis count: epochs, views, runs."""
    found = np.asarray(numbers, dtype=np.float64)
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    room = 0.04 * (high - low) if high > low else 0.5
    axes.set_xlim(low - room, high + room)
    places = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(low, high)
    ticks = [int(tick) for tick in places if low <= tick <= high]
    # The ends are what is read off first; they stand where they do not touch the next tick.
    step = min(np.diff(ticks), default=1)
    ends = {round(end) for end in (low, high) if min(abs(end - tick) for tick in ticks) > step / 2}
    axes.set_xticks(sorted({*ticks, *ends}))


def band(
    axes: Axes,
    x: FloatArray,
    low: FloatArray,
    high: FloatArray,
    *,
    color: str,
    alpha: float = 0.16,
) -> None:
    """Shade the range between two lines; where a single point has no neighbour, draw a bar."""
    there = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    if not there.any():
        return
    axes.fill_between(x, low, high, where=there.tolist(), color=color, alpha=alpha, linewidth=0)
    beside = np.concatenate([[False], there[:-1]]) | np.concatenate([there[1:], [False]])
    alone = there & ~beside
    if alone.any():
        axes.vlines(x[alone], low[alone], high[alone], color=color, linewidth=1.2, alpha=0.6)


def not_defined(axes: Axes) -> None:
    """Say in a panel that there is nothing to draw, and take away what helps to read it."""
    for artist in (*axes.lines, *axes.collections, *axes.patches):
        artist.remove()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.text(
        0.5,
        0.5,
        document.NOT_DEFINED,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=SECONDARY,
        in_layout=False,
    )


def sign(**style: Any) -> Line2D:
    """Return the sign of a line or a mark in a legend."""
    return Line2D([], [], **style)


def legend_below(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Put a legend below all panels in as few lines as fit, and make the figure so much taller."""
    if not entries:
        return
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    room = 0.97 * figure.bbox.width
    for lines in range(1, len(entries) + 1):
        legend = figure.legend(
            [artist for artist, _ in entries],
            [label for _, label in entries],
            loc="outside lower center",
            ncols=-(-len(entries) // lines),
        )
        box = legend.get_window_extent(renderer)
        if box.width <= room or lines == len(entries):
            width, height = figure.get_size_inches()
            figure.set_size_inches(width, height + box.height / figure.dpi)
            return
        legend.remove()


def make_square(figure: Figure, axes: Axes, share: float = 1.0) -> None:
    """Change the height of a figure so that a panel becomes as high as it is wide.

    An equal aspect would do the same, but matplotlib's layout then leaves gaps or cuts off titles.

    Args:
        figure: Complete but for this.
        axes: The panel.
        share: The part of a change in the figure's height that the panel gets.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    box = axes.get_position()
    width, height = figure.get_size_inches()
    missing = box.width * width - box.height * height
    figure.set_size_inches(width, height + missing / share)


def finish(figure: Figure, *, name: str, title: str, alt: str, note: str = "") -> document.Figure:
    """Render a drawing, and let go of it.

    The same drawing gives the same bytes. The names inside the SVG begin with the figure's, so that
    several can stand in one page.

    Args:
        figure: The drawing; it is empty afterwards.
        name: Name of its files, without suffix.
        title: One line; it is not drawn.
        alt: What the figure shows, in words.
        note: What stands below it.
    """
    svg, png = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with styled():
        # Not savefig, which draws everything twice; and laid out once, for both files.
        FigureCanvasAgg(figure).print_png(  # type: ignore[no-untyped-call]
            png, metadata={"Software": None}
        )
        figure.set_layout_engine("none")
        FigureCanvasSVG(figure).print_svg(svg, metadata=nothing)  # type: ignore[no-untyped-call]
    figure.clear()
    drawn = _with_own_names(svg.getvalue(), name)
    return document.Figure(name, title, drawn, png.getvalue(), alt, note)


def _with_own_names(svg: str, name: str) -> str:
    # Nothing refers to a group.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'\b(id="|href="#)(?=[^"]+")', rf"\g<1>{name}-", svg)
    return re.sub(r"url\(#", f"url(#{name}-", svg)

"""Whether a predicted probability is the fraction of cells that it promises."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cnmc.reporting import document
from cnmc.reporting.drawing import (
    BLUE,
    GREEN,
    SECONDARY,
    SIZE,
    WHOLE_MARKS,
    WIDTH,
    Series,
    Style,
    blank,
    finish,
    floats,
    legend_below,
    make_square,
    not_defined,
    percents,
    sign,
    styled,
)
from cnmc.reporting.figures.labels import names, percent, width

_PREDICTED = Series(BLUE, "o")
_CALIBRATED = Series(GREEN, "^", (0, (5, 1.5)))
_DIAGONAL: Style = {"color": SECONDARY, "linewidth": 0.9, "linestyle": (0, (1, 2))}
_SHARE = 0.8
"""Of the height of a diagram and its histogram, the part of the diagram."""


@styled()
def reliability(
    by_group: Mapping[str, pd.DataFrame], *, name: str = "reliability"
) -> document.Figure:
    """Draw the fraction of ALL cells against the predicted probability, and how many cells.

    Args:
        by_group: By group, one row a bin of predicted probability: low, high (its ends), num_cells,
            mean_probability and fraction (of ALL among its cells), optionally
            calibrated_probability and calibrated_fraction. Fractions of 1, NaN where a bin is
            empty.
        name: Name of its files.
    """
    across = max(min(len(by_group), 3), 1)
    if len(by_group) == 4 and all(width(name, size=SIZE, bold=True) < 1.0 for name in by_group):
        across = 4
    # A single diagram stands in the middle rather than as wide as the page.
    margins = [0.4] if across == 1 else []
    down = max(-(-len(by_group) // across), 1)
    shown = names(by_group, WIDTH / (across + 2 * sum(margins)) - 0.5, 4, size=SIZE, bold=True)
    figure = blank(down * 3.0)
    grid = figure.add_gridspec(
        2 * down,
        across + 2 * len(margins),
        width_ratios=[*margins, *[1.0] * across, *margins],
        height_ratios=[_SHARE, 1 - _SHARE] * down,
    )
    for k, (label, frame) in enumerate(zip(shown, by_group.values(), strict=True)):
        row, column = divmod(k, across)
        place = column + len(margins)
        upper = figure.add_subplot(grid[2 * row, place])
        lower = figure.add_subplot(grid[2 * row + 1, place])
        upper.set_title(label)
        _draw_bins(upper, lower, frame)
        if column == 0:
            upper.set_ylabel("ALL cells in %")
            lower.set_ylabel("cells")
    if not by_group:
        not_defined(figure.add_subplot(grid[:, 1]))
    entries: list[tuple[Artist, str]] = [(sign(**_PREDICTED.line()), "as predicted")]
    if any(np.isfinite(floats(f, "calibrated_fraction")).any() for f in by_group.values()):
        entries.append((sign(**_CALIBRATED.line()), "calibrated"))
    entries.append((sign(**_DIAGONAL), "perfect calibration"))
    legend_below(figure, entries)
    if by_group:
        make_square(figure, figure.axes[0], _SHARE / down)
    alt = [_describe(group, frame) for group, frame in by_group.items()]
    return finish(
        figure,
        name=name,
        title="Fraction of ALL cells by predicted probability",
        alt=" ".join(alt) or "There is no run.",
        note="Below: the number of cells in each bin of predicted probability.",
    )


def _draw_bins(upper: Axes, lower: Axes, frame: pd.DataFrame) -> None:
    upper.set_xlim(-3, 103)
    upper.set_ylim(-3, 103)
    upper.set_xticks([0, 50, 100])
    upper.set_yticks([0, 50, 100])
    upper.plot([0, 100], [0, 100], **_DIAGONAL)
    for kind, x, y in (
        (_CALIBRATED, "calibrated_probability", "calibrated_fraction"),
        (_PREDICTED, "mean_probability", "fraction"),
    ):
        # Empty bins are left out rather than drawn as gaps: a bin between two empty ones would
        # lose its lines.
        place, fraction = percents(frame, x), percents(frame, y)
        there = np.isfinite(place) & np.isfinite(fraction)
        upper.plot(place[there], fraction[there], **kind.line(**WHOLE_MARKS, zorder=3))
    if not np.isfinite(percents(frame, "fraction")).any():
        not_defined(upper)

    lower.set_xlim(-3, 103)
    lower.set_xlabel("predicted ALL in %")
    low, high, cells = percents(frame, "low"), percents(frame, "high"), floats(frame, "num_cells")
    there = np.isfinite(low) & np.isfinite(high) & (cells > 0)
    if not there.any():
        not_defined(lower)
        return
    lower.bar(
        low[there],
        cells[there],
        width=(high - low)[there],
        align="edge",
        color=BLUE,
        alpha=0.45,
        edgecolor=BLUE,
        linewidth=0.6,
    )
    lower.set_xticks([0, 50, 100])
    lower.yaxis.set_major_locator(MaxNLocator(2, integer=True, steps=[1, 2, 5, 10]))
    lower.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))


def _describe(group: str, frame: pd.DataFrame) -> str:
    rows = frame[frame["fraction"].notna() & frame["mean_probability"].notna()]
    if rows.empty:
        return f"{group}: {document.NOT_DEFINED}."
    parts = [
        f"{percent(row['mean_probability'], 1)} predicted, {percent(row['fraction'], 1)} ALL"
        for _, row in rows.iloc[sorted({0, len(rows) // 2, len(rows) - 1})].iterrows()
    ]
    cells = document.count(rows["num_cells"].sum())
    return f"{group}, {cells} cells in {len(rows)} bins: {'; '.join(parts)}."

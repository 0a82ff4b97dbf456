"""What averaging brings: over the networks of several runs, and over turned views of a cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from cnmc.reporting import document
from cnmc.reporting.drawing import (
    SECONDARY,
    FloatArray,
    band,
    blank,
    finish,
    floats,
    legend_below,
    limits,
    not_defined,
    percents,
    series,
    sign,
    styled,
    ticks_in_percent,
    whole_number_ticks,
)
from cnmc.reporting.figures.labels import LEGEND_WIDTH, names, percent, plural, spread

_MOST_MARKS = 13
"""Of a line in half the width of a figure."""


@styled()
def ensembles(by_size: Mapping[str, pd.DataFrame], *, name: str = "ensembles") -> document.Figure:
    """Draw F1 and AUROC of the averaged networks of k runs.

    Args:
        by_size: By group, the columns k, f1_mean, f1_low, f1_high, auroc_mean, auroc_low and
            auroc_high, fractions of 1.
        name: Name of its files.
    """
    figure = blank(2.6)
    panels = figure.subplots(1, 2)
    sizes = np.concatenate([np.zeros(0), *(floats(frame, "k") for frame in by_size.values())])
    for axes, metric, title in zip(panels, ("f1", "auroc"), ("F1", "AUROC"), strict=True):
        drawn: list[FloatArray] = []
        for position, frame in enumerate(by_size.values()):
            k = floats(frame, "k")
            mean, low, high = (
                percents(frame, f"{metric}_{end}") for end in ("mean", "low", "high")
            )
            kind = series(position)
            band(axes, k, low, high, color=kind.color, alpha=0.16 if len(by_size) <= 3 else 0.09)
            axes.plot(k, mean, **kind.line(markevery=_some(mean), markersize=4))
            drawn += [mean, low, high]
        axes.set_title(title)
        axes.set_xlabel("runs averaged")
        axes.set_ylabel(f"{title} in %")
        whole_number_ticks(axes, sizes)
        _scale(axes, drawn)
    legend_below(figure, _entries(by_size))
    alt = [_describe_sizes(group, frame) for group, frame in by_size.items()]
    return finish(
        figure,
        name=name,
        title="F1 and AUROC of averaged runs",
        alt=" ".join(alt) or "There is no run.",
    )


@styled()
def views(by_count: Mapping[str, pd.DataFrame], *, name: str = "views") -> document.Figure:
    """Draw F1 against the number of turned views of a cell that are averaged.

    Args:
        by_count: By group, the columns num_views, mean and std (over runs) of F1, and optionally
            spaced: the mean F1 of equally spaced views, NaN where the number has none. Fractions
            of 1.
        name: Name of its files.
    """
    figure = blank(2.9)
    axes = figure.subplots()
    drawn: list[FloatArray] = []
    numbers = np.concatenate(
        [np.zeros(0), *(floats(frame, "num_views") for frame in by_count.values())]
    )
    alpha = 0.16 if len(by_count) <= 3 else 0.09
    for position, frame in enumerate(by_count.values()):
        number, mean, std = (
            floats(frame, "num_views"),
            percents(frame, "mean"),
            percents(frame, "std"),
        )
        spaced = percents(frame, "spaced")
        kind = series(position)
        band(axes, number, mean - std, mean + std, color=kind.color, alpha=alpha)
        axes.plot(number, mean, **kind.line())
        axes.plot(number, spaced, **kind.hollow(markersize=6.5, zorder=3))
        drawn += [mean, mean - std, mean + std, spaced]
    axes.set_xlabel("views averaged")
    axes.set_ylabel("F1 in %")
    whole_number_ticks(axes, numbers)
    _scale(axes, drawn)
    entries = _entries(by_count)
    if any(np.isfinite(floats(frame, "spaced")).any() for frame in by_count.values()):
        hollow = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "linestyle": "none"}
        entries.append((sign(color=SECONDARY, **hollow), "equally spaced views"))
    legend_below(figure, entries)
    alt = [_describe_counts(group, frame) for group, frame in by_count.items()]
    return finish(
        figure,
        name=name,
        title="F1 by the number of views averaged",
        alt=" ".join(alt) or "There is no run.",
    )


def _some(drawn: FloatArray) -> list[int]:
    """Return which points are marked: few enough to stay apart, and those without a line."""
    there = np.isfinite(drawn)
    points = np.flatnonzero(there)
    if len(points) <= _MOST_MARKS:
        return [int(point) for point in points]
    evenly = points[np.linspace(0, len(points) - 1, _MOST_MARKS).round().astype(int)]
    lines = there[1:] & there[:-1]
    joined = np.concatenate([[False], lines]) | np.concatenate([lines, [False]])
    return sorted({int(point) for point in (*evenly, *np.flatnonzero(there & ~joined))})


def _scale(axes: Axes, drawn: list[FloatArray]) -> None:
    if any(np.isfinite(array).any() for array in drawn):
        axes.set_ylim(limits(drawn))
        ticks_in_percent(axes, "y")
    else:
        not_defined(axes)


def _entries(groups: Mapping[str, pd.DataFrame]) -> list[tuple[Artist, str]]:
    return [
        (sign(**series(k).line()), text) for k, text in enumerate(names(groups, LEGEND_WIDTH, 2))
    ]


def _describe_sizes(group: str, frame: pd.DataFrame) -> str:
    there = frame[frame["f1_mean"].notna()]
    if there.empty:
        return f"{group}: F1 {document.NOT_DEFINED}."
    parts = [
        f"{plural(int(row['k']), 'run')} F1 {percent(row['f1_mean'])}, "
        f"AUROC {percent(row['auroc_mean'])}"
        for _, row in there.iloc[sorted({0, len(there) - 1})].iterrows()
    ]
    return f"{group}: {'; '.join(parts)}."


def _describe_counts(group: str, frame: pd.DataFrame) -> str:
    there = frame[frame["mean"].notna()]
    if there.empty:
        return f"{group}: F1 {document.NOT_DEFINED}."
    parts = [
        f"{plural(int(row['num_views']), 'view')} F1 {spread(row['mean'], row['std'])}"
        for _, row in there.iloc[sorted({0, len(there) - 1})].iterrows()
    ]
    return f"{group}: {', '.join(parts)}."

"""F1 by group of runs: its intervals, its runs one by one, and what the choice of epoch does."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from cnmc.reporting import document
from cnmc.reporting.drawing import (
    GRID,
    INK,
    PUBLISHED,
    SECONDARY,
    FloatArray,
    Style,
    blank,
    finish,
    legend_below,
    limits,
    not_defined,
    percents,
    series,
    sign,
    styled,
    ticks_in_percent,
)
from cnmc.reporting.figures.labels import LEGEND_WIDTH, names, percent, plural, spread
from cnmc.reporting.figures.rows import set_rows, write_columns

_LABEL_WIDTH = 1.8
"""Inches of a group's name beside its row."""


@styled()
def intervals(
    frame: pd.DataFrame, *, level: float | None = None, name: str = "intervals"
) -> document.Figure:
    """Draw the mean F1 of each group with its two intervals.

    Args:
        frame: One row a group and protocol: group, protocol, num_runs, mean, seeds_low, seeds_high
            (what other seeds would give), subjects_low, subjects_high (other seeds and subjects),
            published_mean, published_std; fractions of 1, NaN where there is none.
        level: Of the intervals, a fraction of 1; said in the legend where it is given.
        name: Name of its files.
    """
    shown = names(frame["group"], _LABEL_WIDTH, 3)
    # A group that has several rows is named in the first of them.
    shown = ["" if row and label == shown[row - 1] else label for row, label in enumerate(shown)]
    protocols = list(dict.fromkeys(frame["protocol"].astype(str)))
    kinds = {protocol: series(k) for k, protocol in enumerate(protocols)}
    figure = blank(0.75 + _height_of_rows(shown, 0.36))
    axes = figure.subplots()
    mean, theirs, their_std = (
        percents(frame, key) for key in ("mean", "published_mean", "published_std")
    )
    ends = [
        percents(frame, key) for key in ("seeds_low", "seeds_high", "subjects_low", "subjects_high")
    ]
    place = np.arange(len(frame), dtype=np.float64)
    axes.hlines(place + 0.27, theirs - their_std, theirs + their_std, color=SECONDARY, lw=0.9)
    axes.plot(theirs, place + 0.27, **PUBLISHED.hollow(markersize=4.5))
    for row, protocol in enumerate(frame["protocol"].astype(str)):
        kind = kinds[protocol]
        seeds_low, seeds_high, subjects_low, subjects_high = (end[row] for end in ends)
        axes.hlines(row, subjects_low, subjects_high, color=kind.color, linewidth=1.1)
        axes.hlines(row, seeds_low, seeds_high, color=kind.color, linewidth=4.0, alpha=0.55)
        axes.plot(mean[row], row, **kind.marks(markersize=6))
    _finish_rows(axes, shown, [mean, theirs, theirs - their_std, theirs + their_std, *ends])
    columns = [
        ("runs", [document.count(number) for number in frame["num_runs"]]),
        ("mean F1", [percent(value) for value in mean / 100]),
    ]
    if len(protocols) > 1:
        columns.insert(0, ("protocol", names(frame["protocol"], 0.8)))
    write_columns(axes, columns)

    of_level = "" if level is None else f"{100 * level:g} % "
    entries: list[tuple[Artist, str]] = [
        (sign(**kind.marks(markersize=6)), f"mean, protocol {short}")
        for kind, short in zip(kinds.values(), names(protocols, 1.5), strict=True)
    ]
    for end, line, over in (
        (ends[0], {"linewidth": 4.0, "alpha": 0.55}, "seeds"),
        (ends[2], {"linewidth": 1.1}, "seeds and subjects"),
    ):
        if np.isfinite(end).any():
            entries.append((sign(color=INK, **line), f"{of_level}interval over {over}"))
    if np.isfinite(theirs).any():
        style = PUBLISHED.hollow(markersize=4.5, linestyle="-", linewidth=0.9)
        entries.append((sign(**style), "published mean ± std"))
    legend_below(figure, entries)
    return finish(
        figure,
        name=name,
        title="Mean F1 of each group, with intervals",
        alt=" ".join(_describe_interval(row) for _, row in frame.iterrows()) or "There is no run.",
    )


def _describe_interval(row: pd.Series) -> str:
    def ends(over: str) -> str:
        return document.interval(100 * row[f"{over}_low"], 100 * row[f"{over}_high"])

    theirs = row.get("published_mean", np.nan)
    published = "" if np.isnan(theirs) else f"; published {percent(theirs)}"
    return (
        f"{row['group']}, protocol {row['protocol']}, {plural(int(row['num_runs']), 'run')}: "
        f"mean F1 {percent(row['mean'])}, over seeds {ends('seeds')}, over seeds and subjects "
        f"{ends('subjects')}{published}."
    )


@styled()
def runs_by_group(
    values: Mapping[str, npt.ArrayLike],
    *,
    published: Mapping[str, float] | None = None,
    name: str = "runs",
) -> document.Figure:
    """Draw the F1 of every run, with mean and standard deviation (ddof 0, as in the paper).

    Args:
        values: By group, one F1 a run, fractions of 1; NaN counts for nothing.
        published: By group, the mean F1 that the paper reports.
        name: Name of its files.
    """
    f1 = {group: _finite(100 * np.asarray(array, np.float64)) for group, array in values.items()}
    theirs = {
        group: 100 * mean
        for group, mean in (published or {}).items()
        if group in f1 and np.isfinite(mean)
    }
    shown = names(f1, _LABEL_WIDTH, 3)
    figure = blank(0.75 + _height_of_rows(shown, 0.5))
    axes = figure.subplots()
    alt, columns = [], []
    for row, (group, runs) in enumerate(f1.items()):
        kind = series(row)
        if group in theirs:
            axes.vlines(theirs[group], row - 0.36, row + 0.42, color=SECONDARY, linewidth=1.0)
        mean, std = _moments(runs)
        drawn = row - 0.08 + _side_by_side(runs)
        axes.plot(runs, drawn, **kind.marks(alpha=0.75, markersize=4.2))
        axes.hlines(row + 0.34, mean - std, mean + std, color=INK, linewidth=1.1)
        axes.plot(mean, row + 0.34, **_MEAN)
        columns.append((plural(len(runs), "run"), spread(mean / 100, std / 100)))
        alt.append(f"{group}: {plural(len(runs), 'run')}, F1 {_describe_runs(runs)}.")
    _finish_rows(axes, shown, [*f1.values(), *([mean] for mean in theirs.values())])
    write_columns(
        axes,
        [
            ("runs", [document.count(len(runs)) for runs in f1.values()]),
            ("mean ± std", [text for _, text in columns]),
        ],
    )
    entries: list[tuple[Artist, str]] = [
        (sign(color=SECONDARY, marker="o", linestyle="none", markeredgewidth=0), "one run"),
        (sign(**{**_MEAN, "linestyle": "-", "linewidth": 1.1}), "mean ± std"),
    ]
    if theirs:
        style = {"marker": "|", "markersize": 10, "linestyle": "none", "color": SECONDARY}
        entries.append((sign(**style), "published mean"))
    legend_below(figure, entries)
    return finish(
        figure, name=name, title="F1 of every run", alt=" ".join(alt) or "There is no run."
    )


_MEAN: Style = {"color": INK, "marker": "|", "markersize": 8, "markeredgewidth": 1.8}


def _finite(array: FloatArray) -> FloatArray:
    return np.ravel(array)[np.isfinite(np.ravel(array))]


def _moments(runs: FloatArray) -> tuple[float, float]:
    """Return mean and standard deviation; a single run has none, rather than one of 0."""
    mean = float(runs.mean()) if len(runs) else float("nan")
    return mean, float(runs.std()) if len(runs) > 1 else float("nan")


def _describe_runs(runs: FloatArray) -> str:
    if not len(runs):
        return document.NOT_DEFINED
    low, high = (percent(end / 100) for end in (runs.min(), runs.max()))
    mean, std = _moments(runs)
    return spread(mean / 100, std / 100) + (f", from {low} to {high}" if len(runs) > 1 else "")


def _side_by_side(runs: FloatArray) -> FloatArray:
    """Return how far each mark is moved aside so that equal runs stay apart."""
    aside = np.zeros(len(runs))
    if len(runs) < 2 or np.ptp(runs) == 0:
        near = np.zeros(len(runs))
    else:
        near = np.floor((runs - runs.min()) / np.ptp(runs) * 30)
    for value in np.unique(near):
        where = np.flatnonzero(near == value)
        steps = (np.arange(len(where)) + 1) // 2 * np.where(np.arange(len(where)) % 2, -1, 1)
        aside[where] = steps * min(0.11, 0.5 / max(len(where), 1))
    return aside


@styled()
def selection(
    frame: pd.DataFrame, *, level: float | None = None, name: str = "selection"
) -> document.Figure:
    """Draw the mean F1 by the way in which the epoch is chosen.

    Args:
        frame: One row a scheme and group: scheme, group, mean, and low and high of its interval,
            fractions of 1.
        level: Of the intervals, a fraction of 1; said in the legend where it is given.
        name: Name of its files.
    """
    schemes = list(dict.fromkeys(frame["scheme"].astype(str)))
    groups = list(dict.fromkeys(frame["group"].astype(str)))
    shown = names(schemes, _LABEL_WIDTH, 3)
    height = max(0.36, 0.13 * (len(groups) + 1))
    figure = blank(0.75 + _height_of_rows(shown, height))
    axes = figure.subplots()
    mean, low, high = (percents(frame, key) for key in ("mean", "low", "high"))
    step = 0.7 / max(len(groups), 1)
    for k, (scheme, group) in enumerate(
        zip(frame["scheme"].astype(str), frame["group"].astype(str), strict=True)
    ):
        position = groups.index(group)
        kind = series(position)
        place = schemes.index(scheme) + (position - (len(groups) - 1) / 2) * step
        axes.hlines(place, low[k], high[k], color=kind.color, linewidth=1.3)
        axes.plot(mean[k], place, **kind.marks(markersize=5.5))
    # Lines between the schemes, since the marks of a scheme stand beside its row.
    for border in range(1, len(schemes)):
        axes.axhline(border - 0.5, color=GRID, linewidth=0.7, zorder=0.5)
    _finish_rows(axes, shown, [mean, low, high])
    axes.grid(visible=False, axis="y")
    axes.set_ylim(max(len(schemes), 1) - 0.5, -0.5)
    entries: list[tuple[Artist, str]] = [
        (sign(**series(k).marks(markersize=5.5)), text)
        for k, text in enumerate(names(groups, LEGEND_WIDTH, 2))
    ]
    if np.isfinite(low).any():
        of_level = "" if level is None else f"{100 * level:g} % "
        entries.append((sign(color=SECONDARY, linewidth=1.3), f"{of_level}interval"))
    legend_below(figure, entries)
    alt = [
        f"{row['scheme']}, {row['group']}: F1 {percent(row['mean'])} "
        f"({document.interval(100 * row['low'], 100 * row['high'])})."
        for _, row in frame.iterrows()
    ]
    return finish(
        figure,
        name=name,
        title="Mean F1 by how the epoch is chosen",
        alt=" ".join(alt) or "There is no run.",
    )


def _height_of_rows(labels: list[str], least: float) -> float:
    """Return the inches that rows of at least so many inches take with these labels."""
    # A row without a label leaves its room to the one above it.
    starts = [*(row for row, label in enumerate(labels) if label), len(labels)]
    needed = (
        (0.155 * (labels[row].count("\n") + 1) + 0.08) / (following - row)
        for row, following in itertools.pairwise(starts)
    )
    return max(len(labels), 2) * max(least, *needed, 0.0)


def _finish_rows(axes: Axes, labels: list[str], drawn: list[npt.ArrayLike]) -> None:
    axes.set_xlabel("F1 in %")
    if not any(np.isfinite(np.asarray(array, np.float64)).any() for array in drawn):
        not_defined(axes)
    else:
        axes.set_xlim(limits(drawn))
        ticks_in_percent(axes, "x")
    set_rows(axes, labels)

"""How well cells and persons are told apart: ROC curves, and the judgement of each person."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cnmc.reporting import document
from cnmc.reporting.drawing import (
    ALL_CELLS,
    HEM_CELLS,
    INK,
    PUBLISHED,
    SECONDARY,
    WHOLE_MARKS,
    Series,
    Style,
    band,
    blank,
    finish,
    floats,
    legend_below,
    make_square,
    not_defined,
    percents,
    series,
    sign,
    styled,
)
from cnmc.reporting.figures.labels import LEGEND_WIDTH, names, percent, plural
from cnmc.reporting.figures.rows import set_rows, write_columns

_DIAGONAL: Style = {"color": SECONDARY, "linewidth": 0.9, "linestyle": (0, (1, 2))}
_LINE: Style = {"color": INK, "linewidth": 0.8, "linestyle": (0, (1, 2))}


@styled()
def roc(
    curves: Mapping[str, pd.DataFrame],
    points: Mapping[str, pd.DataFrame],
    *,
    published: tuple[float, float] | None = None,
    name: str = "roc",
) -> document.Figure:
    """Draw the ROC curve of each group, whole and enlarged where its runs operate.

    Args:
        curves: By group, the columns fpr, tpr_mean, tpr_low and tpr_high (over runs, on a common
            grid), fractions of 1.
        points: By group, the columns fpr and tpr: one row a run, judged at logit 0.
        published: False and true positive rate of the paper.
        name: Name of its files.
    """
    groups = list(dict.fromkeys([*curves, *points]))
    side = _side_of_interest(points, published)
    figure = blank(3.15)
    whole, enlarged = figure.subplots(1, 2)
    empty = True
    for axes in (whole, enlarged):
        axes.plot([0, 100], [0, 100], **_DIAGONAL)
        for position, group in enumerate(groups):
            kind = series(position)
            if group in curves:
                empty &= not _draw_curve(axes, curves[group], kind, len(groups))
        # Above the curves of all groups.
        for position, group in enumerate(groups):
            if group in points:
                kind = series(position)
                empty &= not _draw_points(axes, points[group], kind, enlarged=axes is enlarged)
        if published is not None and np.isfinite(published).all():
            fpr, tpr = published
            size = 5.5 if axes is enlarged else 4.0
            axes.plot(100 * fpr, 100 * tpr, **PUBLISHED.hollow(markersize=size, zorder=6))
            empty = False
        axes.set_xlabel("false positive rate in %")
    whole.set_ylabel("sensitivity in %")
    _set_square(whole, 100.0)
    _set_square(enlarged, side)
    whole.set_title("Whole curve")
    enlarged.set_title("Around the operating points")
    if empty:
        not_defined(whole)
        not_defined(enlarged)
    elif side < 100:
        frame: Style = {"facecolor": "none", "edgecolor": SECONDARY, "linewidth": 0.7}
        whole.add_patch(Rectangle((0, 100 - side), side, side, **frame))

    entries: list[tuple[Artist, str]] = [
        (sign(color=kind.color, linestyle=kind.dashes, marker=kind.marker, mec=kind.color), text)
        for kind, text in (
            (series(position), text) for position, text in enumerate(names(groups, LEGEND_WIDTH, 2))
        )
    ]
    grey = Series(SECONDARY, "o")
    if points:
        entries.append((sign(**grey.marks(markersize=3.5, alpha=0.6)), "one run at logit 0"))
        entries.append((sign(**grey.marks(markersize=8)), "mean of the runs"))
    if published is not None:
        entries.append((sign(**PUBLISHED.hollow(markersize=5.5)), "published"))
    legend_below(figure, entries)
    make_square(figure, whole)
    alt = [_describe_point(group, points.get(group)) for group in groups]
    if published is not None:
        alt.append(f"Published: {_rates(*published)}.")
    return finish(figure, name=name, title="ROC curves", alt=" ".join(alt) or "There is no run.")


def _draw_curve(axes: Axes, frame: pd.DataFrame, kind: Series, num_groups: int) -> bool:
    """Draw a curve with its spread, or the steps of a single one; tell whether there is any."""
    fpr = percents(frame, "fpr")
    style: Style = {"color": kind.color, "linestyle": kind.dashes, "linewidth": 1.3}
    if "tpr_mean" in frame:
        tpr = percents(frame, "tpr_mean")
        low, high = percents(frame, "tpr_low"), percents(frame, "tpr_high")
        band(axes, fpr, low, high, color=kind.color, alpha=0.18 if num_groups <= 3 else 0.09)
        axes.plot(fpr, tpr, **style)
    else:
        tpr = percents(frame, "tpr")
        axes.plot(fpr, tpr, drawstyle="steps-post", **style)
    return bool((np.isfinite(fpr) & np.isfinite(tpr)).any())


def _draw_points(axes: Axes, frame: pd.DataFrame, kind: Series, *, enlarged: bool) -> bool:
    fpr, tpr = percents(frame, "fpr"), percents(frame, "tpr")
    there = np.isfinite(fpr) & np.isfinite(tpr)
    if not there.any():
        return False
    if enlarged:
        axes.plot(fpr, tpr, **kind.marks(markersize=3.5, alpha=0.6, markeredgewidth=0, zorder=4))
    size = 8.0 if enlarged else 4.5
    axes.plot(fpr[there].mean(), tpr[there].mean(), **kind.marks(markersize=size, zorder=5))
    return True


def _side_of_interest(
    points: Mapping[str, pd.DataFrame], published: tuple[float, float] | None
) -> float:
    """Return the side, in %, of the upper left square that holds every operating point."""
    pairs = [(floats(frame, "fpr"), floats(frame, "tpr")) for frame in points.values()]
    away = [np.concatenate([fpr, 1 - tpr]) for fpr, tpr in pairs]
    if published is not None:
        away.append(np.asarray([published[0], 1 - published[1]]))
    found = np.concatenate([np.zeros(0), *away])
    found = found[np.isfinite(found)]
    if not len(found):
        return 40.0
    return float(np.clip(10 * math.ceil(10 * found.max() + 0.3), 10, 100))


def _set_square(axes: Axes, side: float) -> None:
    room = 0.025 * side
    step = {10: 2, 20: 5, 100: 25}.get(round(side), 10 if side <= 60 else 20)
    ticks = np.arange(0, side + 1, step)
    axes.set_xlim(-room, side + room)
    axes.set_ylim(100 - side - room, 100 + room)
    axes.set_xticks(ticks)
    axes.set_yticks(100 - ticks)


def _rates(fpr: float, tpr: float) -> str:
    return f"sensitivity {percent(tpr)}, specificity {percent(1 - fpr)}"


def _describe_point(group: str, points: pd.DataFrame | None) -> str:
    rows = None if points is None else points[points["fpr"].notna() & points["tpr"].notna()]
    if rows is None or rows.empty:
        return f"{group}: operating point {document.NOT_DEFINED}."
    rates = _rates(float(rows["fpr"].mean()), float(rows["tpr"].mean()))
    return f"{group} at logit 0, mean of {plural(len(rows), 'run')}: {rates}."


@styled()
def persons(frame: pd.DataFrame, roc: pd.DataFrame, *, name: str = "persons") -> document.Figure:
    """Draw each person's mean probability of ALL, and how well it tells the persons apart.

    Args:
        frame: One row a person: subject, label (1 ALL, 0 HEM), num_cells, mean_probability over the
            person's cells and std_probability over runs, wrong_share (of the runs, those that put
            the person on the wrong side of 0.5). Fractions of 1, NaN where not defined.
        roc: Columns fpr, tpr_mean, tpr_low and tpr_high over runs, or fpr and tpr of a single
            curve; fractions of 1.
        name: Name of its files.
    """
    rows = frame.sort_values("mean_probability", ascending=False, kind="stable")
    figure = blank(0.85 + max((0.165 if len(rows) <= 40 else 0.145) * len(rows), 2.1))
    left, right = figure.subplots(1, 2, width_ratios=[1.4, 1])
    left.set_title("Mean probability of ALL")
    _draw_persons(left, rows)
    right.set_title("Persons told apart")
    right.plot([0, 100], [0, 100], **_DIAGONAL)
    right.set_box_aspect(1)
    right.set_anchor("N")
    _set_square(right, 100.0)
    right.set_xlabel("false positive rate in %")
    right.set_ylabel("sensitivity in %")
    if not _draw_curve(right, roc, Series(INK, "o"), 1):
        not_defined(right)
    entries: list[tuple[Artist, str]] = [
        (sign(**kind.marks()), f"{title} (mean over runs)")
        for title, kind in (("ALL", ALL_CELLS), ("HEM", HEM_CELLS))
    ]
    if np.isfinite(floats(frame, "std_probability")).any():
        entries.append((sign(color=SECONDARY, linewidth=1.2), "± std over runs"))
    legend_below(figure, entries)
    return finish(
        figure,
        name=name,
        title="Judging persons by the mean over their cells",
        alt=_describe_persons(rows),
        note="Wrong: share of the runs that put the person on the wrong side of 50 %.",
    )


def _draw_persons(axes: Axes, rows: pd.DataFrame) -> None:
    mean, std = percents(rows, "mean_probability"), percents(rows, "std_probability")
    labels = floats(rows, "label")
    place = np.arange(len(rows), dtype=np.float64)
    axes.axvline(50, zorder=1, **_LINE)
    for label, kind in ((1, ALL_CELLS), (0, HEM_CELLS)):
        mine = labels == label
        low, high = np.clip(mean - std, 0, 100)[mine], np.clip(mean + std, 0, 100)[mine]
        axes.hlines(place[mine], low, high, color=kind.color, linewidth=1.2, alpha=0.7)
        axes.plot(mean[mine], place[mine], **kind.marks(**WHOLE_MARKS, zorder=3))
    axes.set_xlim(-3, 103)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.set_xlabel("mean over cells in %")
    if not np.isfinite(mean).any():
        not_defined(axes)
    set_rows(axes, names(rows["subject"], 0.95))
    cells = [document.count(number) for number in rows["num_cells"]]
    wrong = [document.number(100 * share, 0) for share in floats(rows, "wrong_share")]
    write_columns(axes, [("cells", cells), ("wrong in %", wrong)])


def _describe_persons(rows: pd.DataFrame) -> str:
    known = rows[rows["mean_probability"].notna()]
    if known.empty:
        return f"Mean probability of ALL of the persons: {document.NOT_DEFINED}."
    judged_all = known["mean_probability"] > 0.5
    wrong = known[judged_all != (known["label"] == 1)]
    text = f"{len(known) - len(wrong)} of {plural(len(known), 'person')} on the right side of 50 %."
    named = [
        f"{row['subject']} ({'ALL' if row['label'] == 1 else 'HEM'}, "
        f"{percent(row['mean_probability'], 1)})"
        for _, row in wrong.head(6).iterrows()
    ]
    more = f" and {len(wrong) - len(named)} more" if len(wrong) > len(named) else ""
    return f"{text} Wrong: {', '.join(named)}{more}." if named else text

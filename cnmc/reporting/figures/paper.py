"""The paper's figures 2 to 4, drawn from the runs that are reported."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from cnmc.reporting import document
from cnmc.reporting.drawing import (
    ALL_CELLS,
    BLUE,
    HEM_CELLS,
    INK,
    PUBLISHED,
    SECONDARY,
    VERMILLION,
    WHOLE_MARKS,
    FloatArray,
    Series,
    Style,
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
from cnmc.reporting.figures.rows import set_rows, write_columns

METRICS = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
}
"""The panels of figure 4, in the paper's order."""

_TRAINING = Series(BLUE, "o")
_VALIDATION = Series(VERMILLION, "s", (0, (5, 1.5)))


@styled()
def figure2(
    curve: pd.DataFrame,
    *,
    label: str,
    published: pd.DataFrame | None = None,
    best_epoch: int | None = None,
    name: str = "figure2",
) -> document.Figure:
    """Draw the losses and the F1 of one run by epoch (figure 2 of the paper).

    Args:
        curve: Columns epoch (0 is the network before training), train_loss, val_loss and val_f1, a
            fraction of 1.
        label: What the run is called.
        published: Columns epoch and f1 of the run that the paper reports.
        best_epoch: The epoch that was kept; by default the first with the highest F1, as in
            training, where epoch 0 is no candidate.
        name: Name of its files.
    """
    epochs, f1 = floats(curve, "epoch"), floats(curve, "val_f1")
    losses = [(floats(curve, "train_loss"), _TRAINING), (floats(curve, "val_loss"), _VALIDATION)]
    best = _best_epoch(epochs, f1) if best_epoch is None else best_epoch
    best_f1 = _at(epochs, f1, best)

    figure = blank(2.55)
    left, right = figure.subplots(1, 2)
    entries: list[tuple[Artist, str]] = []
    for (loss, kind), text in zip(losses, ("training", "validation"), strict=True):
        if np.isfinite(loss).any():
            left.plot(epochs, loss, **kind.line())
        entries.append((sign(**kind.line()), text))
    drawn = [100 * f1]
    if published is not None and np.isfinite(floats(published, "f1")).any():
        theirs = percents(published, "f1")
        style = PUBLISHED.line(linewidth=0.9, markersize=3)
        right.plot(floats(published, "epoch"), theirs, **style)
        entries.append((sign(**style), "published run"))
        drawn.append(theirs)
    right.plot(epochs, 100 * f1, **_VALIDATION.line())
    if best is not None:
        line = {"color": INK, "linewidth": 0.8, "linestyle": (0, (1, 2))}
        for axes in (left, right):
            axes.axvline(best, zorder=1, **line)
        if not np.isnan(best_f1):
            ring = {"marker": "o", "markersize": 9, "mfc": "none", "mew": 0.9}
            right.plot(best, 100 * best_f1, color=INK, **ring)
        entries.append((sign(**line), f"best epoch ({best})"))

    reached = "" if best is None else f", {percent(best_f1)} at epoch {best}"
    for axes, title, unit in (
        (left, "Loss", "weighted cross-entropy"),
        (right, f"F1{reached}", "F1 in %"),
    ):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        shown = [epochs] if published is None else [epochs, floats(published, "epoch")]
        whole_number_ticks(axes, np.concatenate(shown))
    if np.isnan(np.concatenate([loss for loss, _ in losses])).all():
        not_defined(left)
    else:
        left.set_ylim(bottom=0.0)
    if np.isnan(np.concatenate(drawn)).all():
        not_defined(right)
    else:
        right.set_ylim(limits(drawn))
        ticks_in_percent(right, "y")
    legend_below(figure, entries)

    alt = f"F1 of {label} on the validation cells is not defined."
    if best is not None:
        first = int(np.nanmin(epochs))
        start = f"from {percent(_at(epochs, f1, first))} at epoch {first} "
        alt = (
            f"F1 of {label} on the validation cells goes {start if first != best else ''}to "
            f"{percent(best_f1)} at epoch {best}, its best. {_losses(epochs, losses)}"
        )
    return finish(
        figure,
        name=name,
        title=f"Figure 2: losses and F1 by epoch of the best run, {label}",
        alt=alt.strip(),
    )


def _best_epoch(epochs: FloatArray, f1: FloatArray) -> int | None:
    candidates = np.where(epochs > 0, f1, np.nan)
    if not np.isfinite(candidates).any():
        return None
    return int(epochs[int(np.nanargmax(candidates))])


def _at(epochs: FloatArray, drawn: FloatArray, epoch: int | None) -> float:
    found = drawn[epochs == epoch]
    return float(found[0]) if len(found) else float("nan")


def _losses(epochs: FloatArray, losses: list[tuple[FloatArray, Series]]) -> str:
    parts = []
    for (loss, _), kind in zip(losses, ("training", "validation"), strict=True):
        there = np.isfinite(loss)
        if there.any():
            start, end = loss[there][0], loss[there][-1]
            ends = f"epoch {epochs[there][0]:.0f} to {epochs[there][-1]:.0f}"
            parts.append(f"the {kind} loss from {start:.3f} to {end:.3f} ({ends})")
    return f"From first to last epoch go {' and '.join(parts)}." if parts else ""


@styled()
def figure3(
    subjects: pd.DataFrame, *, published: bool = False, name: str = "figure3"
) -> document.Figure:
    """Draw the accuracy on each subject's cells (figure 3 of the paper).

    Args:
        subjects: One row a subject, in the order in which they are drawn: subject, label (1 ALL,
            0 HEM), num_cells, best and last (accuracy of the two checkpoints, fractions of 1; NaN
            where there is none), published (optional).
        published: Draw also what the paper reports.
        name: Name of its files.
    """
    blocks = [
        (title, kind, subjects[subjects["label"] == value])
        for title, kind, value in (("ALL", ALL_CELLS, 1), ("HEM", HEM_CELLS, 0))
    ]
    blocks = [block for block in blocks if len(block[2])]
    num_rows = max((len(rows) for _, _, rows in blocks), default=4)
    figure = blank(0.85 + 0.172 * max(num_rows, 4))
    panels = figure.subplots(1, max(len(blocks), 1), squeeze=False)[0]
    if not blocks:
        not_defined(panels[0])
    for axes, (title, kind, rows) in zip(panels, blocks, strict=False):
        axes.set_title(f"{title}, {plural(len(rows), 'subject')}")
        _draw_subjects(axes, rows, kind, published)
        axes.set_xlim(-3, 103)
        axes.set_xticks([0, 25, 50, 75, 100])
        if not np.isfinite([percents(rows, "best"), percents(rows, "last")]).any():
            not_defined(axes)
        set_rows(axes, names(rows["subject"], 0.95), num_rows=max(num_rows, 4))
        write_columns(axes, [("cells", [document.count(number) for number in rows["num_cells"]])])
        axes.set_xlabel("cell accuracy in %")

    entries: list[tuple[Artist, str]] = [
        (sign(**kind.marks()), f"{title}, best epoch") for title, kind, _ in blocks
    ]
    if np.isfinite(floats(subjects, "last")).any():
        entries += [(sign(**_last(kind)), f"{title}, last epoch") for title, kind, _ in blocks]
    if published and np.isfinite(floats(subjects, "published")).any():
        entries.append((sign(**_TICK), "published"))
    legend_below(figure, entries)
    alt = " ".join(_describe_subjects(title, rows) for title, _, rows in blocks)
    return finish(
        figure,
        name=name,
        title="Figure 3: cell accuracy by subject of the best run",
        alt=alt or "There is no subject.",
    )


_TICK: Style = {
    "color": SECONDARY,
    "marker": "|",
    "markersize": 8.5,
    "markeredgewidth": 1.2,
    "linestyle": "none",
}


def _last(kind: Series) -> Style:
    # Larger than the filled mark, so that it shows as a ring where both are equal.
    return kind.hollow(markersize=6.2, markeredgewidth=0.8, linestyle=(0, (1, 1.4)), linewidth=1.1)


def _draw_subjects(axes: Axes, rows: pd.DataFrame, kind: Series, published: bool) -> None:
    places = np.arange(len(rows), dtype=np.float64)
    best, last = percents(rows, "best"), percents(rows, "last")
    marks: Style = {**WHOLE_MARKS, "linestyle": "none"}
    both = np.isfinite(best) & np.isfinite(last)
    axes.hlines(places[both], best[both], last[both], color=kind.color, linestyle=(0, (1, 1.4)))
    if published:
        axes.plot(percents(rows, "published"), places, **{**_TICK, **marks}, zorder=4)
    axes.plot(last, places, **{**_last(kind), **marks}, zorder=3)
    axes.plot(best, places, **kind.marks(**marks), zorder=5)


def _describe_subjects(title: str, rows: pd.DataFrame) -> str:
    best = floats(rows, "best")
    start = f"{title}, {plural(len(rows), 'subject')}:"
    if not np.isfinite(best).any():
        return f"{start} accuracy {document.NOT_DEFINED}."
    lowest = rows["subject"].iloc[int(np.nanargmin(best))]
    low, high = (percent(float(end), 1) for end in (np.nanmin(best), np.nanmax(best)))
    return f"{start} accuracy of the best epoch from {low} (subject {lowest}) to {high}."


@styled()
def figure4(by_epoch: Mapping[str, pd.DataFrame], *, name: str = "figure4") -> document.Figure:
    """Draw six metrics by epoch and group (figure 4 of the paper).

    Lines are means over runs, the shaded area is one standard deviation. As in the paper epochs
    count from 1, after the first training epoch; epoch 0 is drawn only where it is all there is.

    Args:
        by_epoch: By group, the columns epoch, metric (of :data:`METRICS`), mean and std, both
            fractions of 1.
        name: Name of its files.
    """
    figure = blank(3.7)
    panels = figure.subplots(2, 3)
    frames = {group: _trained(frame) for group, frame in by_epoch.items()}
    epochs = np.concatenate([np.zeros(0), *(floats(frame, "epoch") for frame in frames.values())])
    alpha = 0.16 if len(frames) <= 3 else 0.09
    for axes, (metric, title) in zip(panels.flat, METRICS.items(), strict=True):
        drawn: list[FloatArray] = []
        for position, frame in enumerate(frames.values()):
            rows = frame[frame["metric"] == metric].sort_values("epoch")
            x, mean, std = floats(rows, "epoch"), percents(rows, "mean"), percents(rows, "std")
            kind = series(position)
            band(axes, x, mean - std, mean + std, color=kind.color, alpha=alpha)
            axes.plot(x, mean, **kind.line(linewidth=1.3, markersize=4))
            drawn += [mean, mean - std, mean + std]
        axes.set_title(title)
        whole_number_ticks(axes, epochs)
        if any(np.isfinite(array).any() for array in drawn):
            axes.set_ylim(limits(drawn))
            ticks_in_percent(axes, "y", 5)
        else:
            not_defined(axes)
    for axes in panels[1]:
        axes.set_xlabel("epoch")
    for axes in panels[:, 0]:
        axes.set_ylabel("mean in %")
    shown = names(frames, LEGEND_WIDTH, 2)
    legend_below(figure, [(sign(**series(k).line()), text) for k, text in enumerate(shown)])
    described = [_describe_last_epoch(group, frame) for group, frame in frames.items()]
    return finish(
        figure,
        name=name,
        title="Figure 4: metrics after each epoch",
        alt=" ".join(described) or "There is no run.",
        note="Lines are means over runs, the shaded area is one standard deviation.",
    )


def _trained(frame: pd.DataFrame) -> pd.DataFrame:
    trained = frame[frame["epoch"] > 0]
    return trained if len(trained) else frame


def _describe_last_epoch(group: str, frame: pd.DataFrame) -> str:
    rows = frame[frame["mean"].notna()]
    if rows.empty:
        return f"{group}: {document.NOT_DEFINED}."
    last = rows["epoch"].max()
    parts = []
    for metric, title in METRICS.items():
        found = rows[(rows["epoch"] == last) & (rows["metric"] == metric)]
        if len(found):
            text = spread(float(found["mean"].iloc[0]), float(found["std"].iloc[0]))
            parts.append(f"{title if metric == 'f1' else title.lower()} {text}")
    return f"{group} after epoch {last:.0f}: {', '.join(parts)}."

"""The paper's Table 2, Figures 2 to 4 and tests, recomputed from run folders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnmc.analysis.metrics import METRICS, decision_metrics
from cnmc.analysis.published import VALUES, published
from cnmc.analysis.statistics import SIGNIFICANCE
from cnmc.analysis.subjects import best_and_last
from cnmc.reporting import document, plots
from cnmc.reporting.document import GROUP, Cell, Figure, Item, Row, Table, interval, spread
from cnmc.reporting.findings import CLASSES, TITLES, Findings, best_run, in_percent, moments
from cnmc.runs.folder import F1

_LARGEST_NUMBER = 10_000


def table2(findings: Findings) -> Table:
    """Return min, mean, standard deviation and max of each metric beside the published ones."""
    rows = []
    for group in findings.study.groups:
        table = findings.runs[findings.runs["group"] == group.label]
        headline = table[table["view"] == table["view"].iloc[0]]
        for metric in METRICS:
            values = 100 * headline[metric].to_numpy(dtype=float)
            here = (values.min(), values.mean(), values.std(), values.max())
            paper = published(group.experiment, group.protocol, metric)
            names = ("min", "mean", "std", "max")
            row: dict[str, Any] = {"experiment": group.label, "protocol": group.protocol}
            row |= {"metric": metric, "n": len(values), **dict(zip(names, here, strict=True))}
            rows.append(row | {f"published_{n}": paper.get(n, np.nan) for n in names})

    def of_paper(row: Row) -> str:
        if np.isnan(row["published_mean"]):
            return ""
        extremes = " ({published_min:.2f} to {published_max:.2f})"
        template = spread("published_") + ("" if np.isnan(row["published_min"]) else extremes)
        return template.format_map(row)

    return Table(
        "table2",
        "Table 2: the best epoch of each run",
        pd.DataFrame(rows),
        GROUP
        | {
            "metric": document.named("metric", TITLES),
            "n": "n",
            "min": "min",
            "mean ± std": spread(),
        }
        | {"max": "max", "published": of_paper},
        "In %. F1, precision and recall are weighted by the number of cells of each class; ALL is "
        "the positive class. Standard deviation with ddof 0. Published: mean ± std (min to max) of "
        f"{VALUES['num_seeds']} runs on the preliminary test set, protocol paper (Prellberg & "
        "Kramer 2019, Table 2 and section 4.4).",
    )


@plots.styled()
def figure2(findings: Findings) -> Figure:
    """Draw the losses and the F1 of the best run by epoch."""
    group = findings.study.reference
    run = best_run(group)
    curve = run.metrics.reindex(columns=["epoch", "train/loss", "val/loss", F1])
    drawing, (left, right) = plots.panels(2.4, columns=2)
    for position, (key, label) in enumerate((("train", "training"), ("val", "validation"))):
        left.plot(curve["epoch"], curve[f"{key}/loss"], label=label, **plots.marks(position))
    left.set(title="Loss", ylabel="weighted cross-entropy")
    style: plots.Style = {"color": plots.GREY, "linewidth": 0.9, "marker": "D", "markersize": 3}
    right.plot(100 * np.array(VALUES["curve_f1"]), label="published run", **style)
    right.plot(curve["epoch"], 100 * curve[F1], **plots.marks(1))
    reached = 100 * curve.loc[curve["epoch"] == run.best_epoch, F1].max()
    right.set(title=f"F1: {reached:.2f} % at epoch {run.best_epoch}", ylabel="F1 in %")
    for axes in (left, right):
        axes.axvline(run.best_epoch, label=f"best epoch ({run.best_epoch})", **plots.LINE)
        plots.count_along(axes, "epoch")
    return plots.finish(
        drawing,
        "figure2",
        f"Figure 2: losses and F1 by epoch of the best run, {group.label}, {run.info.name}",
        "Two line charts of the best run by epoch: its losses, and its F1 beside the published "
        "run.",
    )


@plots.styled()
def figure3(findings: Findings) -> list[Item]:
    """Draw the accuracy of the best run on the cells of each subject."""
    group = findings.study.reference
    best = best_run(group)
    subjects = best_and_last(group, group.runs.index(best))
    is_prelim = set(subjects["subject"]) <= set(VALUES["subject_accuracy"])
    if is_prelim and not findings.is_generated:
        subjects["published"] = subjects["subject"].map(VALUES["subject_accuracy"])
    subjects = in_percent(subjects, "best", "last", "published")
    classes = [label for label in (1, 0) if label in set(subjects["label"])]
    height = 0.7 + 0.19 * subjects["label"].value_counts().max()
    drawing, panels = plots.panels(height, columns=len(classes))
    for axes, label in zip(panels, classes, strict=True):
        _draw_subjects(axes, subjects[subjects["label"] == label], label)
    title = "Figure 3: cell accuracy by subject of the best run"
    alt = "Dot plots of the cell accuracy of each subject at the best and at the last epoch."
    columns: dict[str, Cell] = {
        "subject": "subject",
        "class": document.named("label", CLASSES),
        "cells": "num_cells",
    }
    columns |= {"best epoch": "best", "last epoch": "last"}
    if "published" in subjects:
        columns["published, last epoch"] = "published"
    note = f"In %. The best run is `{best.info.label}`, protocol {group.protocol}."
    return [
        plots.finish(drawing, "figure3", title, alt),
        Table("figure3", f"{title}, in numbers", subjects, columns, note, folded=True),
    ]


def _draw_subjects(axes: Axes, rows: pd.DataFrame, label: int) -> None:
    name, style, places = CLASSES[label], plots.CLASS_MARKS[label], range(len(rows))
    axes.hlines(places, rows["best"], rows["last"], color=style["color"], linestyle=":")
    ring = plots.hollow(style, markersize=7)
    axes.plot(rows["last"], places, label=f"{name}, last epoch", **ring)
    axes.plot(rows["best"], places, linestyle="", label=f"{name}, best epoch", **style)
    if "published" in rows:
        tick: plots.Style = {
            "marker": "|",
            "markersize": 8,
            "markeredgecolor": plots.GREY,
            "linestyle": "",
        }
        axes.plot(rows["published"], places, label="published", **tick)
    axes.set(title=f"{name}, {len(rows)} subjects", xlabel="cell accuracy in %", xlim=(-3, 103))
    plots.label_rows(axes, rows["subject"], [f"{cells:,} cells" for cells in rows["num_cells"]])


@plots.styled()
def figure4(findings: Findings) -> list[Item]:
    """Draw each metric by epoch and experiment."""
    rows, once = [], []
    for group in findings.study.groups:
        epochs, logits = group.by_epoch()
        scores = decision_metrics(group.labels, logits)
        if len(epochs) == 1:
            once.append(group.label)
            continue
        for position, epoch in enumerate(epochs):
            row = {"experiment": group.label, "protocol": group.protocol, "epoch": int(epoch)}
            for metric, by_epoch in scores.items():
                row |= moments(f"{metric}_", by_epoch[position])
            rows.append(row)
    words: list[Item] = []
    if once:
        words.append(
            f"Not in Figure 4: {', '.join(once)}. Only the chosen checkpoint of these runs was "
            "evaluated on the reported cells."
        )
    if not rows:
        return words
    frame = pd.DataFrame(rows)
    metrics = [metric for metric in METRICS if f"{metric}_mean" in frame]
    table = Table(
        "figure4",
        "Figure 4: metrics after each epoch, in numbers",
        frame,
        GROUP | {"epoch": "epoch"} | {TITLES[name]: spread(f"{name}_") for name in metrics},
        "In %: mean ± std (ddof 0) over runs. Epoch 0 is the untrained network.",
        folded=True,
    )
    return [_draw_by_epoch(frame, metrics), table, *words]


def _draw_by_epoch(frame: pd.DataFrame, metrics: list[str]) -> Figure:
    num_rows = -(-len(metrics) // 3)
    drawing, panels = plots.panels(1.7 * num_rows, rows=num_rows, columns=3)
    for axes, metric in zip(panels, metrics, strict=False):
        for style, rows in plots.by_experiment(frame):
            trained = rows[rows["epoch"] > 0] if (rows["epoch"] > 0).any() else rows
            mean, std = trained[f"{metric}_mean"], trained[f"{metric}_std"]
            plots.band(axes, trained["epoch"], (mean - std, mean + std), style["color"])
            axes.plot(trained["epoch"], mean, **style)
        title = TITLES[metric]
        axes.set(title=title[0].upper() + title[1:], ylabel="mean in %")
        plots.count_along(axes, "epoch")
    return plots.finish(
        drawing,
        "figure4",
        "Figure 4: metrics after each epoch",
        "One line chart for each metric by epoch, one line for each experiment.",
        "Lines are means over runs; the shaded area is one standard deviation.",
    )


def comparisons(findings: Findings) -> list[Item]:
    """Return every comparison with its tests, intervals and effect size."""
    found, refused = findings.compared
    items: list[Item] = [_comparison_table(found)] if len(found) else []
    if not items:
        items.append("Nothing to compare: there is one group of runs, without rotations.")
    items += [f"Refused: {line}." for line in refused]
    return items + [
        f"{row['first']} against {row['second']}: with {row['num_first']} and {row['num_second']} "
        f"runs no result can be significant at p = {SIGNIFICANCE}."
        for row in found.to_dict("records")
        if not row["can_tell"]
    ]


def _comparison_table(found: pd.DataFrame) -> Table:
    def needed(row: Row) -> str:
        if row["p_holm"] <= SIGNIFICANCE:
            return "significant"
        wanted = row["num_needed"]
        return (
            f"> {_LARGEST_NUMBER:,}" if wanted > _LARGEST_NUMBER else document.shown(wanted, ",.0f")
        )

    names = "first second protocol test num_first num_second mean_first mean_second difference "
    names += "seeds_low seeds_high subjects_low subjects_high superiority superiority_low "
    names += "superiority_high p_one_sided p_two_sided p_holm published_p num_needed"
    scaled = names.split()[6:13]
    published_p = found["experiment"].map(VALUES["p_values"]).fillna("")
    return Table(
        "comparisons",
        "Comparisons of F1",
        in_percent(found.assign(published_p=published_p), *scaled)[names.split()],
        {
            "first": "first",
            "second": "second",
            "protocol": "protocol",
            "n": "{num_first}, {num_second}",
            "difference": "{difference:+.2f}",
            "95 %, seeds": interval("seeds_"),
            "95 %, subjects and seeds": interval("subjects_"),
            "P(first beats second)": "superiority",
            "95 % of P": interval("superiority_"),
            "test": "test",
            "p, one-sided": document.p_value("p_one_sided"),
            "p, two-sided": document.p_value("p_two_sided"),
            "p, Holm": document.p_value("p_holm"),
            "published p, one-sided": "published_p",
            "seeds needed": needed,
        },
        "Difference: mean F1 of the first minus mean F1 of the second, in points of %, with "
        "bootstrap intervals over seeds, and over subjects and seeds. The one-sided test is the "
        "paper's: the first is lower. Holm's correction covers the two-sided p-values of this "
        "table. P(first beats second): probability that a run of the first has a higher F1 than a "
        "run of the second (paired runs: than its partner), 0.5 without a difference; Newcombe's "
        "interval (Wilson's for pairs). Seeds needed: runs in each group, or pairs, for a power of "
        "80 % at p = 0.05 if the true difference is the observed one (Noether 1987); with few runs "
        "this is a rough estimate.",
    )

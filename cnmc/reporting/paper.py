"""The paper's Table 2, Figures 2 to 4 and tests, recomputed from run folders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnmc.analysis.metrics import METRICS, decision_metrics
from cnmc.analysis.results import best_and_last
from cnmc.analysis.statistics import std
from cnmc.analysis.summary import PUBLISHED, published
from cnmc.data.names import CLASS_NAMES
from cnmc.reporting import plots
from cnmc.reporting.document import Figure, Item, Row, Table, say, table
from cnmc.reporting.findings import Findings, in_percent, moments
from cnmc.runs.folder import F1


def table2(findings: Findings) -> Table:
    """Return min, mean, standard deviation and max of each metric beside the published ones."""
    rows = []
    for group in findings.study.groups:
        of_group = findings.runs[findings.runs["group"] == group.label]
        headline = of_group[of_group["view"] == of_group["view"].iloc[0]]
        for metric in METRICS:
            x = 100 * headline[metric].to_numpy(dtype=float)
            paper = published(group.experiment, group.protocol, metric)
            row: dict[str, Any] = {"experiment": group.label, "protocol": group.protocol}
            row |= {"metric": metric, "n": len(x)}
            row |= {"min": x.min(), "mean": x.mean(), "std": std(x), "max": x.max()}
            names = ("min", "mean", "std", "max")
            rows.append(row | {f"published_{name}": paper.get(name, np.nan) for name in names})

    def of_paper(row: Row) -> str:
        if np.isnan(row["published_mean"]):
            return ""
        text = "{published_mean:.2f} ± {published_std:.2f}"
        if not np.isnan(row["published_min"]):
            text += " ({published_min:.2f} to {published_max:.2f})"
        return text.format_map(row)

    frame = pd.DataFrame(rows)
    return table("table2", frame, {"published": of_paper}, seeds=PUBLISHED["num_seeds"])


def figure2(findings: Findings) -> Figure:
    """Draw the losses and the F1 of the best run by epoch."""
    group = findings.study.reference
    run = group.runs[group.best]
    curve = run.metrics.reindex(columns=["epoch", "train/loss", "val/loss", F1])
    drawing, (left, right) = plots.panels(2.4, columns=2)
    for position, (key, label) in enumerate((("train", "training"), ("val", "validation"))):
        left.plot(curve["epoch"], curve[f"{key}/loss"], label=label, **plots.marks(position))
    left.set(title="Loss", ylabel="weighted cross-entropy")
    style: plots.Style = {"color": plots.GREY, "linewidth": 0.9, "marker": "D", "markersize": 3}
    right.plot(100 * np.array(PUBLISHED["curve_f1"]), label="published run", **style)
    right.plot(curve["epoch"], 100 * curve[F1], **plots.marks(1))
    reached = 100 * curve.loc[curve["epoch"] == run.best_epoch, F1].max()
    right.set(title=f"F1: {reached:.2f} % at epoch {run.best_epoch}", ylabel="F1 in %")
    for axes in (left, right):
        axes.axvline(run.best_epoch, label=f"best epoch ({run.best_epoch})", **plots.LINE)
        plots.count_along(axes, "epoch")
    return plots.finish(drawing, "figure2", group=group.label, run=run.info.name)


def figure3(findings: Findings) -> list[Item]:
    """Draw the accuracy of the best run on the cells of each subject."""
    group = findings.study.reference
    best = group.best
    subjects = best_and_last(group, best)
    is_prelim = set(subjects["subject"]) <= set(PUBLISHED["subject_accuracy"])
    if is_prelim and not findings.is_generated:
        subjects["published"] = subjects["subject"].map(PUBLISHED["subject_accuracy"])
    subjects = in_percent(subjects, "best", "last", "published")
    classes = [label for label in (1, 0) if label in set(subjects["label"])]
    height = 0.7 + 0.19 * subjects["label"].value_counts().max()
    drawing, panels = plots.panels(height, columns=len(classes))
    for axes, label in zip(panels, classes, strict=True):
        _draw_subjects(axes, subjects[subjects["label"] == label], label)
    run = group.runs[best].info.label
    return [
        plots.finish(drawing, "figure3"),
        table("figure3", subjects, run=run, protocol=group.protocol),
    ]


def _draw_subjects(axes: Axes, rows: pd.DataFrame, label: int) -> None:
    name, style, places = CLASS_NAMES[label], plots.CLASS_MARKS[label], range(len(rows))
    axes.hlines(places, rows["best"], rows["last"], color=style["color"], linestyle=":")
    ring = plots.hollow(style, markersize=7)
    axes.plot(rows["last"], places, label=f"{name}, last epoch", **ring)
    axes.plot(rows["best"], places, label=f"{name}, best epoch", **style)
    if "published" in rows:
        tick: plots.Style = {"marker": "|", "markersize": 8, "linestyle": ""}
        axes.plot(rows["published"], places, label="published", mec=plots.GREY, **tick)
    axes.set(title=f"{name}, {len(rows)} subjects", xlabel="cell accuracy in %", xlim=(-3, 103))
    plots.label_rows(axes, rows["subject"], [f"{cells:,} cells" for cells in rows["num_cells"]])


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
    words: list[Item] = [say("figure4_once", groups=", ".join(once))] if once else []
    if not rows:
        return words
    frame = pd.DataFrame(rows)
    metrics = [metric for metric in METRICS if f"{metric}_mean" in frame]
    columns = {METRICS[m].title: f"{{{m}_mean:.2f}} ± {{{m}_std:.2f}}" for m in metrics}
    return [_draw_by_epoch(frame, metrics), table("figure4", frame, columns), *words]


def _draw_by_epoch(frame: pd.DataFrame, metrics: list[str]) -> Figure:
    num_rows = -(-len(metrics) // 3)
    drawing, panels = plots.panels(1.7 * num_rows, rows=num_rows, columns=3)
    is_trained = frame["epoch"].groupby(frame["experiment"]).transform("max") > 0
    trained = frame[(frame["epoch"] > 0) | ~is_trained]
    for axes, metric in zip(panels, metrics, strict=False):
        for style, rows in plots.by_experiment(trained):
            plots.line(axes, rows, style, "epoch", f"{metric}_")
        title = METRICS[metric].title
        axes.set(title=title[0].upper() + title[1:], ylabel="mean in %")
        plots.count_along(axes, "epoch")
    for axes in panels[len(metrics) :]:
        axes.remove()
    return plots.finish(drawing, "figure4")


def comparisons(findings: Findings) -> list[Item]:
    """Return every comparison with its tests, intervals and effect size."""
    found, refused = findings.compared

    items: list[Item] = [say("nothing_to_compare")]
    if len(found):
        names = "first second protocol test num_first num_second mean_first mean_second difference "
        names += "seeds_low seeds_high subjects_low subjects_high superiority superiority_low "
        names += "superiority_high p_one_sided p_two_sided p_holm published_p smallest"
        published_p = found["experiment"].map(PUBLISHED["p_values"]).fillna("")
        frame = in_percent(found.assign(published_p=published_p), *names.split()[6:13], "smallest")
        items = [table("comparisons", frame[names.split()])]
    items += [say("refused", reason=reason) for reason in refused]
    return items + [
        say("too_few_to_compare", **{str(key): value for key, value in row.items()})
        for row in found.to_dict("records")
        if not row["can_tell"]
    ]

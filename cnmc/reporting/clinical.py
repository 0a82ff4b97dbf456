"""ROC curves, calibration, results by person, and the cells that are most often wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis import calibration, results
from cnmc.analysis.decision import sigmoid
from cnmc.analysis.metrics import FloatArray, evaluate_each
from cnmc.analysis.results import Group
from cnmc.analysis.statistics import std
from cnmc.analysis.summary import published
from cnmc.data.names import CLASS_NAMES
from cnmc.reporting import plots
from cnmc.reporting.document import Figure, Item, say, table
from cnmc.reporting.findings import Findings, head, in_percent, moments


def roc(findings: Findings) -> list[Item]:
    """Return ROC curves, operating points, and sensitivity at fixed specificity."""
    rows, curves = [], []
    # False and true positive rates in percent, of one or of several runs.
    points: dict[str, tuple[Any, Any]] = {}
    for group in findings.study.groups:
        labels, logits = group.labels, group.logits
        scores = evaluate_each(labels, logits)
        row = head(group) | moments("auroc_", scores["auroc"])
        for name in ("sensitivity", "specificity"):
            row |= moments(f"{name}_", scores[name])
        for target in (80, 90, 95):
            at_target = [calibration.sensitivity_at(labels, run, target / 100) for run in logits]
            row |= moments(f"sensitivity_at_{target}_", at_target)
        rows.append(row)
        curve = 100 * calibration.mean_roc(labels, logits)
        if len(curve):
            curves.append(curve.assign(experiment=group.label))
            points[group.label] = 100 * (1 - scores["specificity"]), 100 * scores["sensitivity"]
    figure = _draw_roc(pd.concat(curves), points) if curves else say("no_roc")
    return [figure, table("roc", pd.DataFrame(rows))]


def _draw_roc(curves: pd.DataFrame, points: dict[str, tuple[Any, Any]]) -> Figure:
    specificity = published("proposal", "paper", "specificity")["mean"]
    paper = 100 - specificity, published("proposal", "paper", "sensitivity")["mean"]
    farthest = max(np.max([fpr, 100 - tpr]) for fpr, tpr in (paper, *points.values()))
    side = min(100, 10 * math.ceil(farthest / 10 + 0.3))
    drawing, (whole, enlarged) = plots.panels(3.0, columns=2)
    for axes in (whole, enlarged):
        axes.plot([0, 100], [0, 100], **plots.LINE)
        for style, curve in plots.by_experiment(curves):
            plots.band(axes, curve["fpr"], curve["tpr_low"], curve["tpr_high"], style["color"])
            axes.plot(curve["fpr"], curve["tpr_mean"], **style | {"marker": "", "label": ""})
            fpr, tpr = points[style["label"]]
            if axes is enlarged:
                dots = style | {"linestyle": "", "markersize": 3.5, "label": "", "alpha": 0.6}
                axes.plot(fpr, tpr, **dots)
            axes.plot(fpr.mean(), tpr.mean(), zorder=5, **style | {"markersize": 7})
        grey = plots.hollow({"color": plots.GREY, "marker": "D"}, zorder=6, label="published")
        axes.plot(*paper, **grey)
        axes.set(xlabel="false positive rate in %", ylabel="sensitivity in %")
    whole.set_title("Whole curve")
    limits = {"xlim": (-0.02 * side, 1.02 * side), "ylim": (100 - 1.02 * side, 100 + 0.02 * side)}
    enlarged.set(title="Around the operating points", **limits)
    return plots.finish(drawing, "roc")


def calibrations(findings: Findings) -> list[Item]:
    """Return reliability diagrams, expected calibration errors and temperatures."""
    measured = [_measure(group) for group in findings.study.groups]
    bins = pd.concat([diagram for _, diagram in measured], ignore_index=True)
    rows = pd.DataFrame([row for row, _ in measured])
    return [_draw_reliability(bins), table("calibration", rows), table("reliability", bins)]


def _measure(group: Group) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the row of the table of calibration, and the reliability diagram over all runs."""
    labels = group.labels
    repeated = np.tile(labels, len(group.runs))

    def errors(probs: FloatArray) -> list[float]:
        return [calibration.expected_calibration_error(labels, row) for row in probs]

    before = sigmoid(group.logits)
    diagram = calibration.reliability(repeated, before.ravel())
    diagram.insert(0, "experiment", group.label)
    diagram.insert(1, "protocol", group.protocol)
    row = head(group) | moments("ece_", errors(before))
    if group.protocol != "honest":
        names = ("temperature_mean", "temperature_std", "calibrated_ece_mean", "calibrated_ece_std")
        return row | dict.fromkeys(names, np.nan), diagram
    fit = calibration.fit_temperature
    fitted = [fit(r.choosing.labels, r.choosing.mean(r.best_epoch)) for r in group.runs]
    row |= {"temperature_mean": np.mean(fitted), "temperature_std": std(np.array(fitted))}
    after = sigmoid(group.logits / np.array(fitted)[:, None])
    calibrated = calibration.reliability(repeated, after.ravel())
    diagram["calibrated_probability"] = calibrated["mean_probability"]
    diagram["calibrated_fraction"] = calibrated["fraction"]
    return row | moments("calibrated_ece_", errors(after)), diagram


def _draw_reliability(bins: pd.DataFrame) -> Figure:
    parts = list(bins.groupby("experiment", sort=False))
    across, down = min(len(parts), 4), -(-len(parts) // 4)
    size: plots.Style = {"rows": 2 * down, "columns": across, "height_ratios": [4, 1] * down}
    drawing, panels = plots.panels(2.4 * down, sharex=True, **size)
    for axes in panels:
        axes.set_axis_off()
    kinds = {
        "as predicted": ("mean_probability", "fraction"),
        "calibrated": ("calibrated_probability", "calibrated_fraction"),
    }
    for position, (title, frame) in enumerate(parts):
        place = position // across * 2 * across + position % across
        upper, lower = panels[place], panels[place + across]
        for axes in (upper, lower):
            axes.set_axis_on()
        upper.set_title(plots.wrapped(title, 60 // across))
        upper.plot([0, 100], [0, 100], label="perfect calibration", **plots.LINE)
        for kind, (label, (x, y)) in enumerate(kinds.items()):
            # A line connects the bins with cells, across empty ones.
            if x in frame and len(drawn := frame.dropna(subset=[x])):
                upper.plot(100 * drawn[x], 100 * drawn[y], label=label, **plots.marks(2 * kind))
        width = 100 * (frame["high"] - frame["low"])
        lower.bar(100 * frame["low"], frame["num_cells"], width, align="edge", alpha=0.5)
        lower.set_xlabel("predicted ALL in %")
    panels[0].set_ylabel("ALL cells in %")
    panels[across].set_ylabel("cells")
    return plots.finish(drawing, "reliability")


def persons(findings: Findings) -> list[Item]:
    """Return the AUROC over persons, and the results of each person."""
    group = findings.study.reference
    rows = [
        head(other)
        | {"num_subjects": other.cells["subject"].nunique()}
        | moments("auroc_", evaluate_each(*results.person_scores(other))["auroc"])
        for other in findings.study.groups
    ]
    by_person = in_percent(results.persons(group), "mean_accuracy", "wrong_share")
    away = (by_person["mean_probability"] - by_person["label"]).abs()
    order = by_person.assign(away=away).sort_values(
        ["wrong_share", "away"], ascending=False, kind="stable", ignore_index=True
    )
    curve = calibration.mean_roc(*results.person_scores(group))
    return [
        _draw_persons(by_person, 100 * curve),
        table("person_roc", pd.DataFrame(rows)),
        table("subjects", order.drop(columns="away"), **_about(group)),
    ]


def _draw_persons(by_person: pd.DataFrame, curve: pd.DataFrame) -> Figure:
    rows = by_person.sort_values("mean_probability", ascending=False, ignore_index=True)
    drawing, (left, right) = plots.panels(0.6 + max(2.0, 0.17 * len(rows)), columns=2)
    left.axvline(50, **plots.LINE)
    for label in (1, 0):
        part = rows[rows["label"] == label]
        mean, std = 100 * part["mean_probability"], 100 * part["std_probability"]
        name = f"{CLASS_NAMES[label]}, mean ± std over runs"
        left.errorbar(mean, part.index, xerr=std, label=name, **plots.CLASS_MARKS[label])
    numbers = zip(rows["num_cells"], rows["wrong_share"], strict=True)
    words = [f"{cells:,} cells, {wrong:.0f} %" for cells, wrong in numbers]
    plots.label_rows(left, rows["subject"], words)
    left.set(title="Mean probability of ALL", xlabel="mean over cells in %", xlim=(-3, 103))
    right.plot([0, 100], [0, 100], **plots.LINE)
    plots.band(right, curve["fpr"], curve["tpr_low"], curve["tpr_high"], plots.INK)
    right.plot(curve["fpr"], curve["tpr_mean"], color=plots.INK, marker="", linestyle="-")
    labels = {"xlabel": "false positive rate in %", "ylabel": "sensitivity in %"}
    right.set(title="ROC over persons", box_aspect=1, anchor="N", **labels)
    return plots.finish(drawing, "persons")


def _about(group: Group) -> dict[str, Any]:
    return {"group": group.label, "protocol": group.protocol, "runs": len(group.runs)}


def errors(findings: Findings) -> list[Item]:
    """Return the cells that at least one run gets wrong."""
    group = findings.study.reference
    cells = results.hardest_cells(group)
    counts = {"most": (cells["wrong_share"] > 0.5).sum(), "any": len(cells)}
    words = say("errors", cells=len(group.labels), **counts, **_about(group))
    return [words, table("errors", in_percent(cells, "wrong_share"))] if len(cells) else [words]

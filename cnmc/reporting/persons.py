"""Results by person, and the cells that are most often wrong."""

from __future__ import annotations

import pandas as pd

from cnmc.analysis import calibration, subjects
from cnmc.reporting import plots
from cnmc.reporting.document import GROUP, Figure, Item, Table, named, spread
from cnmc.reporting.findings import CLASSES, Findings, head, in_percent, moments

_SHOWN_CELLS = 24


@plots.styled()
def persons(findings: Findings) -> list[Item]:
    """Return the AUROC over persons, and the results of each person."""
    group = findings.study.reference
    by_person = in_percent(subjects.persons(group), "mean_accuracy", "wrong_share")
    rows = [
        head(other)
        | {"num_subjects": len(other.subjects[0])}
        | moments("auroc_", subjects.person_aurocs(other))
        for other in findings.study.groups
    ]
    summary = Table(
        "person_roc",
        "AUROC over persons",
        pd.DataFrame(rows),
        GROUP | {"n": "n", "subjects": "num_subjects", "AUROC over persons": spread("auroc_")},
        "In %, mean ± std (ddof 0) over runs. The score of a person is the mean probability of ALL "
        "over the person's cells. C-NMC contains only cells of B-lineage, so this is not a "
        "diagnosis.",
    )
    away = (by_person["mean_probability"] - by_person["label"]).abs()
    order = by_person.assign(away=away).sort_values(
        ["wrong_share", "away"], ascending=False, kind="stable", ignore_index=True
    )
    table = Table(
        "subjects",
        "Persons, the most often wrong first",
        order.drop(columns="away"),
        {
            "subject": "subject",
            "class": named("label", CLASSES),
            "cells": "num_cells",
            "correct cells, %": "mean_accuracy",
            "probability of ALL": lambda row: (
                f"{row['mean_probability']:.2f} ± {row['std_probability']:.2f}"
            ),
            "wrong runs, %": "wrong_share",
        },
        f"{group.label}, protocol {group.protocol}, {len(group.runs)} runs at their best epoch. "
        "Probability: mean over the person's cells, then mean ± std over runs. A run is wrong "
        "about a person if this mean is on the wrong side of 0.5.",
    )
    curve = calibration.mean_roc(*subjects.person_scores(group))
    return [_draw_persons(by_person, 100 * curve), summary, table]


def _draw_persons(by_person: pd.DataFrame, curve: pd.DataFrame) -> Figure:
    rows = by_person.sort_values("mean_probability", ascending=False, ignore_index=True)
    drawing, (left, right) = plots.panels(0.6 + max(2.0, 0.17 * len(rows)), columns=2)
    left.axvline(50, **plots.LINE)
    for label in (1, 0):
        part = rows[rows["label"] == label]
        mean, std = 100 * part["mean_probability"], 100 * part["std_probability"]
        style = plots.CLASS_MARKS[label] | {"linestyle": ""}
        name = f"{CLASSES[label]}, mean ± std over runs"
        left.errorbar(mean, part.index, xerr=std, label=name, **style)
    numbers = zip(rows["num_cells"], rows["wrong_share"], strict=True)
    words = [f"{cells:,} cells, {wrong:.0f} %" for cells, wrong in numbers]
    plots.label_rows(left, rows["subject"], words)
    left.set(title="Mean probability of ALL", xlabel="mean over cells in %", xlim=(-3, 103))
    right.plot([0, 100], [0, 100], **plots.LINE)
    plots.band(right, curve["fpr"], (curve["tpr_low"], curve["tpr_high"]), plots.INK)
    right.plot(curve["fpr"], curve["tpr_mean"], color=plots.INK, marker="", linestyle="-")
    labels = {"xlabel": "false positive rate in %", "ylabel": "sensitivity in %"}
    right.set(title="ROC over persons", box_aspect=1, anchor="N", **labels)
    return plots.finish(
        drawing,
        "persons",
        "Results by person: the mean over the person's cells",
        "Mean probability of ALL of each person, and the ROC curve over persons.",
        "Beside each row: the person's cells, and the share of runs in which the mean is on the "
        "wrong side of 50 %.",
    )


def errors(findings: Findings) -> list[Item]:
    """Return the cells that at least one run gets wrong."""
    group = findings.study.reference
    cells = subjects.hardest_cells(group)
    most = (cells["wrong_share"] > 0.5).sum()
    words = (
        f"Of {len(group.labels)} cells, {most} are wrong in more than half of the "
        f"{len(group.runs)} runs of {group.label} (protocol {group.protocol}), and {len(cells)} in "
        "at least one."
    )
    table = Table(
        "errors",
        "Cells that most runs get wrong",
        in_percent(cells, "wrong_share"),
        {
            "cell": "cell_id",
            "subject": "subject",
            "class": named("label", CLASSES),
            "wrong runs, %": "wrong_share",
            "probability of ALL": "mean_probability",
        },
        f"The first {_SHOWN_CELLS}; the CSV file has every cell that at least one run gets wrong. "
        "Probability: mean over runs.",
        limit=_SHOWN_CELLS,
        folded=True,
    )
    return [words, table] if len(cells) else [words]

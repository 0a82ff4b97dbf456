"""The summary of a study as text: min, mean ± std and max by metric, and the best runs."""

from __future__ import annotations

import pandas as pd

from cnmc.analysis.metrics import METRICS
from cnmc.analysis.results import NO_ROTATION, ROTATIONS, Study, run_table
from cnmc.analysis.statistics import compare

_FIRST = ("f1", "sensitivity", "specificity", "accuracy", "auroc")
_NOT_SHOWN = ("precision", "recall")
"""They add little to F1 and accuracy."""


def summarise(study: Study) -> str:
    """Summarise the runs of each group, and list those that are not finished.

    The standard deviation is the population's (ddof 0), as in the paper.
    """
    lines: list[str] = []
    table = run_table(study.groups)
    if len(table):
        # The first view of a run is the one that chose its epoch.
        headline = table.drop_duplicates(["group", "run"])
        lines += ["", _table(table), "", *_notes(table), *_gains(table)]
        lines += _comparisons(study, headline)
        for label, rows in headline.groupby("group", sort=False):
            best = rows.iloc[int(rows["f1"].argmax())]
            epoch = f"F1 {100 * best['f1']:.2f} at epoch {best['best_epoch']}"
            lines += [f"best run of {label}: {best['run']}, {epoch}", f"  {best['checkpoint']}"]
    return "\n".join([*lines, *study.gaps])


def _table(table: pd.DataFrame) -> str:
    rows = {}
    names = [*_FIRST, *(name for name in METRICS if name not in (*_FIRST, *_NOT_SHOWN))]
    for (label, view), part in table.groupby(["group", "view"], sort=False):
        for name in names:
            values = 100 * part[name].to_numpy(dtype=float)
            spread = f"{values.mean():.2f} ± {values.std():5.2f}".replace("nan", "n/a")
            row = (values.min(), spread, values.max())
            rows[label, view, len(part), METRICS[name].title] = row
    index = pd.MultiIndex.from_tuples(rows, names=["experiment", "view", "n", "metric"])
    frame = pd.DataFrame(list(rows.values()), index, columns=["min", "mean ± std", "max"])
    return frame.to_string(float_format="{:.2f}".format, na_rep="n/a")


def _notes(table: pd.DataFrame) -> list[str]:
    lines = ["in %, over the best epoch of each run; std with ddof 0"]
    for (protocol, num_cells), part in table.groupby(["protocol", "num_cells"], sort=False):
        majority = " or ".join(dict.fromkeys(f"{100 * f1:.2f}" for f1 in part["majority_f1"]))
        chosen = "which also chose the epoch" if protocol == "paper" else "which chose nothing"
        lines.append(
            f"protocol {protocol}: reported on {num_cells} cells, {chosen}; F1 if every cell gets "
            f"the majority class: {majority}"
        )
    if {"proposal", "norot"} <= set(table["experiment"]):
        lines.append(
            "proposal without rotation is NOROT from the same checkpoints; norot was trained "
            "separately and chose its own epochs"
        )
    return lines


def _gains(table: pd.DataFrame) -> list[str]:
    """Compare the views of the same runs."""
    lines = []
    for label, part in table.groupby("group", sort=False):
        f1 = {view: rows["f1"].to_numpy() for view, rows in part.groupby("view")}
        if len(f1) == 2:
            gain = f1[ROTATIONS] - f1[NO_ROTATION]
            lines.append(
                f"F1 of {label} with rotations minus F1 without, from the same checkpoints: "
                f"{100 * gain.mean():+.2f}; higher in {int((gain > 0).sum())} of {len(gain)} runs"
            )
    return lines


def _comparisons(study: Study, headline: pd.DataFrame) -> list[str]:
    """Compare every group with the first one on the same cells."""
    lines = []
    f1 = {label: rows["f1"].to_numpy() for label, rows in headline.groupby("group")}
    first: dict[tuple[str, ...], str] = {}
    for group in study.groups:
        label = group.label
        against = first.setdefault(group.cells_key, label)
        if against == label:
            if len(first) > 1:
                lines.append(f"{label}: not compared, since data, split or protocol differ")
            continue
        found = compare(f1[label], f1[against])
        few = "" if found["can_tell"] else " (too few runs for p < 0.05)"
        lines.append(
            f"F1 of {label} minus F1 of {against}: {100 * found['difference']:+.2f}; probability "
            f"that a run of {label} is better: {found['superiority']:.2f}; Mann-Whitney p = "
            f"{found['p_two_sided']:.2g}{few}"
        )
    return lines

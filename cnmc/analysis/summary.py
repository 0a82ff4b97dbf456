"""The summary of a study as text: min, mean ± std and max by metric, and the best runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnmc.analysis.loading import load_study
from cnmc.analysis.metrics import METRICS
from cnmc.analysis.results import NO_ROTATION, ROTATIONS, Group, Study, run_table
from cnmc.analysis.statistics import compare
from cnmc.runs.folder import RunFolder

_FIRST = ("f1", "sensitivity", "specificity", "accuracy", "auroc")
_NOT_SHOWN = ("precision", "recall")
"""They add little to F1 and accuracy."""
_TOO_FEW = " (too few runs for p < 0.05)"


@dataclass(frozen=True)
class Summary:
    """The summary of a study."""

    text: str
    complete: bool
    """Whether every run is finished and readable."""
    runs: pd.DataFrame
    """The rows of :func:`cnmc.analysis.results.run_table` behind the text."""


def summarise(folders: Sequence[RunFolder], reasons: Mapping[str, str] | None = None) -> Summary:
    """Summarise run folders by experiment and setting, and list those that are not finished.

    Args:
        folders: The runs, finished or not.
        reasons: See :func:`cnmc.analysis.loading.load_study`.
    """
    return summarise_study(load_study(folders, reasons))


def summarise_study(study: Study) -> Summary:
    """Summarise a study.

    The standard deviation is the population's (ddof 0), as in the paper.
    """
    lines: list[str] = []
    table = run_table(study.groups)
    if len(table):
        groups = {str(label): part for label, part in table.groupby("group", sort=False)}
        lines += ["", *_table(groups), "", *_notes(table), *_comparisons(study.groups, groups)]
        for label, part in groups.items():
            rows = _headline(part)
            best = rows.iloc[int(rows["f1"].argmax())]
            epoch = f"F1 {_percent(best['f1'])} at epoch {best['best_epoch']}"
            lines += [f"best run of {label}: {best['run']}, {epoch}", f"  {best['checkpoint']}"]
    return Summary("\n".join([*lines, *study.gaps]), not study.gaps, table)


def _headline(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the view that chose the epochs: all rotations that the runs stored."""
    rows: pd.DataFrame = part[part["view"] == part["view"].iloc[0]]
    return rows


def _table(groups: Mapping[str, pd.DataFrame]) -> list[str]:
    width = max(len("experiment"), *map(len, groups))
    line = f"{{:<{width}}}  {{:<11}}  {{:>3}}  {{:<11}}  {{:>6}}  {{:>14}}  {{:>6}}"
    lines = [line.format("experiment", "view", "n", "metric", "min", "mean ± std", "max")]
    names = [*_FIRST, *(name for name in METRICS if name not in (*_FIRST, *_NOT_SHOWN))]
    for label, part in groups.items():
        first: str = label
        for name_of_view, rows in part.groupby("view", sort=False):
            view, count = str(name_of_view), str(len(rows))
            for name in names:
                values = rows[name].to_numpy(dtype=float)
                spread = f"{_percent(np.mean(values))} ± {_percent(np.std(values)):>5}"
                low, high = _percent(np.min(values)), _percent(np.max(values))
                lines += [line.format(first, view, count, METRICS[name].title, low, spread, high)]
                # Only in the first line of each view.
                first, view, count = "", "", ""
    return lines


def _notes(table: pd.DataFrame) -> list[str]:
    lines = ["in %, over the best epoch of each run; std with ddof 0"]
    for (protocol, num_cells), part in table.groupby(["protocol", "num_cells"], sort=False):
        majority = " or ".join(dict.fromkeys(map(_percent, part["majority_f1"])))
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


def _comparisons(groups: Sequence[Group], tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Compare views of the same runs, and every group with the first one on the same cells."""
    lines = []
    for label, part in tables.items():
        if set(part["view"]) == {ROTATIONS, NO_ROTATION}:
            views = {view: rows.set_index("run")["f1"] for view, rows in part.groupby("view")}
            gain = views[ROTATIONS] - views[NO_ROTATION]
            lines.append(
                f"F1 of {label} with rotations minus F1 without, from the same checkpoints: "
                f"{100 * gain.mean():+.2f}; higher in {int((gain > 0).sum())} of {len(gain)} runs"
            )
    first: dict[tuple[str, ...], str] = {}
    for group in groups:
        label = group.label
        against = first.setdefault(group.cells_key, label)
        if against == label:
            if len(first) > 1:
                lines.append(f"{label}: not compared, since data, split or protocol differ")
            continue
        f1 = [_headline(tables[name])["f1"].to_numpy(dtype=float) for name in (label, against)]
        found = compare(*f1)
        lines.append(
            f"F1 of {label} minus F1 of {against}: {100 * found.difference:+.2f}; probability that "
            f"a run of {label} is better: {found.superiority:.2f}; "
            f"Mann-Whitney p = {found.p_value:.2g}" + ("" if found.can_tell else _TOO_FEW)
        )
    return lines


def _percent(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{100 * value:.2f}"

"""The summary of a study: its text, all comparisons between groups, and the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.metrics import METRICS, FloatArray, decision_metrics
from cnmc.analysis.results import NO_ROTATION, ROTATIONS, Group, Study, run_table
from cnmc.analysis.selection import best_upright_logits
from cnmc.analysis.statistics import compare, holm, mean_interval, std

MANN_WHITNEY, WILCOXON = "Mann-Whitney", "Wilcoxon signed-rank"
PUBLISHED: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
"""The numbers of Prellberg & Kramer (2019); the file describes them."""

_FIRST = ("f1", "sensitivity", "specificity", "accuracy", "auroc")
_NOT_SHOWN = ("precision", "recall")
"""They add little to F1 and accuracy."""


def published(experiment: str, protocol: str, metric: str) -> dict[str, float]:
    """Return mean, std, and of PROPOSAL min and max, of a metric in the paper, in %.

    It is empty if the paper does not have the metric. All its numbers are of protocol ``paper``.
    """
    runs = PUBLISHED["runs"] if protocol == "paper" else {}
    return dict(runs.get(experiment, {}).get(metric, {}))


def comparisons(
    study: Study, bootstraps: dict[tuple[str, ...], SubjectBootstrap]
) -> tuple[pd.DataFrame, list[str]]:
    """Compare the F1 of every group with the first on the same cells, and rotations with none.

    ``bootstraps`` has the resamples of the subjects by :attr:`Group.cells_key`.

    Returns:
        The comparisons, and a line for each that is refused because the cells are not the same.
        Columns: first and second, the names; experiment, which the first repeats (``norot``,
        ``nospeclr`` or none); those of :func:`_compared`; and p_holm, corrected by :func:`holm`.
    """
    rows: list[dict[str, Any]] = []
    refused: list[str] = []
    references = {group.cells_key: group for group in reversed(study.groups)}
    for group in study.groups:
        reference = references[group.cells_key]
        bootstrap, label = bootstraps[group.cells_key], group.label
        if reference is not group:
            names = {"first": label, "second": reference.label, "experiment": group.experiment}
            rows.append(names | _compared(group, group.logits, reference.logits, bootstrap))
            continue
        if group is not study.reference:
            pairs = zip(group.cells_key, study.reference.cells_key, strict=True)
            differences = ", ".join(f"{one} against {two}" for one, two in pairs if one != two)
            refused.append(f"{label} is not compared with {study.reference.label}: {differences}")
        if group.has_rotations:
            norot = "norot" if group.experiment == "proposal" else ""
            names = {"second": label, "experiment": norot}
            first = {"first": f"{label}, no rotation (same checkpoints)"}
            found = _compared(group, group.upright, group.logits, bootstrap, paired=True)
            rows.append(first | names | found)
            on_same = {g.experiment for g in study.groups if g.cells_key == group.cells_key}
            if norot and group.protocol == "paper" and "norot" not in on_same:
                first = {"first": f"{label}, no rotation (own epoch)"}
                own = best_upright_logits(group)
                rows.append(first | names | _compared(group, own, group.logits, bootstrap))
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p_two_sided"])) if rows else table, refused


def _compared(
    group: Group,
    first: FloatArray,
    second: FloatArray,
    bootstrap: SubjectBootstrap,
    *,
    paired: bool = False,
) -> dict[str, Any]:
    """Compare the F1 of two groups of logits, (R, N) and (Q, N), on the group's cells."""
    one, other = (decision_metrics(group.labels, logits)["f1"] for logits in (first, second))
    resampled = [bootstrap.metrics(logits)["f1"] for logits in (first, second)]
    if paired:
        seeds = mean_interval(one - other)
        subjects = bootstrap.interval(resampled[0] - resampled[1])
    else:
        seeds, subjects = mean_interval(one, other), bootstrap.interval(*resampled)
    return {
        "protocol": group.protocol,
        "test": WILCOXON if paired else MANN_WHITNEY,
        "num_first": len(one),
        "num_second": len(other),
        "mean_first": float(one.mean()),
        "mean_second": float(other.mean()),
        **dict(zip(("seeds_low", "seeds_high"), seeds, strict=True)),
        **dict(zip(("subjects_low", "subjects_high"), subjects, strict=True)),
        **compare(one, other, paired=paired),
    }


def summarise(study: Study) -> str:
    """Summarise the runs of each group, and list those that are not finished.

    The standard deviation is the population's (ddof 0), as in the paper.
    """
    lines: list[str] = []
    table = run_table(study.groups)
    if len(table):
        # The first view of a run is the one that chose its epoch.
        headline = table.drop_duplicates(["group", "run"])
        lines += ["", _table(table), "", *_notes(table), *_differences(study, headline)]
        for group in study.groups:
            best = headline[headline["group"] == group.label].iloc[group.best]
            reached = f"F1 {100 * best['f1']:.2f} at epoch {best['best_epoch']}"
            lines.append(f"best run of {group.label}: {best['run']}, {reached}")
            lines.append(f"  {best['checkpoint']}")
    return "\n".join([*lines, *study.gaps])


def _table(table: pd.DataFrame) -> str:
    rows = {}
    names = [*_FIRST, *(name for name in METRICS if name not in (*_FIRST, *_NOT_SHOWN))]
    for (label, view), part in table.groupby(["group", "view"], sort=False):
        for name in names:
            values = 100 * part[name].to_numpy(dtype=float)
            spread = f"{values.mean():.2f} ± {std(values):5.2f}".replace("nan", "n/a")
            row = (values.min(), spread, values.max())
            rows[label, view, len(part), METRICS[name].title] = row
    index = pd.MultiIndex.from_tuples(rows, names=["experiment", "view", "n", "metric"])
    frame = pd.DataFrame(list(rows.values()), index, columns=["min", "mean ± std", "max"])
    return frame.to_string(float_format="{:.2f}".format, na_rep="n/a")


def _notes(table: pd.DataFrame) -> list[str]:
    """Return what the numbers are, and compare the views of the same runs."""
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
    for label, part in table.groupby("group", sort=False):
        f1 = {view: rows["f1"].to_numpy() for view, rows in part.groupby("view")}
        if len(f1) == 2:
            gain = f1[ROTATIONS] - f1[NO_ROTATION]
            lines.append(
                f"F1 of {label} with rotations minus F1 without, from the same checkpoints: "
                f"{100 * gain.mean():+.2f}; higher in {int((gain > 0).sum())} of {len(gain)} runs"
            )
    return lines


def _differences(study: Study, headline: pd.DataFrame) -> list[str]:
    """Compare every group with the first one on the same cells."""
    lines = []
    f1 = {label: rows["f1"].to_numpy() for label, rows in headline.groupby("group")}
    references = {group.cells_key: group.label for group in reversed(study.groups)}
    for group in study.groups:
        label, against = group.label, references[group.cells_key]
        if against != label:
            found = compare(f1[label], f1[against])
            few = "" if found["can_tell"] else " (too few runs for p < 0.05)"
            lines.append(
                f"F1 of {label} minus F1 of {against}: {100 * found['difference']:+.2f}; "
                f"probability that a run of {label} is better: {found['superiority']:.2f}; "
                f"Mann-Whitney p = {found['p_two_sided']:.2g}{few}"
            )
        elif group is not study.reference:
            lines.append(f"{label}: not compared, since data, split or protocol differ")
    return lines

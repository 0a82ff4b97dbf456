"""The sections of the report, and what a reader must know before reading them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnmc.analysis.results import NO_ROTATION, ROTATIONS, Study, missing_seeds
from cnmc.reporting import averages, certainty, clinical, paper, pictures
from cnmc.reporting.document import Figure, Item, Report, Section, Table, duration
from cnmc.reporting.findings import CLASSES, Findings, in_percent

SECTIONS: dict[str, Sequence[Callable[[Findings], Item | list[Item]]]] = {
    "The paper's results": [paper.table2, paper.figure2, paper.figure3, paper.figure4],
    "Comparisons": [paper.comparisons],
    "Confidence intervals": [certainty.intervals],
    "Bias of choosing the epoch": [certainty.selection],
    "Rotations": [averages.rotations],
    "Ensembles of runs": [averages.ensembles],
    "ROC and thresholds": [clinical.roc],
    "Calibration": [clinical.calibrations],
    "Persons": [clinical.persons],
    "Errors": [clinical.errors, pictures.hardest_cells],
    "The cells": [pictures.table1, pictures.figure1],
}
"""The functions that make the tables, figures and paragraphs of each section."""

FEW_SEEDS = 10
"""Groups with fewer runs get a warning."""


def assemble(study: Study, *, root: Path, data: Path | None = None) -> Report:
    """Make the report of a study that has at least one finished run.

    Args:
        study: The runs.
        root: Folder of the run folders.
        data: Folder of the cells; None looks where the runs found them.
    """
    findings = Findings(study, data)
    sections = [
        Section(title, [item for make in makers for item in _items(make(findings), study)])
        for title, makers in SECTIONS.items()
    ]
    if study.gaps:
        sections.append(Section("Runs that are not in this report", study.gaps))
    return Report(
        title="Classification of leukemic white blood cells: results of the runs",
        facts={"Run folders": str(root), **_facts(study)},
        warnings=_warnings(findings),
        sections=sections,
        runs=_runs(findings),
    )


def _items(made: Item | list[Item], study: Study) -> list[Item]:
    """Return the items of a function, with the protocols below each figure."""
    protocols = ", ".join(f"{group.label} ({group.protocol})" for group in study.groups)
    return [
        replace(item, note=f"{item.note} Protocols: {protocols}.")
        if isinstance(item, Figure)
        else item
        for item in (made if isinstance(made, list) else [made])
        if item
    ]


def _facts(study: Study) -> dict[str, str]:
    facts = {}
    for group in {group.cells_key: group for group in reversed(study.groups)}.values():
        labels = group.labels
        counts = f"{len(labels):,} ({labels.sum():,} ALL, {(labels == 0).sum():,} HEM)"
        words = f"{counts} of {len(group.subjects[0])} subjects; {', '.join(group.cells_key)}"
        facts[f"Reported cells of {group.label}"] = words
    commits = {run.info.git_commit for group in study.groups for run in group.runs}
    known = sorted(commit[:12] for commit in commits if commit)
    return {
        "Experiments": "; ".join(f"{g.label}: {_counted(len(g.runs))}" for g in study.groups),
        "Reference": study.reference.label,
        **facts,
        "Code of the runs": ", ".join(known) or "unknown",
    }


def _counted(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"


def _warnings(findings: Findings) -> list[str]:
    study, lines = findings.study, []
    if any(group.protocol == "paper" for group in study.groups):
        lines.append(
            "Protocol paper: the reported cells also chose the epoch of each run, which makes the "
            "results optimistic. The section on choosing the epoch shows by how much."
        )
    if findings.is_generated:
        lines.append(
            "Trained on generated cells: the numbers say nothing about C-NMC 2019 and cannot be "
            "compared with the published ones."
        )
    for group in study.groups:
        if len(group.runs) < FEW_SEEDS:
            few = "Too few seeds for meaningful p-values and intervals."
            lines.append(f"{group.label}: {_counted(len(group.runs))}. {few}")
    for label, seeds in missing_seeds(study).items():
        lines.append(f"{label}: no finished run of seed {', '.join(map(str, seeds))}.")
    if study.gaps:
        lines.append(
            f"{_counted(len(study.gaps))} left out; the end of the page gives the reasons."
        )
    lines += [f"{line}." for line in findings.compared[1]]
    for group in study.groups:
        lines += [
            f"{group.label}: no reported cell is {name}; metrics that need one are not defined."
            for label, name in enumerate(CLASSES)
            if label not in group.labels
        ]
        lines += [
            f"{run.info.label}: some logits are NaN because the training diverged; these cells "
            "count as HEM."
            for run in group.runs
            if np.isnan(run.logits()).any()
        ]
    return lines


def _runs(findings: Findings) -> Table:
    """Return one row for each run, with F1 with and without rotations side by side."""
    keys = ["group", "run"]
    upright = findings.runs[findings.runs["view"] == NO_ROTATION].set_index(keys)["f1"]
    rows = findings.runs.drop_duplicates(keys).join(upright.rename("f1_norot"), on=keys)
    rows["f1"] = rows["f1"].where(rows["view"] == ROTATIONS)
    return Table(
        "runs",
        "Runs",
        in_percent(rows, "f1", "f1_norot", "sensitivity", "specificity"),
        {"Experiment": "group", "Seed": "seed", "Protocol": "protocol"}
        | {"F1 with rotations": "f1", "F1 without": "f1_norot"}
        | {"Sensitivity": "sensitivity", "Specificity": "specificity", "Best epoch": "best_epoch"}
        | {"Time": duration("seconds"), "Checkpoint": "checkpoint"},
        "F1, sensitivity and specificity in %; time as h:mm:ss.",
    )

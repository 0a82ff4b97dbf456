"""The sections of the report, and what a reader must know before reading them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

from cnmc.analysis.results import NO_ROTATION, ROTATIONS, Study, missing_seeds
from cnmc.data.names import CLASS_NAMES
from cnmc.reporting import clinical, paper, pictures, plots, spread
from cnmc.reporting.document import Figure, Item, Report, Table, say, table, templates
from cnmc.reporting.findings import Findings, in_percent

SECTIONS: dict[str, Sequence[Callable[[Findings], Item | list[Item]]]] = {
    "The paper's results": [paper.table2, paper.figure2, paper.figure3, paper.figure4],
    "Comparisons": [paper.comparisons],
    "Confidence intervals": [spread.intervals],
    "Bias of choosing the epoch": [spread.selection],
    "Rotations": [spread.rotations],
    "Ensembles of runs": [spread.ensembles],
    "ROC and thresholds": [clinical.roc],
    "Calibration": [clinical.calibrations],
    "Persons": [clinical.persons],
    "Errors": [clinical.errors, pictures.hardest_cells],
    "The cells": [pictures.table1, pictures.figure1],
}
"""The functions that make the tables, figures and paragraphs of each section."""


def assemble(study: Study, *, root: Path, data: Path | None = None) -> Report:
    """Make the report of a study that has at least one finished run.

    ``root`` is the folder of the run folders, ``data`` that of the cells; None looks where the runs
    found them.
    """
    findings = Findings(study, data)
    protocols = ", ".join(f"{group.label} ({group.protocol})" for group in study.groups)
    sections: dict[str, Sequence[Item]] = {}
    with mpl.rc_context(fname=plots.STYLE):
        for title, makers in SECTIONS.items():
            made = [make(findings) for make in makers]
            items = [item for part in made for item in (part if isinstance(part, list) else [part])]
            sections[title] = [
                replace(item, note=f"{item.note} Protocols: {protocols}.")
                if isinstance(item, Figure)
                else item
                for item in items
                if item
            ]
    if study.gaps:
        sections["Runs that are not in this report"] = study.gaps
    facts = {"Run folders": str(root), **_facts(study)}
    return Report(say("title"), facts, _warnings(findings), sections, _runs(findings))


def _facts(study: Study) -> dict[str, str]:
    facts = {"Experiments": "; ".join(f"{g.label}: {_counted(len(g.runs))}" for g in study.groups)}
    facts["Reference"] = study.reference.label
    for group in {group.cells_key: group for group in reversed(study.groups)}.values():
        facts[f"Reported cells of {group.label}"] = say(
            "reported_cells",
            cells=len(group.labels),
            num_all=group.labels.sum(),
            num_hem=(group.labels == 0).sum(),
            subjects=group.cells["subject"].nunique(),
            key=", ".join(group.cells_key),
        )
    commits = {run.info.git_commit for group in study.groups for run in group.runs}
    known = sorted(commit[:12] for commit in commits if commit)
    return {**facts, "Code of the runs": ", ".join(known) or "unknown"}


def _counted(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"


def _warnings(findings: Findings) -> list[str]:
    study = findings.study
    environment = templates()
    environment.filters["runs"] = _counted
    environment.tests["diverged"] = lambda run: np.isnan(run.reported.at(run.best_epoch)).any()
    warnings = environment.get_template("warnings.txt.j2").render(
        study=study,
        is_generated=findings.is_generated,
        missing_seeds=missing_seeds(study),
        refused=findings.compared[1],
        classes=CLASS_NAMES,
    )
    return warnings.splitlines()


def _runs(findings: Findings) -> Table:
    """Return one row for each run, with F1 with and without rotations side by side."""
    keys = ["group", "run"]
    upright = findings.runs[findings.runs["view"] == NO_ROTATION].set_index(keys)["f1"]
    rows = findings.runs.drop_duplicates(keys).join(upright.rename("f1_norot"), on=keys)
    rows["f1"] = rows["f1"].where(rows["view"] == ROTATIONS)
    return table("runs", in_percent(rows, "f1", "f1_norot", "sensitivity", "specificity"))

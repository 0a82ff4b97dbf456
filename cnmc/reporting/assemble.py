"""Puts a report together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.comparisons import comparisons
from cnmc.analysis.results import NO_ROTATION, ROTATIONS, Group, Study, missing_seeds, run_table
from cnmc.analysis.subjects import hardest_cells
from cnmc.data.manifest import Manifest
from cnmc.reporting import cells, pictures
from cnmc.reporting.averages import ensembles_section, views_section
from cnmc.reporting.cells import Absent
from cnmc.reporting.certainty import intervals_section, selection_section
from cnmc.reporting.document import Figure, Report, Section
from cnmc.reporting.paper import comparison_section, results_section
from cnmc.reporting.screening import (
    calibration_section,
    errors_section,
    persons_section,
    roc_section,
)
from cnmc.reporting.terms import CLASSES, is_generated

FEW_SEEDS = 10
"""Groups of fewer runs are warned of: a p-value of so few says little in either direction."""


def assemble(study: Study, *, root: Path, data: Path | None = None) -> Report:
    """Make the report of a study that has at least one finished run.

    Args:
        study: What the run folders hold.
        root: Where they lie.
        data: Folder of the cells; None looks where the runs found them.
    """
    table = run_table(study.groups)
    bootstraps = {
        group.cells_key: SubjectBootstrap(group.labels, group.subjects[1]) for group in study.groups
    }
    rows, refused = comparisons(study, bootstraps)
    found = _find_data(study.reference, data)
    sections = [
        _with_protocols(section, study)
        for section in (
            results_section(study, table),
            comparison_section(rows, refused),
            intervals_section(study, bootstraps),
            selection_section(study),
            views_section(study),
            ensembles_section(study),
            roc_section(study),
            calibration_section(study),
            persons_section(study),
            errors_section(study, _sheet(study.reference, found)),
        )
    ]
    sections.append(_data_section(study.reference, found))
    if study.gaps:
        sections.append(Section("Runs that are not in this report", study.gaps))
    return Report(
        title="Classification of leukemic white blood cells: what the runs showed",
        facts=_facts(study, root),
        warnings=_warnings(study, refused),
        sections=sections,
        runs=_runs(table),
    )


def _with_protocols(section: Section, study: Study) -> Section:
    """Say below each figure by which protocol its numbers came about."""
    protocols = {group.label: group.protocol for group in study.groups}
    if len(set(protocols.values())) == 1:
        words = f"Protocol {study.reference.protocol}."
    else:
        each = ", ".join(f"{label} ({protocol})" for label, protocol in protocols.items())
        words = f"Protocols: {each}."
    items = [
        replace(item, note=f"{item.note} {words}".strip()) if isinstance(item, Figure) else item
        for item in section.items
    ]
    return Section(section.title, items)


def _facts(study: Study, root: Path) -> list[tuple[str, str]]:
    facts = [("Run folders", str(root))]
    for group in study.groups:
        if group is study.reference or group.cells_key != study.reference.cells_key:
            labels = group.labels
            counts = f"{len(labels):,} ({labels.sum():,} ALL, {(labels == 0).sum():,} HEM)"
            words = f"{counts} of {len(group.subjects[0])} subjects; {', '.join(group.cells_key)}"
            facts.append(("Reported cells", words))
    facts += [
        ("Experiments", "; ".join(f"{g.label}: {len(g.runs)} runs" for g in study.groups)),
        ("Reference", study.reference.label),
    ]
    commits = {run.info.git_commit for group in study.groups for run in group.runs}
    known = sorted(commit[:12] for commit in commits if commit)
    return [*facts, ("Code of the runs", ", ".join(known) or "unknown")]


def _warnings(study: Study, refused: Sequence[str]) -> list[str]:
    lines = []
    if any(group.protocol == "paper" for group in study.groups):
        lines.append(
            "Protocol paper: the reported cells also chose the epoch of each run, which flatters; "
            "how much is shown below."
        )
    if any(is_generated(group) for group in study.groups):
        lines.append(
            "Trained on generated cells: the numbers say nothing of C-NMC 2019, and the published "
            "ones beside them are no measure for them."
        )
    for group in study.groups:
        if len(group.runs) < FEW_SEEDS:
            number = f"{len(group.runs)} run" + ("s" if len(group.runs) > 1 else "")
            lines.append(
                f"{group.label}: {number}. The p-values and intervals of so few seeds mean little."
            )
    for label, seeds in missing_seeds(study).items():
        lines.append(f"{label}: no finished run of seed {', '.join(map(str, seeds))}.")
    if study.gaps:
        number = "1 run is" if len(study.gaps) == 1 else f"{len(study.gaps)} runs are"
        lines.append(f"{number} missing, failed or unfinished; listed at the end.")
    lines += [f"{line}." for line in refused]
    for group in study.groups:
        lines += [
            f"{group.label}: no reported cell is {name}, so what needs one is not defined."
            for label, name in enumerate(CLASSES)
            if label not in group.labels
        ]
        lines += [
            f"{run.info.label}: some logits are not numbers (the training diverged); they count "
            "as HEM."
            for run in group.runs
            if np.isnan(run.logits()).any()
        ]
    return lines


def _runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a run, with F1 of both views side by side."""
    keys = ["group", "run"]
    headline = table.drop_duplicates(keys)
    upright = table[table["view"] == NO_ROTATION].set_index(keys)["f1"].rename("f1_norot")
    rows = headline.join(upright, on=keys)
    rows["f1"] = rows["f1"].where(rows["view"] == ROTATIONS)
    # What tells the run's group from others of its experiment, swept or not.
    rows["setting"] = [
        label.removeprefix(experiment).strip()
        for label, experiment in zip(rows["group"], rows["experiment"], strict=True)
    ]
    return rows.reset_index(drop=True)


def _find_data(group: Group, data: Path | None) -> Manifest | Absent:
    config = group.runs[0].config.get("data") or {}
    fingerprint = group.runs[0].info.manifest_fingerprint or ""
    root = data or (Path(config["root"]) if config.get("root") else None)
    if root is None:
        return Absent("the runs do not say where their cells were; give data.root=DIR")
    return cells.find_data(root, Path(config.get("work_dir") or "data/cache"), fingerprint)


def _crop(group: Group) -> int:
    return int((group.runs[0].config.get("data") or {}).get("crop") or 300)


def _sheet(group: Group, found: Manifest | Absent) -> Figure | str:
    if isinstance(found, Absent):
        return f"No pictures: {found.reason}"
    hardest = hardest_cells(group)
    most = hardest[hardest["wrong_share"] > 0.5]
    sheet = pictures.error_sheet(found, most, crop=_crop(group))
    return sheet or "No pictures: no cell is wrong in more than half of the runs."


def _data_section(group: Group, found: Manifest | Absent) -> Section:
    title = "The cells"
    if isinstance(found, Absent):
        return Section(title, [f"Table 1 and Figure 1 are not shown: {found.reason}"])
    figure = pictures.figure1(found, crop=_crop(group))
    return Section(title, [cells.table1(found), *([figure] if figure else [])])

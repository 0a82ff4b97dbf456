"""What a laboratory asks: calibration, thresholds, persons, and the cells that go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis import calibration, subjects
from cnmc.analysis.metrics import aurocs, decision_metrics
from cnmc.analysis.published import TABLE2
from cnmc.analysis.results import Group, Study
from cnmc.reporting import figures
from cnmc.reporting.document import (
    Column,
    Figure,
    Section,
    Table,
    column,
    count,
    number,
    spread,
)
from cnmc.reporting.terms import CLASSES, GROUP

SPECIFICITIES = (0.80, 0.90, 0.95)
_SHOWN_CELLS = 24


def calibration_section(study: Study) -> Section:
    """Return reliability, expected calibration error and temperature."""
    rows, diagrams = [], {}
    for group in study.groups:
        temperatures = _temperatures(group)
        before = calibration.probabilities(group.logits)
        labels = group.labels
        errors = [calibration.expected_calibration_error(labels, row) for row in before]
        row: dict[str, Any] = {
            "experiment": group.label,
            "protocol": group.protocol,
            "n": len(group.runs),
            "ece_mean": 100 * np.mean(errors),
            "ece_std": 100 * np.std(errors),
            "temperature_mean": np.nan,
            "temperature_std": np.nan,
            "calibrated_ece_mean": np.nan,
            "calibrated_ece_std": np.nan,
        }
        # The cells of all runs together: a diagram of one run is mostly noise.
        repeated = np.tile(labels, len(group.runs))
        diagram = calibration.reliability(repeated, before.ravel())
        if temperatures is not None:
            after = np.stack(
                [
                    calibration.probabilities(logits, t)
                    for logits, t in zip(group.logits, temperatures, strict=True)
                ]
            )
            calibrated = [calibration.expected_calibration_error(labels, p) for p in after]
            row |= {
                "temperature_mean": temperatures.mean(),
                "temperature_std": temperatures.std(),
                "calibrated_ece_mean": 100 * np.mean(calibrated),
                "calibrated_ece_std": 100 * np.std(calibrated),
            }
            fitted = calibration.reliability(repeated, after.ravel())
            diagram["calibrated_probability"] = fitted["mean_probability"]
            diagram["calibrated_fraction"] = fitted["fraction"]
        rows.append(row)
        diagrams[group.label] = diagram

    def after_fit(name: str) -> Column:
        head = {"temperature": "temperature", "calibrated_ece": "ECE after it"}[name]

        def cell(row: Mapping[str, Any]) -> str:
            if np.isnan(row[f"{name}_mean"]):
                return "not fitted"
            return spread(row[f"{name}_mean"], row[f"{name}_std"])

        return Column(head, cell)

    table = Table(
        name="calibration",
        title="Calibration of the probability of ALL",
        frame=pd.DataFrame(rows),
        columns=[
            *GROUP,
            column("n", "n", count),
            Column("ECE", lambda row: spread(row["ece_mean"], row["ece_std"])),
            after_fit("temperature"),
            after_fit("calibrated_ece"),
        ],
        note=(
            "ECE: expected calibration error in points of %, over ten bins of equal width; mean ± "
            "std over runs. A temperature divides the logits. It is fitted, for the lowest log "
            "loss, on the part that chose the epoch and never on the reported one: under the "
            "paper's protocol they are the same cells, so none is fitted."
        ),
    )
    stored = pd.concat(
        [
            diagrams[group.label].assign(experiment=group.label, protocol=group.protocol)
            for group in study.groups
        ],
        ignore_index=True,
    )
    names = ["experiment", "protocol"]
    bins = Table(
        name="reliability",
        folded=True,
        title="The reliability diagram in numbers",
        frame=stored[[*names, *[c for c in stored.columns if c not in names]]],
        columns=[
            *GROUP,
            Column("probability", lambda row: f"{row['low']:.1f} to {row['high']:.1f}"),
            column("cells", "num_cells", count),
            column("mean probability", "mean_probability", number),
            column("fraction of ALL", "fraction", number),
        ],
        note="Cells of all runs together; fractions of 1. An empty bin defines nothing.",
    )
    return Section("Calibration", [figures.reliability(diagrams), table, bins])


def _temperatures(group: Group) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return each run's temperature; None where only the reported cells could give it."""
    if group.protocol != "honest":
        return None
    fitted = []
    for run in group.runs:
        logits = run.choosing.mean_at(run.best_epoch)
        fitted.append(calibration.fit_temperature(run.choosing.labels, logits))
    return np.array(fitted)


def roc_section(study: Study) -> Section:
    """Return the ROC, the operating point, and sensitivity at fixed specificity."""
    title = "ROC and thresholds"
    curves, points, rows = {}, {}, []
    for group in study.groups:
        labels = group.labels
        scores = decision_metrics(labels, group.logits)
        sensitivity, specificity = scores["sensitivity"], scores["specificity"]
        row: dict[str, Any] = {
            "experiment": group.label,
            "protocol": group.protocol,
            "n": len(group.runs),
        }
        measured = {
            "auroc": aurocs(labels, group.logits),
            "sensitivity": sensitivity,
            "specificity": specificity,
        }
        for target in SPECIFICITIES:
            measured[f"sensitivity_at_{round(100 * target)}"] = np.array(
                [calibration.sensitivity_at(labels, logits, target) for logits in group.logits]
            )
        for name, values in measured.items():
            row |= {f"{name}_mean": 100 * values.mean(), f"{name}_std": 100 * values.std()}
        rows.append(row)
        curve = calibration.mean_roc(labels, group.logits)
        if len(curve):
            curves[group.label] = curve
            points[group.label] = pd.DataFrame({"fpr": 1 - specificity, "tpr": sensitivity})

    def shown(head: str, name: str) -> Column:
        return Column(head, lambda row: spread(row[f"{name}_mean"], row[f"{name}_std"]))

    table = Table(
        name="roc",
        title="Operating point and other thresholds",
        frame=pd.DataFrame(rows),
        columns=[
            *GROUP,
            column("n", "n", count),
            shown("AUROC", "auroc"),
            shown("sensitivity", "sensitivity"),
            shown("specificity", "specificity"),
            *[
                shown(
                    f"sensitivity at specificity {round(100 * s)}",
                    f"sensitivity_at_{round(100 * s)}",
                )
                for s in SPECIFICITIES
            ],
        ],
        note=(
            "In %, mean ± std (ddof 0) over runs, at the best epoch. The operating point is a mean "
            "logit of 0. Sensitivity at a specificity is read off the curve of the reported cells: "
            "the threshold that reaches it is not known beforehand on new ones."
        ),
    )
    if not curves:
        return Section(
            title, ["The reported cells have one class alone: no ROC is defined.", table]
        )
    paper = (1 - TABLE2["specificity"].mean / 100, TABLE2["sensitivity"].mean / 100)
    return Section(title, [figures.roc(curves, points, published=paper), table])


def persons_section(study: Study) -> Section:
    """Return what the runs say of persons."""
    group = study.reference
    persons = subjects.persons(group)
    labels, scores = subjects.person_scores(group)
    curve = calibration.mean_roc(labels, scores)
    rows = [
        {
            "experiment": other.label,
            "protocol": other.protocol,
            "n": len(other.runs),
            "num_subjects": len(other.subjects[0]),
            "auroc_mean": 100 * np.mean(subjects.person_aurocs(other)),
            "auroc_std": 100 * np.std(subjects.person_aurocs(other)),
        }
        for other in study.groups
    ]
    summary = Table(
        name="person_roc",
        title="AUROC over persons",
        frame=pd.DataFrame(rows),
        columns=[
            *GROUP,
            column("n", "n", count),
            column("subjects", "num_subjects", count),
            Column("AUROC over persons", lambda row: spread(row["auroc_mean"], row["auroc_std"])),
        ],
        note=(
            "In %, mean ± std (ddof 0) over runs. A person's score is the mean probability of ALL "
            "of the person's cells. C-NMC has cells of B-lineage alone: no one is diagnosed so."
        ),
    )
    away = (persons["mean_probability"] - persons["label"]).abs()
    order = persons.assign(away=away, **_in_percent(persons, "mean_accuracy", "wrong_share"))
    order = order.sort_values(
        ["wrong_share", "away"], ascending=False, kind="stable", ignore_index=True
    )
    table = Table(
        name="subjects",
        title="Persons, the most often wrong first",
        frame=order.drop(columns="away"),
        columns=[
            column("subject", "subject"),
            column("class", "label", lambda label: CLASSES[label], align="left"),
            column("cells", "num_cells", count),
            column("right cells, %", "mean_accuracy", number),
            Column(
                "probability of ALL",
                lambda row: spread(row["mean_probability"], row["std_probability"]),
            ),
            column("runs that are wrong, %", "wrong_share", number),
        ],
        note=(
            f"{group.label}, protocol {group.protocol}, {len(group.runs)} runs at their best "
            "epoch. Probability: mean over the person's cells, then mean ± std over runs. A run is "
            "wrong of a person where that mean is on the wrong side of 0.5."
        ),
    )
    return Section("Persons", [figures.persons(persons, curve), summary, table])


def errors_section(study: Study, sheet: Figure | str) -> Section:
    """Return the cells that most runs get wrong.

    Args:
        study: The groups.
        sheet: Their pictures, or why there are none.
    """
    group = study.reference
    cells = subjects.hardest_cells(group)
    most = int((cells["wrong_share"] > 0.5).sum())
    words = (
        f"{most} of {len(group.labels)} cells are wrong in more than half of the "
        f"{len(group.runs)} runs of {group.label} (protocol {group.protocol}); {len(cells)} in at "
        "least one."
    )
    table = Table(
        name="errors",
        folded=True,
        title="Cells that most runs get wrong",
        frame=cells.assign(**_in_percent(cells, "wrong_share")),
        columns=[
            column("cell", "cell_id"),
            column("subject", "subject"),
            column("class", "label", lambda label: CLASSES[label], align="left"),
            column("runs that are wrong, %", "wrong_share", number),
            column("probability of ALL", "mean_probability", number),
        ],
        note=(
            f"The first {_SHOWN_CELLS}; the CSV file has every cell that at least one run gets "
            "wrong. Probability: mean over runs."
        ),
        limit=_SHOWN_CELLS,
    )
    return Section("Errors", [words, sheet, *([table] if len(cells) else [])])


def _in_percent(frame: pd.DataFrame, *names: str) -> dict[str, pd.Series]:
    return {name: 100 * frame[name] for name in names}

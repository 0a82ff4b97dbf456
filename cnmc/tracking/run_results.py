"""The results of a finished run, as W&B's tables and charts show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnmc.analysis.loading import load_run
from cnmc.analysis.metrics import FloatArray, IntArray, evaluate, sigmoid
from cnmc.analysis.results import Group
from cnmc.analysis.subjects import hardest_cells, persons
from cnmc.runs.folder import RunFolder
from cnmc.tracking import keys


@dataclass(frozen=True)
class RunResults:
    """Results of a run's best checkpoint on the reported cells.

    Attributes:
        summary: :func:`best_summary`, and with protocol honest every metric of the test cells.
        labels: 0 (HEM) or 1 (ALL) of each cell, shape (N,).
        probabilities: Probability of ALL, shape (N,).
        subjects: subject, label, num_cells, accuracy and mean_probability, one row a subject.
        wrong: cell_id, subject, label and probability of the cells that are classified wrongly,
            most confident first.
    """

    summary: dict[str, float]
    labels: IntArray
    probabilities: FloatArray
    subjects: pd.DataFrame
    wrong: pd.DataFrame


def best_summary(row: Mapping[Any, float]) -> dict[str, float]:
    """Return W&B's summary of the best epoch from its row of ``metrics.csv``."""
    metrics = {
        keys.best(name.removeprefix("val/")): value
        for name, value in row.items()
        if name.startswith("val/")
    }
    return {keys.best(keys.EPOCH): int(row[keys.EPOCH]), **metrics}


def run_results(folder: RunFolder) -> RunResults:
    """Read the results of a finished run.

    Raises:
        CnmcError: The run is not finished, or a file of it is missing or damaged.
    """
    run = load_run(folder)
    group = Group(run.info.label, (run,))
    best = run.metrics[run.metrics["epoch"] == run.best_epoch]
    summary = best_summary(best.iloc[0].dropna().to_dict())
    if run.reported is not run.choosing:
        found = evaluate(group.labels, run.logits())
        found["f1_norot"] = evaluate(group.labels, run.logits(rotations=False))["f1"]
        summary |= {keys.test(name): value for name, value in found.items()}
    columns = ["subject", "label", "num_cells", "mean_accuracy", "mean_probability"]
    wrong = hardest_cells(group).drop(columns="wrong_share")
    return RunResults(
        summary=summary,
        labels=group.labels,
        probabilities=sigmoid(run.logits()),
        subjects=persons(group)[columns].rename(columns={"mean_accuracy": "accuracy"}),
        wrong=wrong.rename(columns={"mean_probability": "probability"}),
    )

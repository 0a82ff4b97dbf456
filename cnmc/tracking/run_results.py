"""What a finished run shows, as loggers with tables and charts want it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from cnmc.analysis.metrics import FloatArray, IntArray, evaluate
from cnmc.analysis.results import Group
from cnmc.analysis.run_reader import load_run
from cnmc.analysis.subjects import hardest_cells, persons
from cnmc.runs.folder import RunFolder
from cnmc.tracking import keys as names


@dataclass(frozen=True)
class RunResults:
    """What the best checkpoint of a run says of the reported cells.

    Attributes:
        summary: :func:`best_summary`, and under protocol honest every metric of the reported cells,
            which are others than those that chose the epoch.
        labels: 0 (HEM) or 1 (ALL) of each cell, shape (N,).
        probabilities: Of ALL, shape (N,).
        subjects: subject, label, num_cells, accuracy and mean_probability, one row a subject.
        wrong: cell_id, subject, label and probability of the cells that are called wrongly, those
            first of which the network is surest.
    """

    summary: dict[str, float]
    labels: IntArray
    probabilities: FloatArray
    subjects: pd.DataFrame
    wrong: pd.DataFrame


def best_summary(row: Mapping[Any, float]) -> dict[str, float]:
    """Return the summary of the best epoch from its row of ``metrics.csv``, as W&B names it."""
    metrics = {
        names.best(name.removeprefix("val/")): value
        for name, value in row.items()
        if name.startswith("val/")
    }
    return {names.best(names.EPOCH): int(row[names.EPOCH]), **metrics}


def run_results(folder: RunFolder) -> RunResults:
    """Read what a finished run shows.

    Raises:
        CnmcError: The run is not finished, or a file of it is missing or damaged.
    """
    run = load_run(folder)
    group = Group(run.info.label, (run,))
    summary = best_summary(
        run.metrics[run.metrics["epoch"] == run.best_epoch].iloc[0].dropna().to_dict()
    )
    if run.reported is not run.choosing:
        found = evaluate(group.labels, run.logits())
        found["f1_norot"] = evaluate(group.labels, run.logits(rotations=False))["f1"]
        summary |= {names.test(name): value for name, value in found.items()}
    columns = ["subject", "label", "num_cells", "mean_accuracy", "mean_probability"]
    return RunResults(
        summary=summary,
        labels=group.labels,
        probabilities=np.asarray(expit(run.logits())),
        subjects=persons(group)[columns].rename(columns={"mean_accuracy": "accuracy"}),
        wrong=hardest_cells(group)
        .drop(columns="wrong_share")
        .rename(columns={"mean_probability": "probability"}),
    )

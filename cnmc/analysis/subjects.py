"""Results by subject, and the cells that are classified wrongly."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import FloatArray, IntArray, aurocs, sigmoid
from cnmc.analysis.results import Group
from cnmc.files import natural_key


def _by_subject(values: FloatArray, subjects: IntArray) -> FloatArray:
    """Average over each subject's cells: (..., N) to (..., S)."""
    members = np.zeros((values.shape[-1], int(subjects.max()) + 1))
    members[np.arange(len(subjects)), subjects] = 1.0
    mean: FloatArray = values @ (members / members.sum(axis=0))
    return mean


def persons(group: Group) -> pd.DataFrame:
    """Return the results of each subject of the reported cells, ALL first, then by name.

    A subject with cells of both classes is two rows: one a class.

    Returns:
        subject, label, num_cells; over runs, at their best epoch: mean_accuracy of its cells,
        mean_probability and std_probability (ddof 0) of its cells' mean probability of ALL, and
        wrong_share, the share of runs in which it is on the wrong side of 0.5.
    """
    table, rows, labels = _rows(group)
    right = (group.logits > 0.0) == (group.labels == 1)
    probs = _by_subject(sigmoid(group.logits), rows)
    table["mean_accuracy"] = _by_subject(right.astype(float), rows).mean(axis=0)
    table["mean_probability"] = probs.mean(axis=0)
    table["std_probability"] = probs.std(axis=0)
    table["wrong_share"] = ((probs > 0.5) != (labels == 1)).mean(axis=0)
    return table


def person_scores(group: Group) -> tuple[IntArray, FloatArray]:
    """Return the label of each row of :func:`persons`, and its mean probability by run, (R, S)."""
    _, rows, labels = _rows(group)
    return labels, _by_subject(sigmoid(group.logits), rows)


def person_aurocs(group: Group) -> FloatArray:
    """Return the AUROC of each run over persons, by their cells' mean probability, shape (R,)."""
    labels, scores = person_scores(group)
    return aurocs(labels, scores)


def best_and_last(group: Group, position: int) -> pd.DataFrame:
    """Return the accuracy by subject of one run, as in the paper's Figure 3.

    Args:
        group: The runs.
        position: Which of them.

    Returns:
        subject, label, num_cells, best (of the best checkpoint) and last (of the last epoch; NaN
        where the reported cells were evaluated at the best epoch alone).
    """
    table, rows, _ = _rows(group)
    run = group.runs[position]
    truth = group.labels == 1
    table["best"] = _by_subject(((run.logits() > 0.0) == truth).astype(float), rows)
    last = run.reported.mean()[-1]
    known = run.info.epochs_done in run.reported.epochs
    table["last"] = _by_subject(((last > 0.0) == truth).astype(float), rows) if known else np.nan
    return table


def _rows(group: Group) -> tuple[pd.DataFrame, IntArray, IntArray]:
    """Return subject, label and num_cells by row, and the row of each cell."""
    names, numbers = group.subjects
    keys = numbers * 2 + group.labels
    kinds = np.unique(keys)
    order = sorted(kinds, key=lambda kind: (-(kind % 2), natural_key(names[kind // 2])))
    place = {kind: position for position, kind in enumerate(order)}
    rows = np.array([place[key] for key in keys], dtype=np.int64)
    labels = np.array([kind % 2 for kind in order], dtype=np.int64)
    table = pd.DataFrame(
        {
            "subject": [names[kind // 2] for kind in order],
            "label": labels,
            "num_cells": np.bincount(rows),
        }
    )
    return table, rows, labels


def hardest_cells(group: Group) -> pd.DataFrame:
    """Return the cells that at least one run classifies wrongly, most frequent first.

    Returns:
        cell_id, subject, label, wrong_share (of runs), mean_probability of ALL over runs.
    """
    wrong = (group.logits > 0.0) != (group.labels == 1)
    table = group.cells.assign(
        wrong_share=wrong.mean(axis=0), mean_probability=sigmoid(group.logits).mean(axis=0)
    )
    # Among cells that equally many runs get wrong, those first of which they are surest.
    surest = (table["mean_probability"] - table["label"]).abs()
    order = np.lexsort((table["cell_id"], -surest, -table["wrong_share"]))
    table = table.iloc[order]
    return table[table["wrong_share"] > 0].reset_index(drop=True)

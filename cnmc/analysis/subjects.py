"""Results by subject, and the cells that are classified wrongly."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnmc.analysis.decision import sigmoid
from cnmc.analysis.metrics import FloatArray, IntArray
from cnmc.analysis.results import Group
from cnmc.files import natural_key


def _rows(group: Group) -> tuple[pd.DataFrame, IntArray]:
    """Return subject, label and num_cells by row, and the row of each cell."""
    cells = group.cells.groupby(["subject", "label"], sort=False)
    table = cells.size().rename("num_cells").reset_index()
    keys = list(zip(-table["label"], map(natural_key, table["subject"]), strict=True))
    order = sorted(range(len(table)), key=keys.__getitem__)
    return table.iloc[order].reset_index(drop=True), np.argsort(order)[cells.ngroup()]


def _by_row(values: FloatArray, rows: IntArray) -> FloatArray:
    """Average over the cells of each row: (..., N) to (..., S)."""
    members = np.zeros((values.shape[-1], int(rows.max()) + 1))
    members[np.arange(len(rows)), rows] = 1.0
    return np.asarray(values @ (members / members.sum(axis=0)))


def persons(group: Group) -> pd.DataFrame:
    """Return the results of each subject of the reported cells, ALL first, then by name.

    A subject with cells of both classes has two rows. Columns: subject, label, num_cells; over
    runs, at their best epoch: mean_accuracy of its cells, mean_probability and std_probability
    (ddof 0) of its cells' mean probability of ALL, and wrong_share, the share of runs in which it
    is on the wrong side of 0.5.
    """
    table, rows = _rows(group)
    right = (group.logits > 0.0) == (group.labels == 1)
    labels, probs = person_scores(group)
    table["mean_accuracy"] = _by_row(right.astype(float), rows).mean(axis=0)
    table["mean_probability"] = probs.mean(axis=0)
    table["std_probability"] = probs.std(axis=0)
    table["wrong_share"] = ((probs > 0.5) != (labels == 1)).mean(axis=0)
    return table


def person_scores(group: Group) -> tuple[IntArray, FloatArray]:
    """Return the label of each row of :func:`persons`, and its mean probability by run, (R, S)."""
    table, rows = _rows(group)
    return table["label"].to_numpy(dtype=np.int64), _by_row(sigmoid(group.logits), rows)


def best_and_last(group: Group, position: int) -> pd.DataFrame:
    """Return the accuracy by subject of the run at a position, as in the paper's Figure 3.

    Columns: subject, label, num_cells, best (of the best checkpoint) and last (of the last epoch;
    NaN where the reported cells were evaluated only at the best epoch).
    """
    table, rows = _rows(group)
    run = group.runs[position]
    truth = group.labels == 1
    table["best"] = _by_row(((run.logits() > 0.0) == truth).astype(float), rows)
    table["last"] = np.nan
    if run.info.epochs_done in run.reported.epochs:
        last = run.reported.mean(run.info.epochs_done)
        table["last"] = _by_row(((last > 0.0) == truth).astype(float), rows)
    return table


def hardest_cells(group: Group) -> pd.DataFrame:
    """Return the cells that at least one run classifies wrongly, most frequent first.

    Columns: cell_id, subject, label, wrong_share (of runs), mean_probability of ALL over runs.
    """
    wrong = (group.logits > 0.0) != (group.labels == 1)
    table = group.cells.assign(
        wrong_share=wrong.mean(axis=0), mean_probability=sigmoid(group.logits).mean(axis=0)
    )
    # Among cells that equally many runs get wrong, the most confident ones come first.
    surest = (table["mean_probability"] - table["label"]).abs()
    order = np.lexsort((table["cell_id"], -surest, -table["wrong_share"]))
    table = table.iloc[order]
    return table[table["wrong_share"] > 0].reset_index(drop=True)

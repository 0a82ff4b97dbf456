"""Metrics of binary classification, as section 4 of the paper reports them.

ALL is the positive class, label 1. The weighted scores average the score of each class by its
number of cells. A metric that the cells do not define (no cell of a class) is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit
from scipy.stats import rankdata

from cnmc.runs.folder import logit_columns

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]

METRICS = ("accuracy", "sensitivity", "specificity", "f1", "precision", "recall", "auroc")
"""The metrics of :func:`evaluate`, in the order of the paper's Table 2."""


def mean_logits(predictions: pd.DataFrame, columns: Sequence[str] | None = None) -> FloatArray:
    """Return the mean logit over the rotations of each row.

    Args:
        predictions: Rows with ``logit_<k>`` columns.
        columns: The columns to average; all that are there by default.
    """
    chosen = list(columns) if columns is not None else logit_columns(predictions)
    mean: FloatArray = predictions[chosen].to_numpy(dtype=np.float64).mean(axis=1)
    return mean


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return the probabilities of ALL, in double precision, of the same shape."""
    return np.asarray(expit(np.asarray(logits, dtype=np.float64)))


def confusion(
    labels: IntArray, positive: npt.NDArray[np.bool_], subjects: IntArray | None = None
) -> IntArray:
    """Count true negatives, false positives, false negatives and true positives.

    Args:
        labels: 0 or 1, shape (N,).
        positive: Whether a cell is called ALL, shape (..., N).
        subjects: Number of each cell's subject, from 0, shape (N,): counts are kept apart by it.

    Returns:
        Shape (..., 4), or (..., S, 4) with subjects.
    """
    truth = np.asarray(labels) == 1
    group = np.zeros(len(truth), dtype=np.int64) if subjects is None else np.asarray(subjects)
    members = np.zeros((len(truth), int(group.max(initial=0)) + 1))
    members[np.arange(len(truth)), group] = 1.0
    called = np.asarray(positive, dtype=np.float64)
    tp, fp = called @ (members * truth[:, None]), called @ (members * ~truth[:, None])
    num_positive, num_negative = truth @ members, ~truth @ members
    counts = np.stack([num_negative - fp, fp, num_positive - tp, tp], axis=-1)
    whole: IntArray = np.rint(counts).astype(np.int64)
    return whole[..., 0, :] if subjects is None else whole


def _ratio(numerator: FloatArray, denominator: FloatArray, default: float) -> FloatArray:
    defined = np.asarray(denominator) > 0
    ratio: FloatArray = np.where(defined, numerator / np.where(defined, denominator, 1.0), default)
    return ratio


def count_metrics(counts: npt.NDArray[Any]) -> dict[str, FloatArray]:
    """Return every metric of :data:`METRICS` but the AUROC, as fractions of 1.

    Args:
        counts: True negatives, false positives, false negatives and true positives along the last
            axis, shape (..., 4); they may be weighted, and so no whole numbers.

    Returns:
        By metric, shape (...).
    """
    tn, fp, fn, tp = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    nan = float("nan")
    # A class that is never predicted has precision 0, as in the definition that scikit-learn uses.
    precisions = _ratio(tn, tn + fn, 0.0), _ratio(tp, tp + fp, 0.0)
    recalls = _ratio(tn, tn + fp, 0.0), _ratio(tp, tp + fn, 0.0)
    f1s = _ratio(2 * tn, 2 * tn + fn + fp, 0.0), _ratio(2 * tp, 2 * tp + fn + fp, 0.0)
    negatives, positives = tn + fp, tp + fn
    total = negatives + positives

    def weighted(scores: tuple[FloatArray, FloatArray]) -> FloatArray:
        return _ratio(negatives * scores[0] + positives * scores[1], total, nan)

    return {
        "accuracy": _ratio(tn + tp, total, nan),
        "sensitivity": _ratio(tp, positives, nan),
        "specificity": _ratio(tn, negatives, nan),
        "f1": weighted(f1s),
        "precision": weighted(precisions),
        "recall": weighted(recalls),
    }


def auroc(labels: IntArray, scores: FloatArray) -> float:
    """Return the area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Args:
        labels: 0 or 1, shape (N,).
        scores: Any increasing score (logits or probabilities), shape (N,).
    """
    truth = np.asarray(labels) == 1
    num_positive = int(truth.sum())
    num_negative = len(truth) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    ranks = rankdata(scores)
    wins = ranks[truth].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


def weighted_bce(labels: IntArray, logits: FloatArray, pos_weight: float) -> float:
    """Return the paper's loss (section 4.1), averaged over cells.

    ``-(w y ln s(x) + (1 - y) ln(1 - s(x)))`` with the sigmoid ``s``, in the form that does not
    overflow.
    """
    x = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    loss = pos_weight * y * np.logaddexp(0.0, -x) + (1.0 - y) * np.logaddexp(0.0, x)
    return float(loss.mean())


def decision_metrics(labels: IntArray, logits: FloatArray) -> dict[str, FloatArray]:
    """Return what :func:`count_metrics` does, of cells that are ALL where their logit is above 0.

    Args:
        labels: 0 (HEM) or 1 (ALL), shape (N,).
        logits: Shape (..., N).

    Returns:
        By metric, shape (...).
    """
    return count_metrics(confusion(labels, np.asarray(logits) > 0.0))


def aurocs(labels: IntArray, scores: FloatArray) -> FloatArray:
    """Return the :func:`auroc` of each row of scores, shape (R, N) to (R,)."""
    return np.array([auroc(labels, row) for row in scores])


def evaluate(labels: IntArray, logits: FloatArray) -> dict[str, float]:
    """Return every metric of :data:`METRICS` as a fraction of 1.

    Args:
        labels: 0 (HEM) or 1 (ALL), shape (N,).
        logits: One logit a cell, shape (N,); a cell is ALL where it is above 0.
    """
    logits = np.asarray(logits, dtype=np.float64)
    scores = decision_metrics(labels, logits)
    return {
        **{name: float(value) for name, value in scores.items()},
        "auroc": auroc(labels, logits),
    }


def reported_role(predictions: pd.DataFrame) -> str:
    """Return the role whose cells a run reports: ``test`` where it has one, else ``val``."""
    return "test" if (predictions["role"] == "test").any() else "val"


def evaluate_run(
    predictions: pd.DataFrame, epoch: int, *, role: str | None = None, rotations: bool = True
) -> dict[str, float]:
    """Return the metrics of one epoch of a run from its stored predictions.

    Args:
        predictions: A run's predictions.
        epoch: The epoch to evaluate.
        role: The cells to evaluate; the reported ones by default.
        rotations: Average all stored rotations, or take the original orientation alone.
    """
    role = role or reported_role(predictions)
    rows = predictions[(predictions["epoch"] == epoch) & (predictions["role"] == role)]
    logits = mean_logits(rows, None if rotations else ["logit_0"])
    return evaluate(rows["label"].to_numpy(dtype=np.int64), logits)

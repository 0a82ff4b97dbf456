"""Metrics of binary classification, as section 4 of the paper reports them.

``labels`` are 0 (HEM) or 1 (ALL, the positive class), shape (N,). A metric that is not defined for
the cells (a class is missing) is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from cnmc.runs.folder import logit_columns

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]


class Counts(NamedTuple):
    """Numbers of cells, which may be weighted; arrays of one shape."""

    tn: FloatArray
    fp: FloatArray
    fn: FloatArray
    tp: FloatArray
    negatives: FloatArray
    positives: FloatArray


class Metric(NamedTuple):
    """A metric, a fraction of 1: its title, and a function of counts or of labels and scores."""

    title: str
    of_counts: Callable[[Counts], FloatArray] | None = None
    of_scores: Callable[[IntArray, FloatArray], float] | None = None


def _ratio(numerator: FloatArray, denominator: FloatArray, default: float = np.nan) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, default)


def _weighted(n: Counts, negative: FloatArray, positive: FloatArray) -> FloatArray:
    """Average the scores of both classes, weighted by their numbers of cells."""
    total = n.negatives + n.positives
    return _ratio(n.negatives * negative + n.positives * positive, total)


def _f1(n: Counts) -> FloatArray:
    # A class that is never predicted has F1 and precision 0, as in scikit-learn.
    scores = (_ratio(2 * right, 2 * right + n.fn + n.fp, 0.0) for right in (n.tn, n.tp))
    return _weighted(n, *scores)


def _precision(n: Counts) -> FloatArray:
    return _weighted(n, _ratio(n.tn, n.tn + n.fn, 0.0), _ratio(n.tp, n.tp + n.fp, 0.0))


def _recall(n: Counts) -> FloatArray:
    return _weighted(n, _ratio(n.tn, n.negatives, 0.0), _ratio(n.tp, n.positives, 0.0))


def auroc(labels: IntArray, scores: FloatArray) -> float:
    """Return the area under the ROC curve by the Mann-Whitney statistic; a tie counts half."""
    truth = np.asarray(labels) == 1
    num_positive = int(truth.sum())
    num_negative = len(truth) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    wins = rankdata(scores)[truth].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


METRICS = {
    "accuracy": Metric("accuracy", lambda n: _ratio(n.tn + n.tp, n.negatives + n.positives)),
    "sensitivity": Metric("sensitivity", lambda n: _ratio(n.tp, n.positives)),
    "specificity": Metric("specificity", lambda n: _ratio(n.tn, n.negatives)),
    "f1": Metric("F1", _f1),
    "precision": Metric("precision", _precision),
    "recall": Metric("recall", _recall),
    "auroc": Metric("AUROC", of_scores=auroc),
}
"""All metrics by name, in the order of the paper's Table 2. Another entry appears in
``metrics.csv``, in the tables and figures of the report, and at W&B."""


def mean_logits(predictions: pd.DataFrame) -> FloatArray:
    """Return the mean of the ``logit_<k>`` columns of each row."""
    logits = predictions[logit_columns(predictions)].to_numpy(dtype=np.float64)
    return np.asarray(logits.mean(axis=1))


def confusion(
    labels: IntArray, positive: npt.NDArray[np.bool_], subjects: IntArray | None = None
) -> IntArray:
    """Count true negatives, false positives, false negatives and true positives.

    ``positive``, whether a cell is called ALL, has shape (..., N), the counts (..., 4). With the
    number of each cell's subject, from 0, shape (N,), they are counted by subject: (..., S, 4).
    """
    truth = np.asarray(labels) == 1
    group = np.zeros(len(truth), dtype=np.int64) if subjects is None else subjects
    members = np.zeros((len(truth), int(group.max(initial=0)) + 1))
    members[np.arange(len(truth)), group] = 1.0
    called = np.asarray(positive, dtype=np.float64)
    tp, fp = called @ (members * truth[:, None]), called @ (members * ~truth[:, None])
    counts = np.stack([~truth @ members - fp, fp, truth @ members - tp, tp], axis=-1)
    whole: IntArray = np.rint(counts).astype(np.int64)
    return whole[..., 0, :] if subjects is None else whole


def count_metrics(counts: npt.NDArray[Any]) -> dict[str, FloatArray]:
    """Return every metric of counts: TN, FP, FN, TP of shape (..., 4) to (...) by metric."""
    tn, fp, fn, tp = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    named = Counts(tn, fp, fn, tp, tn + fp, fn + tp)
    return {name: metric.of_counts(named) for name, metric in METRICS.items() if metric.of_counts}


def decision_metrics(labels: IntArray, logits: FloatArray) -> dict[str, FloatArray]:
    """Return :func:`count_metrics` for a threshold of 0: logits of shape (..., N) to (...)."""
    return count_metrics(confusion(labels, np.asarray(logits) > 0.0))


def evaluate_each(labels: IntArray, logits: FloatArray) -> dict[str, FloatArray]:
    """Return every metric of each run, logits of shape (R, N) to metrics of shape (R,)."""
    scores = np.asarray(logits, dtype=np.float64)
    counted = decision_metrics(labels, scores)
    return {
        name: np.array([m.of_scores(labels, row) for row in scores])
        if m.of_scores
        else counted[name]
        for name, m in METRICS.items()
    }


def evaluate(labels: IntArray, logits: FloatArray) -> dict[str, float]:
    """Return every metric of one run, logits of shape (N,)."""
    scores = evaluate_each(labels, np.asarray(logits)[np.newaxis])
    return {name: float(values[0]) for name, values in scores.items()}

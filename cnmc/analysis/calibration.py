"""Calibration of the probabilities, and ROC curves.

The loss weights ALL cells by the ratio of the classes, so the sigmoid of a logit is not a
calibrated probability: calibration is measured. ``labels`` are 0 or 1, shape (N,).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from cnmc.analysis.metrics import FloatArray, IntArray, sigmoid, weighted_bce

NUM_BINS = 10
TEMPERATURES = (0.01, 100.0)
"""Lowest and highest temperature of the search."""

_GRID = np.linspace(0.0, 1.0, 201)
_NEAR = 1e-12


def reliability(labels: IntArray, probs: FloatArray) -> pd.DataFrame:
    """Compare predicted probabilities of ALL, shape (N,), with the fraction of ALL cells in bins.

    Returns:
        One row a bin of equal width: low, high, num_cells, mean_probability and fraction (of ALL
        cells), NaN in an empty bin. A probability on an edge is in the bin above it.
    """
    edges = np.linspace(0.0, 1.0, NUM_BINS + 1)
    number = np.clip(np.searchsorted(edges, probs, side="right") - 1, 0, NUM_BINS - 1)
    cells = np.bincount(number, minlength=NUM_BINS)
    some = np.where(cells > 0, cells, np.nan)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "num_cells": cells,
            "mean_probability": np.bincount(number, probs, minlength=NUM_BINS) / some,
            "fraction": np.bincount(number, labels == 1, minlength=NUM_BINS) / some,
        }
    )


def expected_calibration_error(labels: IntArray, probs: FloatArray) -> float:
    """Return the expected calibration error: the mean gap between probability and fraction.

    Naeini et al. (2015), for the probability of ALL, over the bins of :func:`reliability`.
    """
    bins = reliability(labels, probs)
    gaps = (bins["mean_probability"] - bins["fraction"]).abs().fillna(0.0)
    return float((gaps * bins["num_cells"]).sum() / bins["num_cells"].sum())


def fit_temperature(labels: IntArray, logits: FloatArray) -> float:
    """Return the temperature with the lowest unweighted log loss; logits are divided by it.

    Guo et al. (2017). It changes no decision at a logit of 0.

    Returns:
        A number within :data:`TEMPERATURES`; NaN if one class is missing.
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    found = minimize_scalar(
        lambda log: weighted_bce(labels, logits / np.exp(log), 1.0),
        bounds=tuple(np.log(TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def probabilities(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return the probabilities of ALL."""
    return sigmoid(np.asarray(logits, dtype=np.float64) / temperature)


def roc_points(labels: IntArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return false and true positive rates for every threshold, from none to all called ALL.

    Both classes must be there; scores are any increasing score, shape (N,).
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    positives = np.cumsum(labels[order] == 1)[last]
    negatives = last + 1 - positives
    fpr, tpr = negatives / negatives[-1], positives / positives[-1]
    return np.append(0.0, fpr), np.append(0.0, tpr)


def _is_defined(labels: IntArray, scores: FloatArray) -> bool:
    return len(np.unique(labels)) == 2 and not np.isnan(scores).any()


def mean_roc(labels: IntArray, scores: FloatArray) -> pd.DataFrame:
    """Average ROC curves over runs, at equal false positive rates, from scores of shape (R, N).

    Returns:
        fpr, and of the true positive rate tpr_mean, tpr_low and tpr_high (the extremes over runs);
        no row where one class is missing.
    """
    names = ["fpr", "tpr_mean", "tpr_low", "tpr_high"]
    if not _is_defined(labels, scores):
        return pd.DataFrame(columns=pd.Index(names), dtype=float)
    curves = []
    for row in scores:
        fpr, tpr = roc_points(labels, row)
        # The highest true positive rate at no more than each false positive rate.
        curves.append(tpr[np.searchsorted(fpr, _GRID + _NEAR, side="right") - 1])
    values = (_GRID, np.mean(curves, axis=0), np.min(curves, axis=0), np.max(curves, axis=0))
    return pd.DataFrame(dict(zip(names, values, strict=True)))


def sensitivity_at(labels: IntArray, scores: FloatArray, specificity: float) -> float:
    """Return the highest sensitivity of a threshold with at least this specificity.

    All are fractions of 1; NaN where one class is missing.
    """
    if not _is_defined(labels, scores):
        return float("nan")
    fpr, tpr = roc_points(labels, scores)
    return float(tpr[fpr <= 1 - specificity + _NEAR].max())

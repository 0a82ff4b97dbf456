"""Calibration, ROC curves, and the choice of temperature and threshold.

The loss weights ALL cells by the ratio of the classes, so the sigmoid of a logit is not a
calibrated probability. ``labels`` are 0 (HEM) or 1 (ALL), ``scores`` any increasing score.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from cnmc.analysis.decision import PAPER_THRESHOLD, Decision, sigmoid
from cnmc.analysis.metrics import FloatArray, IntArray, count_metrics, mean_logits

NUM_BINS = 10
CHOOSING_ROLE = "val"
"""Role of the cells that choose the epoch, under both protocols."""
TEMPERATURES = (0.01, 100.0)
"""Lowest and highest temperature of the search."""
MAX_POINTS = 256
"""Largest number of thresholds that are stored."""

_GRID = np.linspace(0.0, 1.0, 201)
_NEAR = 1e-12


def reliability(labels: IntArray, probs: FloatArray) -> pd.DataFrame:
    """Compare predicted probabilities of ALL, shape (N,), with the fraction of ALL cells in bins.

    Columns, one row a bin of equal width: low, high, num_cells, mean_probability and fraction (of
    ALL cells), NaN in an empty bin. A probability on an edge is in the bin above it.
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
    """Return the mean gap between probability and fraction (ECE, Naeini et al. 2015)."""
    bins = reliability(labels, probs)
    gaps = (bins["mean_probability"] - bins["fraction"]).abs().fillna(0.0)
    return float((gaps * bins["num_cells"]).sum() / bins["num_cells"].sum())


def roc_points(labels: IntArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return false and true positive rates for every threshold, from none to all called ALL."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    positives = np.cumsum(labels[order] == 1)[last]
    negatives = last + 1 - positives
    fpr, tpr = negatives / negatives[-1], positives / positives[-1]
    return np.append(0.0, fpr), np.append(0.0, tpr)


def mean_roc(labels: IntArray, scores: FloatArray) -> pd.DataFrame:
    """Average ROC curves over runs, at equal false positive rates, from scores of shape (R, N).

    Columns: fpr, and of the true positive rate tpr_mean, tpr_low and tpr_high (the extremes over
    runs). There is no row if a class is missing.
    """
    names = ["fpr", "tpr_mean", "tpr_low", "tpr_high"]
    if len(np.unique(labels)) < 2 or np.isnan(scores).any():
        return pd.DataFrame(columns=pd.Index(names), dtype=float)
    curves = []
    for row in scores:
        fpr, tpr = roc_points(labels, row)
        # The highest true positive rate at no more than each false positive rate.
        curves.append(tpr[np.searchsorted(fpr, _GRID + _NEAR, side="right") - 1])
    values = (_GRID, np.mean(curves, axis=0), np.min(curves, axis=0), np.max(curves, axis=0))
    return pd.DataFrame(dict(zip(names, values, strict=True)))


def sensitivity_at(labels: IntArray, scores: FloatArray, specificity: float) -> float:
    """Return the highest sensitivity with at least this specificity; NaN if a class is missing."""
    if len(np.unique(labels)) < 2 or np.isnan(scores).any():
        return float("nan")
    fpr, tpr = roc_points(labels, scores)
    return float(tpr[fpr <= 1 - specificity + _NEAR].max())


def fit_temperature(labels: IntArray, logits: FloatArray) -> float:
    """Return the divisor of the logits, (N,), with the lowest log loss (Guo et al. 2017).

    The loss is not weighted. The result is in :data:`TEMPERATURES`, or NaN if a class is missing.
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    found = minimize_scalar(
        lambda log: _log_loss(labels, logits / np.exp(log)),
        bounds=tuple(np.log(TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _log_loss(labels: IntArray, logits: FloatArray) -> float:
    return float(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).mean())


def choose(labels: IntArray, logits: FloatArray, role: str) -> Decision:
    """Choose temperature and threshold by the mean logits of the cells of a role, shape (N,).

    They have the lowest log loss (the temperature is 1 if there is no minimum) and the highest
    weighted F1 (the nearest to the paper's among equals). The decision is the default one if a
    class is missing or a logit is not finite.
    """
    if len(np.unique(labels)) < 2 or not np.isfinite(logits).all():
        return Decision()
    fitted = fit_temperature(labels, logits)
    # If the classes are separated at 0, the loss falls to a bound of the search without a minimum,
    # and every new cell would get a probability of 0 or 1.
    loss, *at_bounds = (_log_loss(labels, logits / t) for t in (fitted, *TEMPERATURES))
    temperature = fitted if loss < min(at_bounds) else 1.0
    probs = sigmoid(logits / temperature)
    # Halfway between neighbours, so that the rounding of another runtime does not matter.
    edges = np.unique(np.concatenate([[0.0], probs, [1.0]]))
    thresholds = np.unique((edges[:-1] + edges[1:]) / 2)
    thresholds = thresholds[(thresholds > 0.0) & (thresholds < 1.0)]
    positive, negative = np.sort(probs[labels == 1]), np.sort(probs[labels == 0])
    missed = np.searchsorted(positive, thresholds)
    right = np.searchsorted(negative, thresholds)
    counts = np.stack([right, len(negative) - right, missed, len(positive) - missed], axis=-1)
    scores = count_metrics(counts)
    best = int(np.lexsort((np.abs(thresholds - PAPER_THRESHOLD), -scores["f1"]))[0])
    even = np.linspace(0, len(thresholds) - 1, min(len(thresholds), MAX_POINTS))
    kept = np.unique(np.append(np.rint(even).astype(int), best))
    points = np.stack([thresholds, scores["sensitivity"], scores["specificity"]], axis=-1)[kept]
    return Decision(
        temperature=temperature,
        threshold=float(thresholds[best]),
        chosen_on=role,
        num_cells=len(labels),
        points=tuple(tuple(point) for point in points.tolist()),
    )


def choose_of_epoch(predictions: pd.DataFrame | None, epoch: int) -> Decision:
    """Choose on the stored predictions of an epoch; the default decision if there are none."""
    if predictions is None:
        return Decision()
    of_epoch = predictions["epoch"] == epoch
    cells = predictions[of_epoch & (predictions["role"] == CHOOSING_ROLE)]
    return choose(cells["label"].to_numpy(dtype=np.int64), mean_logits(cells), CHOOSING_ROLE)

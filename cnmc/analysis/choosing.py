"""The choice of temperature and threshold on the cells that chose the epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnmc.analysis.calibration import TEMPERATURES, fit_temperature
from cnmc.analysis.decision import PAPER_THRESHOLD, Decision
from cnmc.analysis.metrics import FloatArray, IntArray, count_metrics, mean_logits, weighted_bce

CHOOSING_ROLE = "val"
"""Role of the cells that choose the epoch, under both protocols."""

MAX_POINTS = 256
"""Largest number of thresholds that are stored."""


def choose(labels: IntArray, logits: FloatArray, role: str) -> Decision:
    """Choose temperature and threshold on cells of a role with known class.

    Args:
        labels: 0 (HEM) or 1 (ALL), shape (N,).
        logits: Mean logits, shape (N,).
        role: Role of the cells.

    Returns:
        The temperature with the lowest log loss (1 if there is no minimum), and the threshold with
        the highest weighted F1, the nearest to the paper's among equals. The default decision if a
        class is missing or a logit is not finite.
    """
    if len(np.unique(labels)) < 2 or not np.isfinite(logits).all():
        return Decision()
    temperature = _temperature(labels, logits)
    probs = Decision(temperature=temperature).probabilities(logits)
    thresholds = _thresholds(probs)
    if len(thresholds) == 0:
        return Decision()
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


def _temperature(labels: IntArray, logits: FloatArray) -> float:
    """Return the temperature with the lowest log loss; 1 if the minimum is at a bound.

    If a logit of 0 separates the classes perfectly, the loss falls with the temperature without
    limit, and every new cell would get a probability of 0 or 1.
    """
    fitted = fit_temperature(labels, logits)
    loss, *at_bounds = (weighted_bce(labels, logits / t, 1.0) for t in (fitted, *TEMPERATURES))
    return fitted if loss < min(at_bounds) else 1.0


def _thresholds(probs: FloatArray) -> FloatArray:
    """Return thresholds in (0, 1) for all possible decisions, ascending.

    They are halfway between neighbours, so that the rounding of another runtime does not matter.
    """
    edges = np.unique(np.concatenate([[0.0], probs, [1.0]]))
    middles = (edges[:-1] + edges[1:]) / 2
    # Adjacent floats have no middle.
    middles = np.where(middles > edges[:-1], middles, edges[1:])
    found: FloatArray = np.unique(middles[(middles > 0.0) & (middles < 1.0)])
    return found

"""Chooses temperature and threshold on the cells that chose the epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cnmc.analysis.calibration import TEMPERATURES, fit_temperature
from cnmc.analysis.decision import PAPER_THRESHOLD, Decision
from cnmc.analysis.metrics import (
    FloatArray,
    IntArray,
    count_metrics,
    mean_logits,
    weighted_bce,
)

CHOOSING_ROLE = "val"
"""Role of the cells that choose the epoch, under both protocols."""

MAX_POINTS = 256
"""Of the thresholds that a network keeps with what they give."""


def choose(labels: IntArray, logits: FloatArray, role: str) -> Decision:
    """Choose temperature and threshold by cells whose class is known.

    Args:
        labels: 0 (HEM) or 1 (ALL), shape (N,).
        logits: Mean logits, shape (N,).
        role: Role of the cells.

    Returns:
        The temperature of the lowest log loss, 1 where the cells have none, and the threshold of
        the highest weighted F1, of equals the one nearest to the paper's; nothing chosen where a
        class is missing or a logit is no number.
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
    columns = (thresholds, scores["sensitivity"], scores["specificity"])
    rows = np.stack(columns, axis=-1)[kept].tolist()
    return Decision(
        temperature=temperature,
        threshold=float(thresholds[best]),
        chosen_on=role,
        num_cells=len(labels),
        points=tuple((threshold, sens, spec) for threshold, sens, spec in rows),
    )


def choose_of_epoch(predictions: pd.DataFrame | None, epoch: int) -> Decision:
    """Choose by the stored predictions of a run's epoch; nothing where there are none."""
    if predictions is None:
        return Decision()
    of_epoch = predictions["epoch"] == epoch
    cells = predictions[of_epoch & (predictions["role"] == CHOOSING_ROLE)]
    return choose(cells["label"].to_numpy(dtype=np.int64), mean_logits(cells), CHOOSING_ROLE)


def _temperature(labels: IntArray, logits: FloatArray) -> float:
    """Return the temperature of the lowest log loss, 1 where the loss falls up to a bound.

    Cells that a logit of 0 tells apart without a mistake are the likelier the lower the temperature
    is: they would make every new cell certain, and say nothing of how often it is called wrongly.
    """
    fitted = fit_temperature(labels, logits)
    loss, *at_bounds = (weighted_bce(labels, logits / t, 1.0) for t in (fitted, *TEMPERATURES))
    return fitted if loss < min(at_bounds) else 1.0


def _thresholds(probs: FloatArray) -> FloatArray:
    """Return what tells the cells apart in all possible ways, in (0, 1), ascending.

    They lie halfway between neighbours: another runtime, which rounds otherwise, decides alike.
    """
    edges = np.unique(np.concatenate([[0.0], probs, [1.0]]))
    middles = (edges[:-1] + edges[1:]) / 2
    # Between neighbours among the floats there is no middle.
    middles = np.where(middles > edges[:-1], middles, edges[1:])
    found: FloatArray = np.unique(middles[(middles > 0.0) & (middles < 1.0)])
    return found

"""The effect of averaging logits over runs (an ensemble) and over rotations."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import FloatArray, IntArray, aurocs, decision_metrics
from cnmc.analysis.results import Group

NUM_CHOICES = 50


def ensembles(labels: IntArray, logits: FloatArray) -> pd.DataFrame:
    """Score the mean logit of k runs, for k from 1 to all, from logits of shape (R, N).

    Returns:
        One row a k: k, num_choices (:data:`NUM_CHOICES` random subsets of k runs, or all if there
        are not more), and of F1 and AUROC mean, low and high (the middle 95 % of the choices), as
        fractions of 1.
    """
    rng = np.random.default_rng(0)
    rows = []
    for size in range(1, len(logits) + 1):
        chosen = _choices(len(logits), size, rng)
        means = (chosen @ logits) / size
        scores = {"f1": decision_metrics(labels, means)["f1"], "auroc": aurocs(labels, means)}
        row: dict[str, float] = {"k": size, "num_choices": len(chosen)}
        for name, values in scores.items():
            low, high = np.quantile(values, [0.025, 0.975])
            row |= {f"{name}_mean": values.mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _choices(number: int, size: int, rng: np.random.Generator) -> FloatArray:
    """Return subsets of ``size`` out of ``number`` as rows of zeros and ones."""
    if comb(number, size) <= NUM_CHOICES:
        subsets = [list(subset) for subset in combinations(range(number), size)]
    else:
        subsets = [list(rng.permutation(number)[:size]) for _ in range(NUM_CHOICES)]
    rows = np.zeros((len(subsets), number))
    np.put_along_axis(rows, np.array(subsets), 1.0, axis=1)
    return rows


def views(group: Group) -> pd.DataFrame:
    """Score the mean logit of so many of the stored rotations, from 1 to all.

    Returns:
        One row a number: num_views; mean and std over runs (ddof 0) of the F1 averaged over all
        choices of so many rotations; ``spaced``, the mean F1 of the equally spaced rotations that
        begin with the original orientation (``tta.num_rotations``), NaN where there are none.
    """
    stored = len(group.runs[0].reported.columns)
    subsets = [
        subset for size in range(1, stored + 1) for subset in combinations(range(stored), size)
    ]
    weights = np.zeros((stored, len(subsets)))
    for position, subset in enumerate(subsets):
        weights[list(subset), position] = 1 / len(subset)
    logits = (run.reported.at(run.best_epoch) @ weights for run in group.runs)
    f1 = np.stack([decision_metrics(group.labels, views.T)["f1"] for views in logits])
    sizes = np.array([len(subset) for subset in subsets])
    rows = []
    for size in range(1, stored + 1):
        by_run = f1[:, sizes == size].mean(axis=1)
        spaced = float("nan")
        if stored % size == 0:
            wanted = tuple(range(0, stored, stored // size))
            spaced = float(f1[:, subsets.index(wanted)].mean())
        row = {"num_views": size, "mean": by_run.mean(), "std": by_run.std(), "spaced": spaced}
        rows.append(row)
    return pd.DataFrame(rows)

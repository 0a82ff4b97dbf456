"""Comparing two groups of runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

FloatArray = npt.NDArray[np.floating]

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """How the runs of one group stand to those of another."""

    difference: float
    """Mean of the first less mean of the second."""
    superiority: float
    """Probability that a run of the first group beats one of the second, ties counted half."""
    p_value: float
    """Mann-Whitney U test, two-sided."""
    can_tell: bool
    """Whether so many runs can come below :data:`SIGNIFICANCE` at all: complete separation of
    groups of n and m runs has p = 2 / binomial(n + m, n)."""


def compare(first: FloatArray, second: FloatArray) -> Comparison:
    """Compare a metric over the runs of two groups.

    The paper's test (section 4.4) is one-sided; this one asks whether the groups differ at all,
    since whoever compares two settings does not know which is better.

    Args:
        first: One value a run, shape (N,), N at least 1.
        second: The same for the other group, shape (M,).
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    result = mannwhitneyu(a, b, alternative="two-sided")
    return Comparison(
        difference=float(a.mean() - b.mean()),
        superiority=float(result.statistic) / (len(a) * len(b)),
        p_value=float(result.pvalue),
        can_tell=2 / comb(len(a) + len(b), len(a)) <= SIGNIFICANCE,
    )

"""Tests between groups of runs, and intervals for their means.

Intervals have a confidence of 95 %. Functions that resample take a seed, so that they are
reproducible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest, mannwhitneyu, norm, wilcoxon
from scipy.stats import bootstrap as scipy_bootstrap

FloatArray = npt.NDArray[np.floating]
Interval = tuple[float, float]

SIGNIFICANCE = 0.05
CONFIDENCE = 0.95
POWER = 0.8
NUM_RESAMPLES = 4999
NOT_DEFINED: Interval = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Comparison:
    """A comparison of the runs of one group with those of another."""

    difference: float
    """Mean of the first minus mean of the second."""
    superiority: float
    """Probability that a run of the first group beats one of the second, ties counted half; of
    paired runs, that a run beats its own partner."""
    superiority_interval: Interval
    p_value: float
    """Two-sided: Mann-Whitney U test, or Wilcoxon's signed-rank test of paired runs. NaN where it
    is not defined."""
    p_less: float
    """The same test, one-sided: the first is lower. The paper's (section 4.4)."""
    can_tell: bool
    """Whether p < :data:`SIGNIFICANCE` is possible with this number of runs: complete separation of
    groups of n and m runs has p = 2 / binomial(n + m, n), of n pairs p = 2 / 2**n."""
    num_needed: float
    """Runs in each group (or pairs) that show a difference of this size with a probability of
    :data:`POWER`; infinite without a difference."""


def compare(first: FloatArray, second: FloatArray) -> Comparison:
    """Compare a metric over the runs of two groups.

    The paper's test (section 4.4) is one-sided. Use the two-sided one if it is not known which
    group should be better.

    Args:
        first: One value a run, shape (N,), N at least 1.
        second: The same for the other group, shape (M,).
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    difference = float(a.mean() - b.mean())
    can_tell = 2 / comb(len(a) + len(b), len(a)) <= SIGNIFICANCE
    if np.isnan(a).any() or np.isnan(b).any():
        return _undefined(difference, can_tell=can_tell)
    result = mannwhitneyu(a, b, alternative="two-sided")
    superiority = float(result.statistic) / (len(a) * len(b))
    return Comparison(
        difference=difference,
        superiority=superiority,
        superiority_interval=superiority_interval(superiority, len(a), len(b)),
        p_value=float(result.pvalue),
        p_less=float(mannwhitneyu(a, b, alternative="less").pvalue),
        can_tell=can_tell,
        num_needed=runs_needed(superiority),
    )


def compare_paired(first: FloatArray, second: FloatArray) -> Comparison:
    """Compare a metric over pairs of runs, such as two ways to evaluate the same checkpoints.

    Args:
        first: One value a pair, shape (N,), N at least 1.
        second: The same for the other of each pair, shape (N,).
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    # Rounded, so that equal gains are ties.
    gains = np.round(a - b, 12)
    difference = float(gains.mean())
    can_tell = 2 / 2 ** len(gains) <= SIGNIFICANCE
    if np.isnan(gains).any():
        return _undefined(difference, can_tell=can_tell)
    # Wilcoxon's test drops pairs without a difference, and is not defined if no other is left.
    moved = bool((gains != 0).any())
    wins = int((gains > 0).sum())
    losses = int((gains < 0).sum())
    superiority = (wins + (len(gains) - wins - losses) / 2) / len(gains)
    return Comparison(
        difference=difference,
        superiority=superiority,
        superiority_interval=proportion_interval(superiority * len(gains), len(gains)),
        p_value=float(wilcoxon(gains).pvalue) if moved else 1.0,
        p_less=float(wilcoxon(gains, alternative="less").pvalue) if moved else 1.0,
        can_tell=can_tell,
        num_needed=pairs_needed(gains),
    )


def _undefined(difference: float, *, can_tell: bool) -> Comparison:
    nan = float("nan")
    return Comparison(difference, nan, NOT_DEFINED, nan, nan, can_tell, nan)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's method (1979).

    Args:
        p_values: One a comparison; NaN is not counted and stays NaN.

    Returns:
        Corrected p-values in the same order.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    defined = np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]


def superiority_interval(superiority: float, num_first: int, num_second: int) -> Interval:
    """Return an interval for the probability that a run of one group beats one of another.

    Newcombe's (2006) fifth method: the values that lie within the normal quantile of the estimate,
    by the variance that Hanley and McNeil (1982) give an area under a curve. Unlike a bootstrap it
    has a width where the groups do not overlap.

    Args:
        superiority: Estimate, in [0, 1].
        num_first: Runs of the first group.
        num_second: Runs of the second.
    """
    if min(num_first, num_second) < 2:
        return NOT_DEFINED
    z = float(norm.ppf((1 + CONFIDENCE) / 2))
    more = (num_first + num_second) / 2 - 1

    def beyond(theta: float) -> float:
        spread = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        variance = theta * (1 - theta) * spread / (num_first * num_second)
        return (superiority - theta) ** 2 - z**2 * variance

    # The estimate itself is another root if it is 0 or 1.
    near = 1e-9
    low = high = superiority
    if superiority > 0.0:
        low = float(brentq(beyond, 0.0, superiority - near))
    if superiority < 1.0:
        high = float(brentq(beyond, superiority + near, 1.0))
    return low, high


def proportion_interval(successes: float, number: int) -> Interval:
    """Return Wilson's interval for a proportion; a tie may count half a success."""
    if number < 2:
        return NOT_DEFINED
    low = binomtest(int(np.floor(successes)), number).proportion_ci(CONFIDENCE, method="wilson").low
    high = (
        binomtest(int(np.ceil(successes)), number).proportion_ci(CONFIDENCE, method="wilson").high
    )
    return float(low), float(high)


def _quantiles() -> float:
    return float(norm.ppf(1 - SIGNIFICANCE / 2) + norm.ppf(POWER))


def runs_needed(superiority: float) -> float:
    """Return how many runs each group needs for the two-sided Mann-Whitney test.

    Noether (1987): with groups of equal size, ``(z + z')**2 / (6 (superiority - 1/2)**2)`` each,
    for a power of :data:`POWER` at :data:`SIGNIFICANCE`.
    """
    away = abs(superiority - 0.5)
    return float(np.ceil(_quantiles() ** 2 / (6 * away**2))) if away > 0 else float("inf")


def pairs_needed(gains: FloatArray) -> float:
    """Return how many pairs the two-sided signed-rank test needs for gains like these.

    Noether (1987): ``(z + z')**2 / (3 (p - 1/2)**2)``, where p is the probability that the sum of
    two gains is positive.

    Args:
        gains: One a pair, shape (N,).
    """
    if len(gains) < 2:
        return float("nan")
    rows, columns = np.triu_indices(len(gains), k=1)
    sums = gains[rows] + gains[columns]
    away = abs(float((sums > 0).mean() + (sums == 0).mean() / 2) - 0.5)
    return float(np.ceil(_quantiles() ** 2 / (3 * away**2))) if away > 0 else float("inf")


def mean_interval(values: FloatArray, *, seed: int = 0) -> Interval:
    """Return an interval for the mean over runs, by the bias-corrected, accelerated bootstrap.

    It covers other seeds on the same cells. It is not defined for one run, and has no width for
    equal runs.

    Args:
        values: One a run, shape (N,).
        seed: Of the resampling.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2 or np.isnan(values).any():
        return NOT_DEFINED
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    return _bootstrap((values,), np.mean, seed)


def difference_interval(first: FloatArray, second: FloatArray, *, seed: int = 0) -> Interval:
    """Return an interval for the difference of the means of two groups of runs.

    As :func:`mean_interval`; each group is resampled separately.

    Args:
        first: One value a run, shape (N,).
        second: The same for the other group, shape (M,).
        seed: Of the resampling.
    """
    if min(len(first), len(second)) < 2 or np.isnan(first).any() or np.isnan(second).any():
        return NOT_DEFINED
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return float(first[0] - second[0]), float(first[0] - second[0])

    def difference(a: FloatArray, b: FloatArray, axis: int = -1) -> FloatArray:
        return np.asarray(np.mean(a, axis=axis) - np.mean(b, axis=axis))

    return _bootstrap((first, second), difference, seed)


def _bootstrap(
    samples: tuple[FloatArray, ...], statistic: Callable[..., FloatArray], seed: int
) -> Interval:
    found = scipy_bootstrap(
        samples,
        statistic,
        confidence_level=CONFIDENCE,
        n_resamples=NUM_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)

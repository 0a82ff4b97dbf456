"""Tests between groups of runs, and 95 % intervals; resampling has a fixed seed."""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, mannwhitneyu, norm, wilcoxon

from cnmc.analysis.metrics import FloatArray

Interval = tuple[float, float]

SIGNIFICANCE, CONFIDENCE, POWER = 0.05, 0.95, 0.8
NUM_RESAMPLES = 4999
NOT_DEFINED: Interval = (float("nan"), float("nan"))


def compare(first: FloatArray, second: FloatArray, *, paired: bool = False) -> dict[str, float]:
    """Compare a metric over the runs of two groups, shape (N,) and (M,), or over pairs of runs.

    Keys: ``difference`` of the means; ``superiority``, the probability that a run of the first
    group beats one of the second (its partner), ties counted half, and its interval
    ``superiority_low`` to ``superiority_high``; ``p_two_sided`` and ``p_one_sided`` (the first is
    lower, section 4.4) of the Mann-Whitney U or the Wilcoxon signed-rank test; ``num_needed``, the
    runs in each group (or pairs) that show such a difference with a probability of :data:`POWER`;
    ``can_tell``, whether p < :data:`SIGNIFICANCE` is possible with so few runs.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    # Pairs are rounded, so that equal gains are ties.
    gains = np.round(a - b, 12) if paired else np.subtract.outer(a, b)
    found = {
        "difference": float(gains.mean() if paired else a.mean() - b.mean()),
        # The p-value of complete separation.
        "can_tell": 2 / (2 ** len(a) if paired else comb(len(a) + len(b), len(a))) <= SIGNIFICANCE,
    }
    if np.isnan(gains).any():
        names = ("superiority", "superiority_low", "superiority_high")
        return found | dict.fromkeys((*names, "p_two_sided", "p_one_sided", "num_needed"), np.nan)
    wins = (gains > 0).sum() + (gains == 0).sum() / 2
    superiority = float(wins / gains.size)
    if paired:
        low, high = proportion_interval(wins, len(gains))
    else:
        low, high = superiority_interval(superiority, len(a), len(b))
    for name, side in (("p_two_sided", "two-sided"), ("p_one_sided", "less")):
        if paired:
            found[name] = float(wilcoxon(gains, alternative=side).pvalue) if gains.any() else 1.0
        else:
            found[name] = float(mannwhitneyu(a, b, alternative=side).pvalue)
    return found | {
        "superiority": superiority,
        "superiority_low": low,
        "superiority_high": high,
        "num_needed": pairs_needed(gains) if paired else runs_needed(superiority),
    }


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Correct p-values for their number by Holm's method (1979); NaN is left out."""
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def superiority_interval(superiority: float, num_first: int, num_second: int) -> Interval:
    """Return an interval for the probability that a run of one group beats one of another.

    Newcombe's (2006) fifth method, with the variance of Hanley and McNeil (1982). Unlike a
    bootstrap it has a width where the groups do not overlap.
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
    low = brentq(beyond, 0.0, superiority - near) if superiority > 0.0 else 0.0
    high = brentq(beyond, superiority + near, 1.0) if superiority < 1.0 else 1.0
    return float(low), float(high)


def proportion_interval(successes: float, number: int) -> Interval:
    """Return Wilson's interval for a proportion; a tie may count half a success."""
    if number < 2:
        return NOT_DEFINED
    low, high = (
        binomtest(int(count), number).proportion_ci(CONFIDENCE, method="wilson")
        for count in (np.floor(successes), np.ceil(successes))
    )
    return float(low.low), float(high.high)


def runs_needed(superiority: float, factor: int = 6) -> float:
    """Return how many runs each group needs for the two-sided Mann-Whitney test.

    Noether (1987): ``(z + z')**2 / (factor (superiority - 1/2)**2)`` for groups of equal size.
    """
    quantiles = float(norm.ppf(1 - SIGNIFICANCE / 2) + norm.ppf(POWER))
    away = abs(superiority - 0.5)
    return float(np.ceil(quantiles**2 / (factor * away**2))) if away > 0 else float("inf")


def pairs_needed(gains: FloatArray) -> float:
    """Return how many pairs the two-sided signed-rank test needs for gains like these.

    As :func:`runs_needed`, by the probability that the sum of two gains is positive.
    """
    if len(gains) < 2:
        return float("nan")
    rows, columns = np.triu_indices(len(gains), k=1)
    sums = gains[rows] + gains[columns]
    return runs_needed(float((sums > 0).mean() + (sums == 0).mean() / 2), factor=3)


def mean_interval(values: FloatArray, minus: FloatArray | None = None) -> Interval:
    """Return an interval for the mean over runs, or (``minus``) the difference of two means.

    By the bias-corrected, accelerated bootstrap, for other seeds on the same cells; groups are
    resampled separately. It is not defined for one run, and has no width for equal runs.
    """
    samples = [np.asarray(part, dtype=np.float64) for part in (values, minus) if part is not None]
    if any(len(sample) < 2 or np.isnan(sample).any() for sample in samples):
        return NOT_DEFINED

    def difference(*parts: FloatArray, axis: int = -1) -> FloatArray:
        first, *others = (np.asarray(np.mean(part, axis=axis)) for part in parts)
        return first - others[0] if others else first

    if all(np.ptp(sample) == 0 for sample in samples):
        constant = float(difference(*(sample[:1] for sample in samples)))
        return constant, constant
    found = bootstrap(
        samples,
        difference,
        confidence_level=CONFIDENCE,
        n_resamples=NUM_RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)

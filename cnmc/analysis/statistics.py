"""Tests between groups of runs, and 95 % intervals."""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binomtest, mannwhitneyu, norm, wilcoxon
from scipy.stats import t as student

from cnmc.analysis.metrics import FloatArray

Interval = tuple[float, float]

SIGNIFICANCE, CONFIDENCE, POWER = 0.05, 0.95, 0.8
NOT_DEFINED: Interval = (float("nan"), float("nan"))


def compare(first: FloatArray, second: FloatArray, *, paired: bool = False) -> dict[str, float]:
    """Compare a metric over the runs of two groups, shape (N,) and (M,), or over pairs of runs.

    Keys: ``difference`` of the means; ``superiority``, the probability that a run of the first
    group beats one of the second (its partner), ties counted half, and its interval
    ``superiority_low`` to ``superiority_high``; ``p_two_sided`` and ``p_one_sided`` (the first is
    lower, section 4.4) of the Mann-Whitney U or the Wilcoxon signed-rank test; ``smallest``, see
    :func:`smallest_difference`; ``can_tell``, whether p < :data:`SIGNIFICANCE` is possible with so
    few runs.
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
        return found | dict.fromkeys((*names, "p_two_sided", "p_one_sided", "smallest"), np.nan)
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
        "smallest": smallest_difference(gains) if paired else smallest_difference(a, b),
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


def mean_interval(values: FloatArray, minus: FloatArray | None = None) -> Interval:
    """Return Student's interval of a mean over runs, or Welch's of a difference of two means.

    It holds for other seeds on the same cells and is not defined for one run. ``minus`` has the
    values of the group whose mean is subtracted.
    """
    error, dof = _error(values, minus)
    half = float(student.ppf((1 + CONFIDENCE) / 2, dof)) * error
    mean = float(np.mean(values)) - (0.0 if minus is None else float(np.mean(minus)))
    return mean - half, mean + half


def smallest_difference(values: FloatArray, minus: FloatArray | None = None) -> float:
    """Return the difference that so many runs show by the t-test with probability :data:`POWER`.

    ``values`` are the gains of pairs, or one group of runs, and ``minus`` the other.
    """
    error, dof = _error(values, minus)
    return float(student.ppf([1 - SIGNIFICANCE / 2, POWER], dof).sum()) * error


def _error(values: FloatArray, minus: FloatArray | None) -> tuple[float, float]:
    """Return the standard error of a mean or difference, and its degrees of freedom (Welch)."""
    samples = [np.asarray(part, dtype=np.float64) for part in (values, minus) if part is not None]
    if min(map(len, samples)) < 2:
        return float("nan"), 1.0
    parts = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    dofs = np.array([len(sample) - 1 for sample in samples])
    spread = float((parts**2 / dofs).sum())
    return float(parts.sum() ** 0.5), float(parts.sum() ** 2 / spread) if spread > 0 else 1.0


def std(values: FloatArray) -> float:
    """Return the population standard deviation (ddof 0), as in the paper; NaN for one run."""
    return float(np.std(values)) if len(values) > 1 else float("nan")

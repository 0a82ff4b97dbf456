"""Bootstrap intervals over other subjects and other seeds.

Cells of one subject are not independent, so subjects are resampled, not cells, and within each
class, because the numbers of patients and controls were fixed by the collectors. Seeds are
resampled independently (Owen 2007, "The pigeonhole bootstrap").
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from cnmc.analysis.metrics import METRICS, FloatArray, IntArray, confusion, count_metrics
from cnmc.analysis.statistics import CONFIDENCE, NOT_DEFINED, Interval

NUM_RESAMPLES = 2000


def strata_of(labels: IntArray, subjects: IntArray) -> IntArray:
    """Return the stratum of each subject: 1 has only HEM cells, 2 only ALL, 3 both; shape (S,)."""
    strata = np.zeros(int(subjects.max()) + 1, dtype=np.int64)
    np.bitwise_or.at(strata, subjects, np.where(labels == 1, 2, 1))
    return strata


def draw_weights(strata: IntArray, rng: np.random.Generator, number: int) -> FloatArray:
    """Draw the weight of each member of a sample in each resample, shape (number, S).

    In each stratum of n >= 2 members, n - 1 are drawn with weight n / (n - 1), which gives a mean
    its right variance (Rao and Wu 1988); n draws of few members give too little.
    """
    weights = np.zeros((number, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        drawn = len(members) - 1
        share = np.full(len(members), 1 / len(members))
        times = rng.multinomial(drawn, share, size=number)
        weights[:, members] = times * (len(members) / drawn)
    return weights


def pair_wins(labels: IntArray, logits: FloatArray, subjects: IntArray) -> FloatArray:
    """Count, by pairs of subjects (S, S), the pairs of an ALL and a HEM cell in the right order.

    The cells of the first subject are ALL, of the second HEM; a tie counts half.
    """
    num_subjects = int(subjects.max()) + 1
    wins = np.zeros((num_subjects, num_subjects))
    positive = labels == 1
    scores, owners = logits[positive], subjects[positive]
    for other in range(num_subjects):
        negatives = np.sort(logits[~positive & (subjects == other)])
        below = np.searchsorted(negatives, scores, side="left")
        upto = np.searchsorted(negatives, scores, side="right")
        wins[:, other] = np.bincount(owners, (below + upto) / 2, minlength=num_subjects)
    return wins


class SubjectBootstrap:
    """B resamples of the subjects of a set of cells, the same for every group of runs on them.

    ``labels`` and ``subjects``, the number of each cell's subject from 0, have shape (N,).
    """

    def __init__(
        self, labels: IntArray, subjects: IntArray, *, number: int = NUM_RESAMPLES, seed: int = 0
    ) -> None:
        self.labels, self.subjects, self.number, self.seed = labels, subjects, number, seed
        strata = strata_of(labels, subjects)
        fewest = int(np.unique(strata, return_counts=True)[1].min())
        # No interval is defined if a class has only one subject.
        self._defined = fewest > 1
        # With few subjects percentiles are too narrow; Student's quantile widens them as it does
        # the interval of a mean (Hesterberg 2015, "What teachers should know about the bootstrap").
        self._tail = float(norm.cdf(student.ppf((1 - CONFIDENCE) / 2, max(fewest - 1, 1))))
        rng = np.random.default_rng(seed)
        self.weights = (
            draw_weights(strata, rng, number) if self._defined else np.ones((number, len(strata)))
        )

    def metrics(self, logits: FloatArray) -> dict[str, FloatArray]:
        """Return the metrics of counts of each run in each resample, (R, N) to (B, R)."""
        counts = confusion(self.labels, logits > 0.0, self.subjects)
        return count_metrics(np.einsum("bs,rsc->brc", self.weights, counts, optimize=True))

    def all_metrics(self, logits: FloatArray) -> dict[str, FloatArray]:
        """Return :meth:`metrics` and :meth:`auroc`; any other metric of scores is NaN."""
        undefined = np.full((self.number, len(logits)), np.nan)
        found = {**self.metrics(logits), "auroc": self.auroc(logits)}
        return dict.fromkeys(METRICS, undefined) | found

    def auroc(self, logits: FloatArray) -> FloatArray:
        """Return the AUROC of each run in each resample, (R, N) to (B, R)."""
        cells = confusion(self.labels, np.ones((1, len(self.labels)), dtype=bool), self.subjects)[0]
        pairs = (self.weights @ cells[:, 3]) * (self.weights @ cells[:, 1])
        pairs[pairs == 0] = np.nan
        columns = []
        for row in logits:
            wins = pair_wins(self.labels, row, self.subjects)
            columns.append(np.einsum("bi,bi->b", self.weights @ wins, self.weights) / pairs)
        return np.stack(columns, axis=1)

    def interval(self, resampled: FloatArray, minus: FloatArray | None = None) -> Interval:
        """Return the interval of the mean over runs, for other seeds and other subjects.

        ``resampled`` is a metric by resample and run, (B, R). The mean of ``minus``, (B, Q), is
        subtracted; pairs of runs are subtracted beforehand.
        """
        means = self._means(resampled, self.seed + 1)
        if minus is not None:
            means = means - self._means(minus, self.seed + 2)
        return self.interval_of_run(means)

    def interval_of_run(self, resampled: FloatArray) -> Interval:
        """Return the interval of one run, for other subjects, from its metric, shape (B,)."""
        if not self._defined or np.isnan(resampled).any():
            return NOT_DEFINED
        low, high = np.quantile(resampled, [self._tail, 1 - self._tail])
        return float(low), float(high)

    def _means(self, resampled: FloatArray, seed: int) -> FloatArray:
        runs = np.zeros(resampled.shape[1], dtype=np.int64)
        if len(runs) < 2:
            return np.full(self.number, np.nan)
        seeds = draw_weights(runs, np.random.default_rng(seed), self.number)
        means: FloatArray = (resampled * seeds).sum(axis=1) / seeds.sum(axis=1)
        return means

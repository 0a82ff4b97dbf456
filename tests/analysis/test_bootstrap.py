"""Resampling subjects: against counting by hand, scipy, and by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cnmc.analysis.bootstrap import SubjectBootstrap, draw_weights, pair_wins, strata_of
from cnmc.analysis.metrics import auroc, confusion, count_metrics, evaluate

LABELS = np.array([1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
SUBJECTS = np.array([0, 0, 1, 2, 2, 3, 4, 4, 3, 1])
Array = np.ndarray[Any, np.dtype[Any]]


def test_strata_tell_which_classes_a_subject_has() -> None:
    assert strata_of(LABELS, SUBJECTS).tolist() == [2, 2, 1, 1, 3]


def test_weights_keep_the_size_of_each_stratum_and_the_variance_of_its_mean() -> None:
    strata = np.array([1] * 5 + [2] * 8)
    values = np.random.default_rng(0).normal(size=13)
    weights = draw_weights(strata, np.random.default_rng(1), 20_000)
    assert weights[:, :5].sum(axis=1) == pytest.approx(5)
    assert weights[:, 5:].sum(axis=1) == pytest.approx(8)
    for members in (slice(0, 5), slice(5, 13)):
        sample = values[members]
        means = (weights[:, members] @ sample) / len(sample)
        assert means.var() == pytest.approx(sample.var(ddof=1) / len(sample), rel=0.05)


@given(seed=st.integers(0, 1000))
def test_a_resample_is_scored_like_the_cells_that_it_stands_for(seed: int) -> None:
    """Metrics of weighted counts are those of a set in which the cells stand so many times."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 18), [0, 1])
    subjects = np.append(rng.integers(0, 4, 18), [0, 0])
    logits = rng.integers(-2, 3, 20).astype(float)
    bootstrap = SubjectBootstrap(labels, subjects, number=3, seed=seed)
    times = rng.integers(0, 3, (3, subjects.max() + 1))
    times[:, 0] = 1
    bootstrap.weights = times.astype(float)
    metrics, areas = bootstrap.metrics(logits[None]), bootstrap.auroc(logits[None])
    for row, weights in enumerate(times):
        index = np.repeat(np.arange(20), weights[subjects])
        expected = evaluate(labels[index], logits[index])
        got = {name: values[row, 0] for name, values in metrics.items()}
        assert {**got, "auroc": areas[row, 0]} == pytest.approx(expected, nan_ok=True)


def test_pairs_won_add_up_to_the_auroc() -> None:
    logits = np.array([1.0, -1, 2, 0, 1, -2, 0.5, 0.5, -1, 3])
    wins = pair_wins(LABELS, logits, SUBJECTS)
    assert wins.sum() / 25 == pytest.approx(auroc(LABELS, logits))


def test_subjects_of_one_cell_each_and_equal_runs_are_an_ordinary_bootstrap() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 100)
    logits = np.where(rng.random(200) < 0.8, 1.0, -1.0) * (2 * labels - 1)
    bootstrap = SubjectBootstrap(labels, np.arange(200), seed=1)
    got = bootstrap.interval(bootstrap.metrics(np.stack([logits] * 3))["sensitivity"])
    right = (logits[labels == 1] > 0).astype(float)
    expected = stats.bootstrap(
        (right,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert got == pytest.approx((expected.low, expected.high), abs=0.015)


@pytest.mark.parametrize(
    ("labels", "subjects", "num_runs"),
    [
        ([1, 1, 0, 0], [0, 0, 1, 1], 5),  # one subject a class
        ([1, 1, 0, 0], [0, 1, 2, 2], 5),  # one HEM subject
        ([1, 1, 0, 0], [0, 1, 2, 3], 1),  # one run
    ],
)
def test_one_subject_of_a_class_or_one_run_defines_no_interval(
    labels: list[int], subjects: list[int], num_runs: int
) -> None:
    bootstrap = SubjectBootstrap(np.array(labels), np.array(subjects))
    logits = np.ones((num_runs, 4))
    assert np.isnan(bootstrap.interval(bootstrap.metrics(logits)["f1"])).all()
    assert np.isnan(bootstrap.interval(bootstrap.auroc(logits))).all()


@pytest.mark.filterwarnings("error")
def test_a_class_without_cells_defines_nothing() -> None:
    bootstrap = SubjectBootstrap(np.ones(6, dtype=int), np.repeat([0, 1, 2], 2))
    logits = np.random.default_rng(0).normal(size=(4, 6))
    assert np.isnan(bootstrap.interval(bootstrap.auroc(logits))).all()
    assert np.isnan(bootstrap.interval(bootstrap.metrics(logits)["specificity"])).all()
    assert not np.isnan(bootstrap.interval(bootstrap.metrics(logits)["sensitivity"])).any()


def test_constant_predictions_have_intervals_without_width() -> None:
    labels, subjects = np.repeat([0, 1], 6), np.repeat(np.arange(6), 2)
    bootstrap = SubjectBootstrap(labels, subjects)
    logits = np.ones((3, 12))
    assert bootstrap.interval(bootstrap.metrics(logits)["sensitivity"]) == (1.0, 1.0)
    assert bootstrap.interval(bootstrap.auroc(logits)) == pytest.approx((0.5, 0.5))


def test_paired_groups_differ_by_less_than_unpaired_ones() -> None:
    """Noise that two views of the same runs share is not counted as a difference."""
    rng = np.random.default_rng(3)
    labels, subjects = np.repeat([0, 1], 60), np.repeat(np.arange(12), 10)
    shared = (2 * labels - 1) + rng.normal(0, 1, 12)[subjects]
    first = shared + rng.normal(0, 0.7, (8, 1)) + rng.normal(0, 0.1, (8, 120))
    second = first + rng.normal(0, 0.1, (8, 120))
    bootstrap = SubjectBootstrap(labels, subjects)
    a, b = (bootstrap.metrics(logits)["f1"] for logits in (first, second))
    paired, apart = bootstrap.interval(a - b), bootstrap.interval(a, b)
    assert paired[1] - paired[0] < apart[1] - apart[0]


def _draw(rng: np.random.Generator, sizes: Array, num_runs: int) -> tuple[Array, Array, Array]:
    """Draw patients, seeds and their logits: half of the subjects HEM, half ALL."""
    subjects = np.repeat(np.arange(len(sizes)), sizes)
    labels = (subjects >= len(sizes) // 2).astype(int)
    logits = (
        1.2 * (2 * labels - 1)
        + 0.3
        + rng.normal(0, 0.8, len(sizes))[subjects]
        + rng.normal(0, 0.2, (num_runs, 1))
        + rng.normal(0, 0.3, (num_runs, len(sizes)))[:, subjects]
        + rng.normal(0, 0.7, len(labels))
        + rng.normal(0, 0.7, (num_runs, len(labels)))
    )
    return labels, subjects, logits


@pytest.mark.slow
@pytest.mark.parametrize(("num_subjects", "num_runs"), [(28, 24), (12, 8)])
def test_the_interval_over_subjects_covers_what_other_patients_show(
    num_subjects: int, num_runs: int
) -> None:
    """Near 95 % for F1, while the interval over seeds alone covers far less.

    The truth is known in closed form: a subject's cells are right with the probability that the sum
    of all normal effects has the right sign.
    """
    sizes = np.random.default_rng(5).integers(10, 120, num_subjects)
    positives = sizes[num_subjects // 2 :].sum()
    negatives = sizes[: num_subjects // 2].sum()
    spread = np.sqrt(0.8**2 + 0.3**2 + 2 * 0.7**2)
    seeds = 0.2 * stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    tp = positives * stats.norm.cdf((1.5 + seeds) / spread)
    fp = negatives * stats.norm.cdf((-0.9 + seeds) / spread)
    truth = count_metrics(np.stack([negatives - fp, fp, positives - tp, tp], axis=-1))["f1"].mean()
    hits = seeds_alone = 0
    for draw in range(100):
        labels, subjects, logits = _draw(np.random.default_rng(draw), sizes, num_runs)
        bootstrap = SubjectBootstrap(labels, subjects, number=500, seed=draw)
        low, high = bootstrap.interval(bootstrap.metrics(logits)["f1"])
        hits += low <= truth <= high
        f1 = count_metrics(confusion(labels, logits > 0))["f1"]
        half = 1.96 * f1.std(ddof=1) / np.sqrt(num_runs)
        seeds_alone += abs(f1.mean() - truth) <= half
    assert hits / 100 >= 0.9
    assert seeds_alone / 100 < 0.6

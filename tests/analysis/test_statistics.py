"""Comparisons and intervals, against scipy, by counting and by simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnmc.analysis.statistics import (
    compare,
    holm,
    mean_interval,
    proportion_interval,
    smallest_difference,
    superiority_interval,
)

STEPS = st.integers(0, 20).map(lambda n: n / 20)
VALUES = st.lists(STEPS, min_size=1, max_size=12)
# Few, as scipy goes through all permutations of pairs with ties.
PAIRS = st.lists(st.tuples(STEPS, STEPS), min_size=1, max_size=7)


@given(first=VALUES, second=VALUES)
def test_superiority_is_the_share_of_pairs_that_the_first_wins(
    first: list[float], second: list[float]
) -> None:
    found = compare(np.array(first), np.array(second))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second]
    assert found["superiority"] == pytest.approx(np.mean(wins))
    assert found["difference"] == pytest.approx(np.mean(first) - np.mean(second))
    expected = stats.mannwhitneyu(first, second, alternative="two-sided").pvalue
    assert found["p_two_sided"] == pytest.approx(expected)
    one_sided = stats.mannwhitneyu(first, second, alternative="less").pvalue
    assert found["p_one_sided"] == pytest.approx(one_sided)


@settings(max_examples=25, deadline=None)
@given(pairs=PAIRS)
def test_pairs_are_compared_as_scipy_does(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    found = compare(a, b, paired=True)
    # In twentieths, so that equal gains are equal.
    gains = np.rint(20 * (a - b))
    assert found["superiority"] == pytest.approx(np.mean(np.sign(gains) / 2 + 0.5))
    if gains.any():
        assert found["p_two_sided"] == pytest.approx(stats.wilcoxon(gains).pvalue)
        assert found["p_one_sided"] == pytest.approx(
            stats.wilcoxon(gains, alternative="less").pvalue
        )
    else:
        assert found["p_two_sided"] == found["p_one_sided"] == 1.0


def test_complete_separation_of_two_times_24_runs_is_no_chance() -> None:
    a, b = np.linspace(0.87, 0.88, 24), np.linspace(0.85, 0.86, 24)
    found = compare(a, b)
    assert found["superiority"] == 1.0
    assert found["p_two_sided"] < 1e-6
    assert compare(b, a)["superiority"] == 0.0
    assert compare(b, a)["p_one_sided"] < 1e-6
    low, high = found["superiority_low"], found["superiority_high"]
    assert 0.85 < low < 0.95
    assert high == 1.0


def test_what_so_few_runs_can_show_is_scipys_p_of_complete_separation() -> None:
    for n, m in ((3, 3), (4, 4), (2, 10), (1, 24)):
        found = compare(np.arange(n) + 100.0, np.arange(m, dtype=float))
        assert found["can_tell"] == (found["p_two_sided"] <= 0.05)
    for n in (1, 4, 5, 6, 9):
        found = compare(np.arange(n) + 100.0, np.arange(n) / 3, paired=True)
        assert found["can_tell"] == (found["p_two_sided"] <= 0.05)


@pytest.mark.parametrize("paired", [False, True])
def test_a_metric_that_is_not_defined_compares_as_nothing(paired: bool) -> None:
    found = compare(np.array([0.5, np.nan]), np.array([0.5, 0.6]), paired=paired)
    assert all(np.isnan(value) for name, value in found.items() if name != "can_tell")


def test_one_run_against_one_has_no_interval() -> None:
    found = compare(np.array([0.9]), np.array([0.8]))
    assert found["p_two_sided"] == 1.0
    assert np.isnan([found["superiority_low"], found["superiority_high"]]).all()
    assert np.isnan(mean_interval(np.array([0.9]))).all()


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_as_the_closed_bonferroni_tests_do(p_values: list[float]) -> None:
    """A hypothesis falls when every intersection that it is in falls by Bonferroni."""
    n = len(p_values)
    for index, corrected in enumerate(holm(p_values)):
        levels = [
            min(1.0, len(subset) * min(p_values[i] for i in subset))
            for size in range(1, n + 1)
            for subset in combinations(range(n), size)
            if index in subset
        ]
        assert corrected == pytest.approx(max(levels))


def test_holm_leaves_out_what_is_no_comparison() -> None:
    corrected = holm([0.04, float("nan"), 0.01])
    assert corrected[0] == pytest.approx(0.04)
    assert np.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.02)


def test_intervals_of_means_are_students_and_welchs() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.88, 0.009, 24), rng.normal(0.87, 0.005, 20)
    student = stats.t.interval(0.95, 23, a.mean(), stats.sem(a))
    assert mean_interval(a) == pytest.approx(student)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert mean_interval(a, b) == pytest.approx((welch.low, welch.high))
    assert np.isnan(mean_interval(a, b[:1])).all()


@pytest.mark.filterwarnings("error")
def test_runs_that_are_all_equal_have_an_interval_without_width() -> None:
    assert mean_interval(np.full(5, 0.75)) == (0.75, 0.75)
    assert mean_interval(np.full(3, 0.5), np.full(4, 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize("num_runs", [3, 8, 24])
def test_the_interval_of_a_mean_covers_the_truth(num_runs: int) -> None:
    values = np.random.default_rng(7).normal(0.87, 0.009, (500, num_runs))
    hits = [low <= 0.87 <= high for low, high in map(mean_interval, values)]
    assert 0.92 <= np.mean(hits) <= 0.98


@given(wins=st.integers(0, 30), more=st.integers(0, 30))
def test_wilsons_interval_is_scipys(wins: int, more: int) -> None:
    number = wins + more
    if number < 2:
        assert np.isnan(proportion_interval(wins, number)).all()
        return
    expected = stats.binomtest(wins, number).proportion_ci(method="wilson")
    assert proportion_interval(wins, number) == pytest.approx((expected.low, expected.high))


@settings(max_examples=30)
@given(
    superiority=st.integers(0, 40).map(lambda n: n / 40), n=st.integers(2, 30), m=st.integers(2, 30)
)
def test_an_interval_of_superiority_holds_its_estimate(superiority: float, n: int, m: int) -> None:
    low, high = superiority_interval(superiority, n, m)
    assert 0.0 <= low <= superiority <= high <= 1.0
    mirrored = superiority_interval(1 - superiority, n, m)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_an_interval_of_superiority_covers_the_truth(shift: float) -> None:
    rng = np.random.default_rng(3)
    truth = stats.norm.cdf(shift / np.sqrt(2))
    hits = 0
    for _ in range(250):
        found = compare(rng.normal(shift, 1, 12), rng.normal(0, 1, 12))
        low, high = found["superiority_low"], found["superiority_high"]
        hits += low <= truth <= high
    assert 0.92 <= hits / 250 <= 0.99


def test_the_smallest_difference_is_seen_four_times_in_five() -> None:
    """By simulation: the t-test at the smallest difference of so many runs, on average."""
    pairs = np.random.default_rng(4).normal(0, 1, (400, 2, 24))
    smallest = np.mean([smallest_difference(a, b) for a, b in pairs])
    seen = [stats.ttest_ind(a + smallest, b).pvalue <= 0.05 for a, b in pairs]
    assert 0.74 <= np.mean(seen) <= 0.86
    assert np.isnan(smallest_difference(pairs[0, 0, :1], pairs[0, 1]))


def test_a_known_difference_is_found_and_none_is_not_at_the_stated_rates() -> None:
    """24 runs with the paper's spread of 0.9 points: 1 point apart, and not at all."""
    rng = np.random.default_rng(5)
    false, true = [], []
    for _ in range(150):
        reference = rng.normal(87.9, 0.9, 24)
        same, worse = rng.normal(87.9, 0.9, 24), rng.normal(86.9, 0.9, 24)
        p = [compare(group, reference)["p_two_sided"] for group in (same, worse)]
        corrected = holm(p)
        false.append(corrected[0] <= 0.05)
        true.append(corrected[1] <= 0.05)
    assert np.mean(false) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)
    assert np.mean(true) >= 0.85

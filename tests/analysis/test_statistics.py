"""Comparisons of groups of runs, against scipy and by counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from cnmc.analysis.statistics import compare

VALUES = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=12)


@given(first=VALUES, second=VALUES)
def test_superiority_is_the_share_of_pairs_that_the_first_wins(
    first: list[float], second: list[float]
) -> None:
    found = compare(np.array(first), np.array(second))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second]
    assert found.superiority == pytest.approx(np.mean(wins))
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    expected = mannwhitneyu(first, second, alternative="two-sided").pvalue
    assert found.p_value == pytest.approx(expected)


def test_complete_separation_of_two_times_24_runs_is_no_chance() -> None:
    a, b = np.linspace(0.87, 0.88, 24), np.linspace(0.85, 0.86, 24)
    found = compare(a, b)
    assert found.superiority == 1.0
    assert found.p_value < 1e-6
    assert compare(b, a).superiority == 0.0


def test_what_so_few_runs_can_show_is_scipys_p_of_complete_separation() -> None:
    for n, m in ((3, 3), (4, 4), (2, 10), (1, 24)):
        found = compare(np.arange(n) + 100.0, np.arange(m, dtype=float))
        assert found.can_tell == (found.p_value <= 0.05)

"""Measurements in turns, their table and the forecast."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cnmc.benchmarking.forecast import EVALUATION, TRAINING, forecast, hours
from cnmc.benchmarking.measure import Comparison, Row, compare, compare_all, table, timed
from cnmc.errors import CnmcError


def test_the_ratio_is_the_median_over_pairs_measured_in_turns() -> None:
    """A machine that slows down in between changes the rates, but not the ratio."""
    order: list[str] = []
    speed: Iterator[float] = iter([9.0, 9.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0])

    def side(name: str, times: float) -> float:
        order.append(name)
        return times * next(speed)

    comparison = Comparison("n", "u", lambda: side("baseline", 1), lambda: side("ours", 3))
    row = compare("data", comparison, 3)
    assert order == ["baseline", "ours"] * 4
    # The first pair warms up and does not count.
    assert (row.baseline, row.ours, row.ratio, row.spread) == (2.0, 6.0, 3.0, 0.0)


def test_the_spread_is_half_the_range_of_the_ratios() -> None:
    ours = iter([1.0, 2.0, 3.0, 5.0])
    row = compare("s", Comparison("n", "u", lambda: 1.0, lambda: next(ours)), 3)
    assert (row.ratio, row.spread) == (3.0, 1.5)


def test_work_is_repeated_until_it_took_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is waited for before the clock is read."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += 1.0

    def wait() -> None:
        now[0] += 2.0

    assert timed(work, 10, at_least=3.0, wait=wait)() == 30 / 5
    assert timed(work, 10, at_least=0.0)() == 10


def test_a_comparison_that_fails_is_omitted(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> float:
        raise CnmcError("the card is full")

    given = Row("data", "bytes", "MB", 8.0, 2.0, 4.0)
    one = Comparison("one", "u", lambda: 1.0, lambda: 2.0)
    rows = compare_all("train", [Comparison("several", "u", lambda: 1.0, fails), one, given], 1)
    assert [(row.name, row.ratio) for row in rows] == [("one", 2.0), ("bytes", 4.0)]
    assert "the card is full" in capsys.readouterr().err


def test_the_table_has_one_line_for_each_row() -> None:
    rows = [Row("data", "what", "MB", 8.64, 0.27, 32.0), Row("eval", "x", "u", 1, 2000, 2.0, 0.5)]
    head, first, second = table(rows).splitlines()
    assert head.split() == ["stage", "what", "unit", "baseline", "ours", "ratio"]
    assert first.split() == ["data", "what", "MB", "8.64", "0.27", "32.00"]
    assert second.split() == ["eval", "x", "u", "1", "2,000", "2.00", "±", "0.50"]


def test_the_forecast_counts_the_papers_cells() -> None:
    # 6 x 10,661 images and 7 x 1,867 cells, 24 times.
    images, cells = 10_661 * 6 / 3600, 7 * 1867 / 3600
    assert hours(images, cells) == pytest.approx(48)
    rows = [
        Row("train", TRAINING, "images/s", 1, images, 1),
        Row("eval", EVALUATION, "cells/s", 1, cells, 1),
    ]
    assert "48.0 hours" in forecast(rows, "net")
    assert "hours" not in forecast(rows[:1], "net")

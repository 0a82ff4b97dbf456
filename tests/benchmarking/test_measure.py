"""Timing in turns, what is made of it, and how it is told."""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cnmc.benchmarking.forecast import (
    FAST,
    FAST_CELLS,
    PAPER,
    PAPER_CELLS,
    at_once,
    forecast,
    hours,
)
from cnmc.benchmarking.measure import Comparison, Row, compare, compare_all, counted, timed
from cnmc.benchmarking.memory import watched
from cnmc.benchmarking.table import table
from cnmc.errors import CnmcError


def test_the_ratio_is_the_median_over_pairs_measured_in_turns() -> None:
    """A machine that becomes four times slower in between changes the rates, not the ratio."""
    order: list[str] = []
    speed: Iterator[float] = iter([9.0, 9.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0])

    def side(name: str, times: float) -> float:
        order.append(name)
        return times * next(speed)

    ticks: list[None] = []
    row = compare(
        Comparison("data", "n", "u", lambda: side("baseline", 1), lambda: side("ours", 3)),
        3,
        lambda: ticks.append(None),
    )
    assert order == ["baseline", "ours"] * 4
    assert len(ticks) == 8
    # The first pair warms up and does not count.
    assert (row.baseline, row.ours, row.ratio, row.spread) == (2.0, 6.0, 3.0, 0.0)


def test_the_spread_is_half_the_range_of_the_ratios() -> None:
    ours = iter([1.0, 2.0, 3.0, 5.0])
    row = compare(Comparison("s", "n", "u", lambda: 1.0, lambda: next(ours)), 3, lambda: None)
    assert (row.ratio, row.spread) == (3.0, 1.5)


def test_quick_work_is_repeated_until_it_took_long_enough() -> None:
    calls: list[None] = []
    rate = timed(lambda: calls.append(None), 5, at_least=0.05)()
    assert len(calls) > 10
    assert rate <= 5 * len(calls) / 0.05


def test_less_is_better_of_what_is_counted() -> None:
    assert counted("data", "bytes", "MB", baseline=8.0, ours=2.0).ratio == 4.0


def test_each_comparison_is_a_row_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = compare_all(
        [Comparison("data", name, "u", lambda: 2.0, lambda: 4.0) for name in "ab"], 1
    )
    assert [(row.name, row.ratio) for row in rows] == [("a", 2.0), ("b", 2.0)]
    told = capsys.readouterr().err
    assert "data: a: " in told
    assert "data: b: " in told


def test_what_cannot_be_done_here_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> float:
        raise CnmcError("the card is full [4]")

    rows = compare_all(
        [
            Comparison("train", "several", "u", lambda: 1.0, fails),
            Comparison("train", "one", "u", lambda: 1.0, lambda: 2.0),
        ],
        1,
    )
    assert [row.name for row in rows] == ["one"]
    assert "train: several: left out: the card is full [4]\n" in capsys.readouterr().err


def test_a_device_is_waited_for_before_the_clock_is_read() -> None:
    seconds = iter([0.0, 2.0, 10.0])
    waited: list[str] = []
    rate = timed(lambda: None, 5, clock=lambda: next(seconds), wait=lambda: waited.append("once"))
    assert rate() == 0.5
    assert waited == ["once"]


def test_the_table_has_a_line_a_row() -> None:
    shown = table(
        [Row("data", "what", "MB", 8.64, 0.27, 32.0, 0.0), Row("eval", "x", "u", 1, 2, 2.0, 0.5)]
    )
    head, first, second = shown.splitlines()
    assert head.split() == ["stage", "what", "unit", "baseline", "ours", "ratio"]
    assert first.split() == ["data", "what", "MB", "8.64", "0.27", "32.00"]
    assert second.endswith("2.00 ± 0.50")


def test_the_forecast_counts_the_papers_cells() -> None:
    # 6 x 10,661 images and 7 x 1,867 cells, 24 times.
    assert hours(10_661 * 6 / 3600, 7 * 1867 / 3600) == pytest.approx(48)
    images, cells = 10_661 * 6 / 3600, 7 * 1867 / 3600
    rows = [
        Row("train", PAPER, "images/s", 1, images, 1, 0),
        Row("train", FAST, "images/s", 1, 2 * images, 1, 0),
        Row("train", at_once(4), "images/s", 1, 6 * images, 1, 0),
        Row("eval", PAPER_CELLS, "cells/s", 1, cells, 1, 0),
        Row("eval", FAST_CELLS, "cells/s", 1, 4 * cells, 1, 0),
    ]
    paper, fast, several = forecast(rows)
    assert "about 48.0 hours" in paper
    assert "trainer=paper" in paper
    assert "about 18.0 hours" in fast
    assert "trainer=fast" in fast
    assert "about 6.0 hours" in several
    assert "trainer=fast and 4 runs at once" in several
    assert forecast(rows[:3]) == [
        "How long the study will take here is told by the stages train and eval."
    ]
    assert forecast(rows, "another")[0].startswith("another x 24 ")


def _grown(folder: str) -> tuple[int, int, int]:
    """Return the size of an array, and by how much the peak grows by it and by a mapped one."""
    size = 64 * 2**20
    with watched() as before:
        pass
    with watched() as own:
        taken = np.ones(size, dtype=np.uint8)
    np.save(f"{folder}/pages", taken)
    del taken
    with watched() as start:
        pass
    with watched() as shared:
        pages = np.load(f"{folder}/pages.npy", mmap_mode="r")
        assert isinstance(pages.base, mmap.mmap)
        assert pages.sum() == size
    return size, own.bytes - before.bytes, shared.bytes - start.bytes


def test_memory_of_its_own_is_counted_and_pages_of_files_are_not(tmp_path: Path) -> None:
    # In a new process: this one, and those that it began, may give memory back meanwhile.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        size, own, mapped = pool.submit(_grown, str(tmp_path)).result()
    assert own == pytest.approx(size, rel=0.2)
    assert mapped < size / 4

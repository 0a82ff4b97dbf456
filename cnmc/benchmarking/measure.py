"""Two ways to do the same work, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cnmc.errors import CnmcError

Rate = Callable[[], float]
"""Does some work and returns how much of it was done in a second."""


@dataclass(frozen=True)
class Row:
    """One line of the table, as ``benchmark.json`` holds it.

    Attributes:
        stage: ``data``, ``train``, ``eval``, ``predict`` or ``scale``.
        name: What was measured.
        unit: Of ``baseline`` and ``ours``.
        baseline: Median over the repeats.
        ours: Median over the repeats.
        ratio: How many times better ours is: the median over pairs of repeats.
        spread: Half the range of that ratio over the pairs.
    """

    stage: str
    name: str
    unit: str
    baseline: float
    ours: float
    ratio: float
    spread: float


@dataclass(frozen=True)
class Comparison:
    """What is to be measured.

    Attributes:
        stage: As in :class:`Row`.
        name: As in :class:`Row`.
        unit: Of the rates, such as ``images/s``.
        baseline: The work done as it is usually done.
        ours: The same work done by this program.
    """

    stage: str
    name: str
    unit: str
    baseline: Rate
    ours: Rate


def timed(
    work: Callable[[], Any],
    items: int,
    *,
    at_least: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], None] = lambda: None,
) -> Rate:
    """Return the rate of a piece of work that is repeated until it took long enough.

    Args:
        work: The work.
        items: How much of it one call does.
        at_least: Seconds.
        clock: Tells the seconds; ``time.process_time`` those that the process was at work.
        wait: Returns when a device has done what the work asked of it.
    """

    def rate() -> float:
        done, start = 0, clock()
        while True:
            work()
            done += items
            if clock() - start >= at_least:
                wait()
                return done / (clock() - start)

    return rate


def compare(comparison: Comparison, repeats: int, tick: Callable[[], None]) -> Row:
    """Measure both sides in turns, so that what else the machine does falls on both.

    Args:
        comparison: What to measure. Each side is done once before, which warms caches up and
            compiles what is to be compiled.
        repeats: Pairs of measurements.
        tick: Called after each measurement, those of the warm-up included.
    """
    for rate in (comparison.baseline, comparison.ours):
        rate()
        tick()
    pairs: list[tuple[float, float]] = []
    for _ in range(repeats):
        baseline = comparison.baseline()
        tick()
        pairs.append((baseline, comparison.ours()))
        tick()
    ratios = [ours / baseline for baseline, ours in pairs]
    return Row(
        stage=comparison.stage,
        name=comparison.name,
        unit=comparison.unit,
        baseline=statistics.median(baseline for baseline, _ in pairs),
        ours=statistics.median(ours for _, ours in pairs),
        ratio=statistics.median(ratios),
        spread=(max(ratios) - min(ratios)) / 2,
    )


def counted(stage: str, name: str, unit: str, *, baseline: float, ours: float) -> Row:
    """Return the row of what is counted and not timed, of which less is better."""
    return Row(stage, name, unit, baseline, ours, baseline / ours, 0.0)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show that something takes its time: a spinner; where there is no terminal, a line after."""
    console = Console(stderr=True)
    start = time.perf_counter()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
        console.print(f"{what}: {time.perf_counter() - start:,.1f} s", highlight=False)


def left_out(stage: str, name: str, reason: str) -> None:
    """Say why a row is missing."""
    Console(stderr=True, soft_wrap=True).print(
        f"{stage}: {name}: left out: {reason}", highlight=False, markup=False
    )


@contextmanager
def _ticking(name: str, total: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    if console.is_terminal:
        left = (TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *left, console=console) as progress:
            task = progress.add_task(name, total=total)
            yield lambda: progress.advance(task)
        return
    start = time.perf_counter()
    yield lambda: None
    console.print(f"{name}: {time.perf_counter() - start:,.1f} s", highlight=False)


def compare_all(comparisons: Sequence[Comparison], repeats: int) -> list[Row]:
    """Measure one after another, with a progress bar; where there is no terminal, a line each.

    What cannot be done here, such as runs that do not fit on a GPU at once, is left out.
    """
    rows = []
    for comparison in comparisons:
        try:
            with _ticking(f"{comparison.stage}: {comparison.name}", 2 * (repeats + 1)) as tick:
                rows.append(compare(comparison, repeats, tick))
        except CnmcError as error:
            left_out(comparison.stage, comparison.name, str(error))
    return rows

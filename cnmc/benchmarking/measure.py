"""Compare two ways to do the same work, measured in turns."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnmc.errors import CnmcError

Rate = Callable[[], float]
"""Does some work and returns how much of it was done per second."""


@dataclass(frozen=True)
class Row:
    """One row of ``benchmark.json``.

    Attributes:
        stage: ``data``, ``train``, ``eval``, ``predict`` or ``scale``.
        name: What was measured.
        unit: Unit of ``baseline`` and ``ours``.
        baseline: Median over the repeats.
        ours: Median over the repeats.
        ratio: Median over the repeats of how many times better ``ours`` is.
        spread: Half the range of that ratio over the repeats.
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
    """Two rates to measure; the other attributes are those of :class:`Row`."""

    stage: str
    name: str
    unit: str
    baseline: Rate
    ours: Rate


def timed(
    work: Callable[[], Any],
    items: int,
    *,
    at_least: float = 1.0,
    wait: Callable[[], None] = lambda: None,
) -> Rate:
    """Return the rate of work that is repeated for a given time.

    Args:
        work: The work.
        items: Number of items that one call processes.
        at_least: Seconds.
        wait: Returns when the device has finished the work.
    """

    def rate() -> float:
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < at_least:
            work()
            done += items
        wait()
        return done / (time.perf_counter() - start)

    return rate


def compare(comparison: Comparison, repeats: int) -> Row:
    """Measure both rates in turns, so that other load on the machine affects both.

    One more pair is measured first and discarded, to fill caches and compile networks.
    """
    pairs = [(comparison.baseline(), comparison.ours()) for _ in range(repeats + 1)][1:]
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


def compare_all(comparisons: Sequence[Comparison | Row], repeats: int) -> list[Row]:
    """Measure all comparisons; omit those that fail, such as for lack of memory on the GPU."""
    rows = []
    for number, comparison in enumerate(comparisons, start=1):
        if isinstance(comparison, Row):
            rows.append(comparison)
            continue
        label = f"{comparison.stage} {number}/{len(comparisons)}: {comparison.name}"
        print(label, file=sys.stderr, flush=True)
        try:
            rows.append(compare(comparison, repeats))
        except (CnmcError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            print(f"{label}: omitted: {reason}", file=sys.stderr, flush=True)
    return rows


def counted(stage: str, name: str, unit: str, *, baseline: float, ours: float) -> Row:
    """Return the row of a number that should be small."""
    return Row(stage, name, unit, baseline, ours, baseline / ours, 0.0)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text; a ratio above 1 is better than the baseline."""
    width = max([len(row.name) for row in rows], default=0)
    lines = [f"{'stage':7}  {'what':{width}}  {'unit':8}  {'baseline':>8}  {'ours':>8}  ratio"]
    for row in rows:
        numbers = "  ".join(f"{x:8,.0f}" if x >= 100 else f"{x:8.3g}" for x in (row.baseline, row.ours))
        lines.append(
            f"{row.stage:7}  {row.name:{width}}  {row.unit:8}  {numbers}  {row.ratio:.2f}"
            + (f" ± {row.spread:.2f}" if row.spread else "")
        )
    return "\n".join(lines)

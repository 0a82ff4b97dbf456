"""Compare two ways to do the same work, measured in turns."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cnmc.errors import CnmcError

LEAST_SECONDS = 1.0
"""Duration of one measurement of something fast."""


class Comparison(NamedTuple):
    """Two rates to measure. A call does some work and returns the items per second."""

    name: str
    unit: str
    baseline: Callable[[], float]
    ours: Callable[[], float]


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
    spread: float = 0.0


def timed(
    work: Callable[[], Any],
    items: int,
    *,
    at_least: float | None = None,
    wait: Callable[[], None] = lambda: None,
) -> Callable[[], float]:
    """Return the rate of work that is repeated for a given time.

    Args:
        work: The work.
        items: Number of items that one call processes.
        at_least: Seconds; :data:`LEAST_SECONDS` by default.
        wait: Returns when the device has finished the work.
    """

    def rate() -> float:
        seconds = LEAST_SECONDS if at_least is None else at_least
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < seconds:
            work()
            done += items
        wait()
        return done / (time.perf_counter() - start)

    return rate


def compare(stage: str, comparison: Comparison, repeats: int) -> Row:
    """Measure both rates in turns, so that other load on the machine affects both.

    One more pair is measured first and discarded, since it fills caches and compiles networks.
    """
    name, unit, baseline, ours = comparison
    pairs = [(baseline(), ours()) for _ in range(repeats + 1)][1:]
    ratios = [second / first for first, second in pairs]
    medians = [statistics.median(rates) for rates in zip(*pairs, strict=True)]
    spread = (max(ratios) - min(ratios)) / 2
    return Row(stage, name, unit, medians[0], medians[1], statistics.median(ratios), spread)


def compare_all(stage: str, found: Iterable[Comparison | Row], repeats: int) -> list[Row]:
    """Measure all comparisons of a stage; omit those that fail, such as for lack of GPU memory."""
    rows = []
    for item in found:
        print(f"{stage}: {item.name}", file=sys.stderr, flush=True)
        try:
            rows.append(item if isinstance(item, Row) else compare(stage, item, repeats))
        except (CnmcError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            print(f"{stage}: {item.name}: omitted: {reason}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text; a ratio above 1 is better than the baseline."""
    width = max([len(row.name) for row in rows], default=0)
    lines = [f"{'stage':7}  {'what':{width}}  {'unit':8}  {'baseline':>8}  {'ours':>8}  ratio"]
    for row in rows:
        baseline, ours = (
            f"{x:8,.0f}" if x >= 100 else f"{x:8.3g}" for x in (row.baseline, row.ours)
        )
        ratio = f"{row.ratio:.2f}" + (f" ± {row.spread:.2f}" if row.spread else "")
        lines.append(
            f"{row.stage:7}  {row.name:{width}}  {row.unit:8}  {baseline}  {ours}  {ratio}"
        )
    return "\n".join(lines)

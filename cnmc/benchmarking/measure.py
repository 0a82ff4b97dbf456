"""Compare two ways to do the same work, measured in turns, and forecast the paper's study."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from cnmc.errors import CnmcError

SECONDS = 2.0  # least duration of one measurement
NUM_EVALUATED = 1_867  # cells of the preliminary test part (Table 1 of the paper)
TRAINING = "training, against the published way"
EVALUATION = "evaluation, against the published way"


class Comparison(NamedTuple):
    """Two rates to measure. A call does some work and returns the items per second."""

    name: str
    unit: str
    baseline: Callable[[], float]
    ours: Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One row of ``benchmark.json``: medians over the repeats."""

    stage: str
    name: str
    unit: str
    baseline: float
    ours: float
    ratio: float  # how many times better `ours` is
    spread: float = 0.0  # half the range of the ratio over the repeats


def wait() -> None:
    """Return when the GPU has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any], items: int) -> Callable[[], float]:
    """Return a function that repeats work on so many items, and returns its rate."""

    def rate() -> float:
        done, start = 0, time.perf_counter()
        while not done or time.perf_counter() - start < SECONDS:
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
    pairs = np.array([(baseline(), ours()) for _ in range(repeats + 1)])[1:]
    ratios = pairs[:, 1] / pairs[:, 0]
    first, second, ratio = (float(np.median(x)) for x in (*pairs.T, ratios))
    return Row(stage, name, unit, first, second, ratio, spread=float(np.ptp(ratios)) / 2)


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
        values = [f"{x:8,.0f}" if x >= 100 else f"{x:8.3g}" for x in (row.baseline, row.ours)]
        ratio = f"{row.ratio:.2f}" + (f" ± {row.spread:.2f}" if row.spread else "")
        start = f"{row.stage:7}  {row.name:{width}}  {row.unit:8}"
        lines.append("  ".join([start, *values, ratio]))
    return "\n".join(lines)


def forecast(rows: Sequence[Row], network: str) -> str:
    """Return how long the 24 runs of PROPOSAL take with the network that was measured."""
    rates = {row.name: row.ours for row in rows}
    if TRAINING not in rates or EVALUATION not in rates:
        return "The stages train and eval together forecast how long the study takes here."
    # Six epochs of the training part; an evaluation before training and after every epoch.
    seconds = 6 * 10_661 / rates[TRAINING] + 7 * NUM_EVALUATED / rates[EVALUATION]
    return (
        f"24 runs of the study with {network} take about {24 * seconds / 3600:,.1f} hours on this "
        "machine, one after another"
    )

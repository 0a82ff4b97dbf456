"""Baselines in a process of their own, with PyTorch as it comes.

This program asks PyTorch for larger pages of memory (see :mod:`cnmc`), and the networks that a
process has held change how its memory is handed out: a baseline beside them would be another one.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from cnmc.benchmarking.bench import Bench
from cnmc.benchmarking.measure import Rate
from cnmc.config import BenchmarkConfig
from cnmc.errors import CnmcError

_LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"


_pools: list[ProcessPoolExecutor] = []


def apart(make: Callable[[Bench], Rate], bench: Bench) -> Rate:
    """Return a rate that is measured in a process of its own, until :func:`end`.

    Args:
        make: Makes the rate there; a function of a module.
        bench: What to measure with. Its cells lie there already.
    """
    given = (make, bench.config, bench.gpu)
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, given)
    _pools.append(pool)

    def rate() -> float:
        try:
            with _as_pytorch_comes():
                return pool.submit(_measure).result()
        except BrokenProcessPool as error:
            raise CnmcError(
                "the process that measures a baseline was lost (out of memory?); give a smaller "
                "data.batch_size"
            ) from error

    return rate


def end() -> None:
    """End these processes, and give back the memory that they hold."""
    while _pools:
        _pools.pop().shutdown()


@contextmanager
def _as_pytorch_comes() -> Iterator[None]:
    """Let the process that begins within have the pages that PyTorch takes by itself."""
    before = os.environ[_LARGE_PAGES]
    os.environ[_LARGE_PAGES] = "0"
    try:
        yield
    finally:
        os.environ[_LARGE_PAGES] = before


_rate: Rate


def _begin(make: Callable[[Bench], Rate], config: BenchmarkConfig, gpu: int | None) -> None:
    """Make what the process measures."""
    global _rate  # noqa: PLW0603 - an initializer has no other way to its process
    _rate = make(Bench.opened(config, gpu))


def _measure() -> float:
    return _rate()

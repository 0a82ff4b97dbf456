"""Running a function over many files in threads, with a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LINES = 15.0
"""Where the output is no terminal: a line each so often, so that logs stay short."""


class _RateColumn(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


def map_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    description: str,
    show_progress: bool = True,
) -> list[Result]:
    """Apply a function to every item in threads and show how far it is, on stderr.

    Reading, hashing and decoding release the interpreter's lock, so threads are enough.

    Args:
        function: Called once an item; the first exception ends the whole.
        items: What to work on.
        num_workers: Number of threads; 0 counts as 1.
        description: A few words before the progress bar.
        show_progress: On a terminal a bar with rate and time left, elsewhere now and then a line.

    Returns:
        Results in the order of the items.
    """
    console = Console(stderr=True, quiet=not show_progress)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    results: dict[Future[Result], Result] = {}
    executor = ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="cnmc")
    start = last_line = time.monotonic()
    try:
        futures = [executor.submit(function, item) for item in items]
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(description, total=len(items))
            for future in as_completed(futures):
                results[future] = future.result()
                progress.advance(task)
                now = time.monotonic()
                if not console.is_terminal and now - last_line >= _SECONDS_BETWEEN_LINES:
                    last_line = now
                    rate = len(results) / (now - start)
                    console.print(
                        f"{description}: {len(results):,} of {len(items):,}, {rate:,.0f}/s, "
                        f"{(len(items) - len(results)) / rate:,.0f} s left",
                        highlight=False,
                    )
    finally:
        # Without this an interruption would wait for every item that has not begun.
        executor.shutdown(wait=True, cancel_futures=True)
    seconds = time.monotonic() - start
    if not console.is_terminal and items:
        console.print(
            f"{description}: {len(items):,} in {seconds:,.1f} s, {len(items) / seconds:,.0f}/s",
            highlight=False,
        )
    return [results[future] for future in futures]

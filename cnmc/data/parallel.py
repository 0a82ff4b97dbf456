"""How far long work is, and running a function over many files in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
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


def _rate(items_a_second: float) -> str:
    return f"{items_a_second:,.{0 if items_a_second >= 10 else 1}f}/s"


class _RateColumn(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.speed) if task.speed else "", style="progress.data.speed")


@contextmanager
def progress(
    description: str, total: int, *, show_progress: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show on stderr how far some work is, with its rate and the time left.

    On a terminal a bar, elsewhere now and then a line, and one at the end of work that succeeded.

    Args:
        description: A few words before the progress bar.
        total: Number of items.
        show_progress: False shows nothing.

    Yields:
        A function that is told how many further items are done.
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
    start = last_line = time.monotonic()
    num_done = num_at_line = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(num_items: int) -> None:
            nonlocal num_done, num_at_line, last_line
            num_done += num_items
            bar.advance(task, num_items)
            now = time.monotonic()
            if console.is_terminal or now - last_line < _SECONDS_BETWEEN_LINES:
                return
            # The rate of late: what was done at an earlier time is passed over in no time.
            rate = (num_done - num_at_line) / (now - last_line)
            left = f"{(total - num_done) / rate:,.0f} s left" if rate else "time left unknown"
            console.print(
                f"{description}: {num_done:,} of {total:,}, {_rate(rate)}, {left}", highlight=False
            )
            last_line, num_at_line = now, num_done

        yield advance
    seconds = time.monotonic() - start
    if not console.is_terminal and total:
        console.print(
            f"{description}: {total:,} in {seconds:,.1f} s, {_rate(total / seconds)}",
            highlight=False,
        )


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
    results: dict[Future[Result], Result] = {}
    executor = ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="cnmc")
    try:
        futures = [executor.submit(function, item) for item in items]
        with progress(description, len(items), show_progress=show_progress) as advance:
            for future in as_completed(futures):
                results[future] = future.result()
                advance(1)
    finally:
        # Without this an interruption would wait for every item that has not begun.
        executor.shutdown(wait=True, cancel_futures=True)
    return [results[future] for future in futures]


def stream_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int, num_ahead: int
) -> Iterator[Result]:
    """Yield a function's results in the order of the items, while threads work some items ahead.

    Args:
        function: Called once an item; its exception is raised where the result would stand.
        items: What to work on.
        num_workers: Number of threads, at least 1.
        num_ahead: Results that may wait at a time, which bounds the memory; at least 1.
    """
    executor = ThreadPoolExecutor(num_workers, thread_name_prefix="cnmc")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)

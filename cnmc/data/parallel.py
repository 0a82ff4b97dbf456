"""Progress over files and cells, and functions that run over many of them in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress(
    description: str, total: int, *, show_progress: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show the progress of some work on stderr.

    A terminal gets a bar with the time left; other outputs get a line every 15 seconds and one at
    the end.

    Args:
        description: A few words before the progress bar.
        total: Number of items.
        show_progress: False shows nothing.

    Yields:
        A function to call with the number of further items that are done.
    """
    console = Console(stderr=True, quiet=not (show_progress and total))
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    start = last_line = time.monotonic()
    num_done = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(num_items: int) -> None:
            nonlocal num_done, last_line
            num_done += num_items
            bar.advance(task, num_items)
            now = time.monotonic()
            if not console.is_terminal and now - last_line >= _SECONDS_BETWEEN_LINES:
                left = (now - start) / num_done * (total - num_done)
                line = f"{description}: {num_done:,} of {total:,}, {left:,.0f} s left"
                console.print(line, highlight=False)
                last_line = now

        yield advance
    if not console.is_terminal:
        seconds = time.monotonic() - start
        console.print(f"{description}: {total:,} in {seconds:,.1f} s", highlight=False)


def map_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    description: str,
    show_progress: bool = True,
) -> list[Result]:
    """Apply a function to every item in threads, with progress on stderr.

    Reading, hashing and decoding release the interpreter's lock, so threads are enough.

    Args:
        function: Called once for each item; the first exception ends all.
        items: What to work on.
        num_workers: Number of threads; 0 counts as 1.
        description: A few words before the progress bar.
        show_progress: False shows nothing.

    Returns:
        Results in the order of the items.
    """
    results: list[Result] = []
    with progress(description, len(items), show_progress=show_progress) as advance:
        for result in stream_threads(
            function, items, num_workers=max(1, num_workers), num_ahead=len(items)
        ):
            results.append(result)
            advance(1)
    return results


def stream_threads(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int, num_ahead: int
) -> Iterator[Result]:
    """Yield the results of a function in the order of the items; threads work some items ahead.

    Args:
        function: Called once for each item; its exception is raised in place of the result.
        items: What to work on.
        num_workers: Number of threads, at least 1.
        num_ahead: Results that may wait at a time, which limits the memory.
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
        # Without cancelling, an interruption would wait for all items.
        executor.shutdown(wait=True, cancel_futures=True)

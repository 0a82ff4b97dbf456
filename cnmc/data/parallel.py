"""Progress over files and cells, and threads that work on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LINES = 15.0
_NUM_AT_ONCE = 256


@contextmanager
def progress(
    description: str, total: int, *, show_progress: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line every 15 seconds.

    Yields:
        A function to call with the number of further items that are done.
    """
    console = Console(stderr=True, quiet=not (show_progress and total), highlight=False)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    start = last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(num_items: int) -> None:
            nonlocal last_line
            bar.advance(task, num_items)
            if not console.is_terminal and time.monotonic() - last_line >= _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                done, left = bar.tasks[0].completed, bar.tasks[0].time_remaining or 0
                console.print(f"{description}: {done:,.0f} of {total:,}, {left:,.0f} s left")

        yield advance
    if not console.is_terminal:
        console.print(f"{description}: {total:,} in {time.monotonic() - start:,.1f} s")


def map_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    description: str,
    show_progress: bool = True,
) -> Iterator[Result]:
    """Yield the results of a function over all items in threads, with progress on stderr."""
    with (
        ThreadPoolExecutor(max(1, num_workers)) as pool,
        progress(description, len(items), show_progress=show_progress) as advance,
    ):
        # In parts, so that few results wait for their reader.
        for start in range(0, len(items), _NUM_AT_ONCE):
            for result in pool.map(function, items[start : start + _NUM_AT_ONCE]):
                yield result
                advance(1)

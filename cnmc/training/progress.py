"""The progress of runs, shown as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

SECONDS_BETWEEN_LINES = 60.0
"""How often a line is printed within an epoch where there is no terminal."""


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run at one moment. F1 scores are between 0 and 1."""

    name: str  # experiment and name of the run folder
    epoch: int  # the last evaluated epoch; 0 is the network before training
    max_epochs: int
    share: float  # finished share of the run, 0 to 1
    f1: float | None = None
    f1_norot: float | None = None
    best_f1: float | None = None
    seconds_left: float | None = None
    doing: str | None = None  # the current batch; None if `epoch` was just evaluated

    def line(self) -> str:
        """Return all fields as one line."""
        f1_norot = self.f1_norot if self.doing is None else None
        scores = {"F1": self.f1, "without rotations": f1_norot, "best": self.best_f1}
        parts = [f"{self.name} epoch {self.epoch}/{self.max_epochs}"]
        parts += [f"{what} {100 * f1:.2f}" for what, f1 in scores.items() if f1 is not None]
        if self.doing is not None:
            parts += [self.doing]
        if self.seconds_left is not None:
            parts += [f"{clock(self.seconds_left)} left"]
        return "  ".join(parts)


Report = Callable[[RunProgress], None]


class RunDisplay:
    """Show the progress of runs on standard output.

    On a terminal each run has a bar. Elsewhere there is a line for each epoch, and one a minute
    within an epoch. A single run prints the lines of its epochs on a terminal too.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[line]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, tuple[int, float]] = {}

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, soft_wrap=True)

    def show_bar(self, title: str, share: float, line: str) -> None:
        """Show a bar, or move the one with this title."""
        if title not in self._tasks:
            self._tasks[title] = self.bars.add_task(title, total=1.0, line="")
        self.bars.update(self._tasks[title], completed=share, line=line)

    def remove_bar(self, title: str) -> None:
        """Remove the bar with this title, if there is one."""
        if title in self._tasks:
            self.bars.remove_task(self._tasks.pop(title))

    def update(self, progress: RunProgress, title: str = "", note: str = "") -> None:
        """Show the progress of a run: ``title`` (of one of several runs), progress, ``note``."""
        self.show_bar(title, progress.share, progress.line())
        now, terminal = time.monotonic(), self.console.is_terminal
        epoch, when = self._printed.setdefault(title, (-1, now))
        is_new = progress.f1 is not None and progress.epoch != epoch
        is_late = now - when >= SECONDS_BETWEEN_LINES
        if (is_new and not title) if terminal else (is_new or is_late):
            self._printed[title] = (epoch if progress.f1 is None else progress.epoch, now)
            self.print("  ".join(filter(None, [title, progress.line()])) + note)

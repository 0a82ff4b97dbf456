"""Shows a study while it is at work: one line a run, and the time that is left."""

from __future__ import annotations

import atexit
import threading
import time
from contextlib import suppress
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from cnmc.study.board import SUCCEEDED, Board, JobState
from cnmc.training.progress import SECONDS_BETWEEN_LINES, clock

_SECONDS_BETWEEN_LOOKS = 0.5
_GOES_ON = "it goes on after its last whole epoch when it is started again"


class Monitor:
    """Reads the board of a study now and then, and says what changed.

    On a terminal the runs at work have a line each that moves, below those of the runs that have
    ended; elsewhere there is a line for every epoch.

    Args:
        board: The board.
        num_runs: Number of runs of the study.
        console: Where to print; standard output by default.
    """

    def __init__(self, board: Board, num_runs: int, console: Console | None = None) -> None:
        self.board = board
        self.num_runs = num_runs
        self.console = console or Console(highlight=False)
        self._shown: dict[int, tuple[str, int]] = {}
        self._when: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="study", daemon=True)
        self._live = Live(
            get_renderable=self._at_work,
            console=self.console,
            refresh_per_second=2,
            transient=True,
        )

    def start(self) -> None:
        """Begin to watch, in a thread."""
        # Hydra composes the configuration of every run before the first begins.
        self.console.print(f"a study of {self.num_runs} runs; composing their configurations")
        if self.console.is_terminal:
            self._live.start()
        # However the program ends, the terminal is left in order.
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """Say what has changed since the last look, and end."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        with suppress(OSError, CnmcError):
            self._look()
        self._live.stop()
        atexit.unregister(self.stop)

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            # A look that fails (the log's disk is full, a file is broken) is not the last one.
            with suppress(OSError, CnmcError):
                self._look()

    def _look(self) -> None:
        for state in self.board.states():
            line = self._news(state)
            if line is not None:
                self.console.print(f"{self._title(state)}  {line}", markup=False, soft_wrap=True)

    def _title(self, state: JobState) -> str:
        width = len(str(self.num_runs))
        return f"run {state.num + 1:>{width}} of {self.num_runs}"

    def _news(self, state: JobState) -> str | None:
        """Return the line that a state is worth, if any."""
        progress = state.progress
        # Epoch 0 is news when it is evaluated, not when it begins.
        epoch = progress.epoch if progress is not None and progress.f1 is not None else -1
        changed = self._shown.get(state.num) != (state.status, epoch)
        self._shown[state.num] = (state.status, epoch)
        if state.status != "running":
            return self._ending(state) if changed else None
        if self.console.is_terminal or progress is None:
            return None
        now = time.monotonic()
        if not changed and now - self._when.get(state.num, 0.0) < SECONDS_BETWEEN_LINES:
            return None
        self._when[state.num] = now
        left = self.board.seconds_left()
        study = f", study {clock(left)}" if left is not None else ""
        return f"{progress.line()}{study}"

    def _ending(self, state: JobState) -> str:
        label = _label(state)
        if state.status not in SUCCEEDED:
            return f"{label} {state.status}: {state.error or _GOES_ON}"
        words = "finished already" if state.status == "skipped" else "finished"
        info = RunFolder(Path(state.path)).read_info()
        if info is not None and info.best_f1 is not None:
            words += f"  F1 {100 * info.best_f1:.2f} at epoch {info.best_epoch}"
        return f"{label} {words}" + (
            f"  {clock(state.seconds)}" if state.status == "finished" else ""
        )

    def _at_work(self) -> Group:
        """Return the lines that move."""
        table = Table.grid(padding=(0, 2))
        states = self.board.states()
        for state in states:
            if state.status == "running":
                words = (
                    state.progress.line() if state.progress else f"{_label(state)} opening the data"
                )
                bar = ProgressBar(total=1.0, completed=state.share, width=16)
                table.add_row(self._title(state), bar, words)
        num_done = sum(state.status != "running" for state in states)
        share = sum(state.share for state in states) / max(self.num_runs, 1)
        left = self.board.seconds_left()
        words = f"{num_done} of {self.num_runs} runs done"
        words += f"  {clock(left)} left" if left is not None else ""
        table.add_row("study", ProgressBar(total=1.0, completed=share, width=16), words)
        return Group(table)


def _label(state: JobState) -> str:
    """Return experiment and name of a run, as its folder is called."""
    return "/".join(Path(state.path).parts[-2:])

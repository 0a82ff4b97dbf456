"""Shows a study that is running: the progress of each run, and the time left."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console

from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from cnmc.study.board import SUCCEEDED, Board, JobState
from cnmc.training.progress import RunDisplay, clock

_SECONDS_BETWEEN_LOOKS = 0.5
_RESUMES = "the same command continues it after its last whole epoch"


class Monitor:
    """Reads the board of a study regularly, and shows what changed.

    Args:
        board: The board.
        folders: The run folders, in the order of the jobs.
        console: Where to print; standard output by default.
    """

    def __init__(
        self, board: Board, folders: Sequence[RunFolder], console: Console | None = None
    ) -> None:
        self.board = board
        self.folders = folders
        self.display = RunDisplay(console)
        self._ended: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="study", daemon=True)

    def start(self) -> None:
        """Begin to watch, in a thread."""
        # Hydra composes the configuration of every run before the first begins.
        self.display.print(f"a study of {len(self.folders)} runs; composing their configurations")
        # The terminal is restored however the program ends.
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """Show the last changes, and end."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        self.look()
        self.display.bars.stop()
        atexit.unregister(self.stop)

    def _watch(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self.look()

    def look(self) -> None:
        """Show what has changed since the last look."""
        states = self.board.states()
        left = seconds_left(states, len(self.folders))
        time_left = "" if left is None else clock(left)
        for state in states:
            title = f"run {state.num + 1:>{len(str(len(self.folders)))}} of {len(self.folders)}"
            if state.status == "running":
                if state.progress is None:
                    self.display.show_bar(title, 0.0, f"{self._label(state)} opening the data")
                else:
                    note = f", study {time_left}" if time_left else ""
                    self.display.update(state.progress, title, note)
            elif state.num not in self._ended:
                self._ended.add(state.num)
                self.display.remove_bar(title)
                self.display.print(f"{title}  {self._ending(state)}")
        share = sum(state.share for state in states) / max(len(self.folders), 1)
        line = f"{len(self._ended)} of {len(self.folders)} runs done"
        self.display.show_bar("study", share, f"{line}  {time_left} left" if time_left else line)

    def _label(self, state: JobState) -> str:
        path = self.folders[state.num].path
        return f"{path.parent.name}/{path.name}"

    def _ending(self, state: JobState) -> str:
        """Return the line of a job that has ended."""
        label = self._label(state)
        if state.status not in SUCCEEDED:
            return f"{label} {state.status}: {state.error or _RESUMES}"
        words = [f"{label} {'finished already' if state.status == 'skipped' else 'finished'}"]
        with suppress(CnmcError):
            info = self.folders[state.num].read_info()
            if info is not None and info.best_f1 is not None:
                words += [f"F1 {100 * info.best_f1:.2f} at epoch {info.best_epoch}"]
        if state.status == "finished":
            words += [clock(state.seconds)]
        return "  ".join(words)


def seconds_left(
    states: Sequence[JobState], num_runs: int, now: float | None = None
) -> float | None:
    """Estimate how long a study will still take, at the pace of this command so far.

    Returns:
        Seconds; None if nothing was trained yet.
    """
    trained = [state for state in states if state.status != "skipped"]
    worked = sum(max(0.0, state.share - state.first_share) for state in trained)
    if worked <= 0.0:
        return None
    running = [state for state in trained if state.status == "running"]
    left = num_runs - len(states) + sum(1.0 - state.share for state in running)
    elapsed = (now or time.time()) - min(state.began for state in trained)
    return elapsed / worked * left

"""The progress of a study: its jobs report it in files, and the launching process shows it."""

from __future__ import annotations

import atexit
import json
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from rich.console import Console

from cnmc.errors import CnmcError
from cnmc.files import replacing
from cnmc.runs.folder import RunFolder
from cnmc.training.progress import RunDisplay, RunProgress, clock

JobStatus = Literal[
    "running", "finished", "skipped", "failed", "refused", "left out", "interrupted"
]
SUCCEEDED: tuple[JobStatus, ...] = ("finished", "skipped")


@dataclass
class JobState:
    """The state of a job."""

    num: int  # position among the jobs of the study, from 0
    status: JobStatus
    began: float  # seconds since 1970
    first_share: float = 0.0  # of the run, finished when this job resumed it, 0 to 1
    progress: RunProgress | None = None
    error: str | None = None  # why the run is not finished, in one line

    @property
    def share(self) -> float:
        """Finished share of the run, 0 to 1."""
        if self.status in SUCCEEDED:
            return 1.0
        return self.progress.share if self.progress else self.first_share


class Board:
    """The states of the jobs of a study, in ``<run.root>/.multirun/boards/<study.id>/<num>.json``.

    The launching process holds a lock in that folder and removes the folder at its end. A board
    that cannot be written (a full disk) stops no run.
    """

    def __init__(self, root: Path, study_id: str) -> None:
        self.path = root / ".multirun" / "boards" / study_id
        self._lock = FileLock(self.path / "lock")

    def open(self) -> None:
        """Create the board, and remove boards of commands that were killed."""
        with suppress(OSError):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            for other in self.path.parent.iterdir():
                with suppress(Timeout), FileLock(other / "lock", timeout=0):
                    shutil.rmtree(other, ignore_errors=True)

    def close(self) -> None:
        """Remove the board."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.path.parent.rmdir()

    def write(self, state: JobState) -> None:
        """Store the state of a job."""
        path = self.path / f"{state.num}.json"
        with suppress(OSError), replacing(path, lasting=False) as temporary:
            temporary.write_text(json.dumps(asdict(state)))

    def states(self) -> list[JobState]:
        """Return the states of all jobs that have begun, in their order."""
        states = []
        for path in self.path.glob("[0-9]*.json"):
            with suppress(OSError, ValueError):
                values = json.loads(path.read_text())
                progress = values.pop("progress")
                values["progress"] = RunProgress(**progress) if progress else None
                states.append(JobState(**values))
        return sorted(states, key=lambda state: state.num)


class Monitor:
    """Reads the board of a study regularly, in a thread, and shows the changes.

    ``folders`` are the run folders in the order of the jobs.
    """

    def __init__(
        self, board: Board, folders: list[RunFolder], console: Console | None = None
    ) -> None:
        self.board = board
        self.folders = folders
        self.display = RunDisplay(console)
        self._ended: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="study", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        # Hydra composes the configuration of every run before the first begins.
        self.display.print(f"a study of {len(self.folders)} runs; composing their configurations")
        self.display.bars.start()
        # The terminal is restored however the program ends.
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """Show the last changes, and end."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self.look()
            self.display.bars.stop()
            atexit.unregister(self.stop)

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.look()

    def look(self) -> None:
        """Show what has changed since the last look."""
        states, num_runs = self.board.states(), len(self.folders)
        left = seconds_left(states, num_runs)
        time_left = "" if left is None else clock(left)
        for state in states:
            path = self.folders[state.num].path
            label = f"{path.parent.name}/{path.name}"
            title = f"run {state.num + 1:>{len(str(num_runs))}} of {num_runs}"
            if state.status != "running":
                if state.num not in self._ended:
                    self._ended.add(state.num)
                    self.display.remove_bar(title)
                    self.display.print(f"{title}  {label} {self._ending(state)}")
            elif state.progress is None:
                self.display.show_bar(title, 0.0, f"{label} opening the data")
            else:
                self.display.update(state.progress, title, time_left and f", study {time_left}")
        share = sum(state.share for state in states) / max(num_runs, 1)
        line = f"{len(self._ended)} of {num_runs} runs done"
        self.display.show_bar("study", share, line + (time_left and f"  {time_left} left"))

    def _ending(self, state: JobState) -> str:
        if state.status not in SUCCEEDED:
            resumes = "the same command continues it after its last complete epoch"
            return f"{state.status}: {state.error or resumes}"
        words = ["finished" if state.status == "finished" else "finished already"]
        with suppress(CnmcError):
            info = self.folders[state.num].read_info()
            if info is not None and info.best_f1 is not None:
                words += [f"F1 {100 * info.best_f1:.2f} at epoch {info.best_epoch}"]
        if state.status == "finished":
            words += [clock(time.time() - state.began)]
        return "  ".join(words)


def seconds_left(states: Sequence[JobState], num_runs: int) -> float | None:
    """Estimate how long a study will still take; None if this command trained nothing yet."""
    trained = [state for state in states if state.status != "skipped"]
    worked = sum(max(0.0, state.share - state.first_share) for state in trained)
    if worked <= 0.0:
        return None
    running = [state for state in trained if state.status == "running"]
    left = num_runs - len(states) + sum(1.0 - state.share for state in running)
    elapsed = time.time() - min(state.began for state in trained)
    return elapsed / worked * left

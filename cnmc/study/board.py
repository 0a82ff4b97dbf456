"""The board of a study: where its jobs write how far they are, and everybody reads it.

``<run.root>/.multirun/<study.id>/`` holds ``plan.json`` (the run folders, in the order of the
jobs) and ``<num>.json`` (:class:`JobState`) for every job that has begun. It belongs to one
command and goes with it; what lasts is in the run folders.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import BaseFileLock, FileLock, Timeout

from cnmc.files import replacing
from cnmc.runs.folder import RunFolder
from cnmc.runs.provenance import machine
from cnmc.training.progress import RunProgress

JobStatus = Literal[
    "running", "finished", "skipped", "failed", "refused", "left out", "interrupted"
]
SUCCEEDED: tuple[JobStatus, ...] = ("finished", "skipped")
FAILED: tuple[JobStatus, ...] = ("failed", "refused")


@dataclass
class JobState:
    """How far a job is."""

    num: int
    """Position among the jobs of the study, from 0."""
    status: JobStatus
    path: str
    """The run folder."""
    began: float
    """Seconds since 1970."""
    first_share: float = 0.0
    """Share of the run that was done before this job went on with it."""
    seconds: float = 0.0
    """Seconds that the job took, or took so far."""
    progress: RunProgress | None = None
    error: str | None = None
    """Why it is not finished, in one line."""

    @property
    def share(self) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.status in SUCCEEDED:
            return 1.0
        return self.progress.share if self.progress else self.first_share


def _state(values: dict[str, Any]) -> JobState:
    progress = values.pop("progress")
    return JobState(**values, progress=RunProgress(**progress) if progress else None)


class Board:
    """Reads and writes the board of one study.

    Args:
        root: ``run.root`` of the study.
        study_id: ``study.id``.
    """

    def __init__(self, root: Path, study_id: str) -> None:
        self.path = root / ".multirun" / study_id
        self._read: dict[str, tuple[int, JobState]] = {}

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f".{self.path.name}.lock")

    def open(self, folders: Sequence[RunFolder]) -> BaseFileLock | None:
        """Begin a study: write its plan, and remove boards whose commands are no more.

        Returns:
            A lock to be held as long as the command works; it tells that the board is in use.
            None where nothing can be written (a full disk): the runs will say so.
        """
        plan = {
            "pid": os.getpid(),
            "machine": machine(),
            "runs": [str(folder.path) for folder in folders],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Held before there is a board: one without it is of a command that is no more.
            lock = FileLock(self._lock_path)
            lock.acquire(timeout=0)
            self.path.mkdir(exist_ok=True)
            with replacing(self.path / "plan.json") as temporary:
                temporary.write_text(json.dumps(plan, indent=2))
            self.remove_others()
        except OSError:
            return None
        return lock

    def remove_others(self) -> None:
        """Remove the boards of commands that are no more, wherever they were killed."""
        for old in list(self.path.parent.iterdir()):
            # Launchers keep folders of their own here.
            if old.suffix == ".lock" or (old / "plan.json").is_file():
                name = old.stem.lstrip(".") if old.suffix == ".lock" else old.name
                if name != self.path.name:
                    Board(self.path.parents[1], name).close()

    def close(self) -> None:
        """Remove the board, unless its command or one of its jobs is still at work."""
        lock = FileLock(self._lock_path)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return
        try:
            working = [state for state in self.states() if state.status == "running"]
            if not any(RunFolder(Path(state.path)).is_locked() for state in working):
                shutil.rmtree(self.path, ignore_errors=True)
        finally:
            lock.release()
            with suppress(OSError):
                if not self.path.exists():
                    self._lock_path.unlink()

    def plan(self) -> dict[str, Any]:
        """Return the plan; one of no runs where none was made."""
        try:
            return dict(json.loads((self.path / "plan.json").read_text()))
        except (OSError, ValueError):
            return {"pid": None, "machine": None, "runs": []}

    def write(self, state: JobState) -> None:
        """Store how far a job is.

        A board that cannot be written (a full disk) stops no run: it is there to be looked at.
        """
        # Training waits for it every two seconds, and nobody reads it after a loss of power.
        path = self.path / f"{state.num}.json"
        with suppress(OSError), replacing(path, lasting=False) as temporary:
            temporary.write_text(json.dumps(asdict(state)))

    def states(self) -> list[JobState]:
        """Return how far all jobs are that have begun, in their order."""
        for path in self.path.glob("[0-9]*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                changed = path.stat().st_mtime_ns
                if self._read.get(path.name, (None,))[0] != changed:
                    self._read[path.name] = (changed, _state(json.loads(path.read_text())))
        # Copied first: the monitor reads in threads of its own.
        states = [state for _, state in list(self._read.values())]
        return sorted(states, key=lambda state: state.num)

    def first_failure(self) -> JobState | None:
        """Return the first job that ended without its run being finished."""
        return next((state for state in self.states() if state.status in FAILED), None)

    def seconds_left(self, now: float | None = None) -> float | None:
        """Estimate how long the study will take, at the pace of this command so far.

        Returns:
            Seconds; None where nothing was trained yet.
        """
        states = {state.num: state for state in self.states()}
        trained = [state for state in states.values() if state.status != "skipped"]
        worked = sum(max(0.0, state.share - state.first_share) for state in trained)
        if worked <= 0.0:
            return None
        ahead = len(self.plan()["runs"]) - len(states)
        left = ahead + sum(1.0 - state.share for state in trained if state.status == "running")
        elapsed = (now or time.time()) - min(state.began for state in trained)
        return elapsed / worked * left

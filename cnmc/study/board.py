"""The board of a study: files by which its jobs report their state to the launching process.

``<run.root>/.multirun/boards/<study.id>/`` holds ``<num>.json`` (:class:`JobState`) for every job
that has begun, and a lock that the launching process holds. The board is removed with the command;
results are in the run folders.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from cnmc.files import replacing
from cnmc.training.progress import RunProgress

JobStatus = Literal[
    "running", "finished", "skipped", "failed", "refused", "left out", "interrupted"
]
SUCCEEDED: tuple[JobStatus, ...] = ("finished", "skipped")
FAILED: tuple[JobStatus, ...] = ("failed", "refused")


@dataclass
class JobState:
    """The state of a job."""

    num: int
    """Position among the jobs of the study, from 0."""
    status: JobStatus
    began: float
    """Seconds since 1970."""
    seconds: float = 0.0
    """Duration of the job so far."""
    first_share: float = 0.0
    """Share of the run that was finished when this job resumed it, 0 to 1."""
    progress: RunProgress | None = None
    error: str | None = None
    """Why the run is not finished, in one line."""

    @property
    def share(self) -> float:
        """Finished share of the run, 0 to 1."""
        if self.status in SUCCEEDED:
            return 1.0
        return self.progress.share if self.progress else self.first_share


class Board:
    """Reads and writes the board of one study.

    Args:
        root: ``run.root`` of the study.
        study_id: ``study.id``.
    """

    def __init__(self, root: Path, study_id: str) -> None:
        self.path = root / ".multirun" / "boards" / study_id
        self._lock = FileLock(self.path / "lock")

    def open(self) -> None:
        """Create the board in the launching process, and remove boards of commands that ended.

        A board that cannot be written (a full disk) stops no study.
        """
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
        """Store the state of a job; a full disk stops no run."""
        # Not flushed to the disk: training waits for it, and it is worthless after a power failure.
        path = self.path / f"{state.num}.json"
        with suppress(OSError), replacing(path, lasting=False) as temporary:
            temporary.write_text(json.dumps(asdict(state)))

    def states(self) -> list[JobState]:
        """Return the states of all jobs that have begun, in their order."""
        states = []
        for path in self.path.glob("[0-9]*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                states.append(_state(json.loads(path.read_text())))
        return sorted(states, key=lambda state: state.num)

    def first_failure(self) -> JobState | None:
        """Return the first job that failed or was refused."""
        return next((state for state in self.states() if state.status in FAILED), None)


def _state(values: dict[str, Any]) -> JobState:
    progress = values.pop("progress")
    return JobState(**values, progress=RunProgress(**progress) if progress else None)

"""The output folder: whose it is, and that its files are all of one screening."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cnmc.errors import CnmcError

PAGE = "screening.html"
PREDICTIONS, SUBJECTS, SKIPPED = "predictions.csv", "subjects.csv", "skipped.csv"
SUBMISSION = "submission.zip"
JOURNAL = "journal.jsonl"

_RESULTS = (PREDICTIONS, SUBJECTS, SKIPPED, PAGE, SUBMISSION)
"""What a screening finds; the journal is what it is made of."""

FILES = frozenset({*_RESULTS, JOURNAL})
"""All that a screening writes, but for hidden files."""


@contextmanager
def output_lock(folder: Path) -> Iterator[None]:
    """Keep other processes out of an output folder, which is made where there is none.

    Raises:
        CnmcError: Another process screens into it, or it cannot be written, then or later.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".screening.lock", timeout=0):
            yield
    except Timeout:
        raise CnmcError(
            f"output={folder}: another process is screening into this folder; wait for it, or name "
            "another folder"
        ) from None
    except OSError as error:
        raise CnmcError(
            f"output={folder}: cannot be written ({error}); make room there, or name another folder"
        ) from error


@contextmanager
def replacing_results(folder: Path) -> Iterator[Path]:
    """Yield a folder whose files take the place of all former results if nothing is raised.

    Drawing the page may take minutes: a process that is killed then leaves the former results
    together, and never tables beside a page of other cells.

    Args:
        folder: The output folder.
    """
    new = folder / ".new"
    # Of a process that was killed.
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        written = [name for name in _RESULTS if (new / name).exists()]
        for name in _RESULTS:
            if name not in written:
                (folder / name).unlink(missing_ok=True)
        for name in written:
            (new / name).replace(folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove_results(folder: Path) -> None:
    """Remove the results of a screening whose journal is given up."""
    for name in _RESULTS:
        (folder / name).unlink(missing_ok=True)

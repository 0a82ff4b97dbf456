"""Keep the output folder of a screening consistent."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cnmc.errors import CnmcError

PAGE = "screening.html"
PREDICTIONS, SUBJECTS, SKIPPED = "predictions.csv", "subjects.csv", "skipped.csv"
SUBMISSION = "submission.zip"
JOURNAL = "journal.jsonl"

_RESULTS = (PREDICTIONS, SUBJECTS, SKIPPED, PAGE, SUBMISSION)
FILES = (*_RESULTS, JOURNAL)
"""All visible files of a screening."""


@contextmanager
def output_lock(folder: Path) -> Iterator[None]:
    """Create an output folder and keep other processes out of it.

    Raises:
        CnmcError: Another process is using it, or it cannot be written, now or later.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".screening.lock", timeout=0):
            yield
    except Timeout:
        raise CnmcError(
            f"output={folder}: another process is screening into this folder; wait for it, or give "
            "another folder"
        ) from None
    except OSError as error:
        raise CnmcError(
            f"output={folder}: cannot be written ({error}); make room there, or give another folder"
        ) from error


@contextmanager
def replacing_results(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files replace all former results if nothing is raised."""
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        written = [name for name in _RESULTS if (new / name).exists()]
        remove_results(folder, but=written)
        for name in written:
            (new / name).replace(folder / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def remove_results(folder: Path, but: Iterable[str] = ()) -> None:
    """Remove the results of a screening, except those with the given names."""
    for name in set(_RESULTS) - set(but):
        (folder / name).unlink(missing_ok=True)

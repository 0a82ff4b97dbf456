"""What was found as CSV files, and as the challenge's submission."""

from __future__ import annotations

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cnmc.deploy.gather import Skipped
from cnmc.deploy.judged import Cell, Subject
from cnmc.errors import CnmcError
from cnmc.files import replacing

SUBMITTED = "isbi_valid.predict"
"""The file in the submission."""

PREDICTION_COLUMNS = (
    "file",
    "subject",
    "probability",
    "label",
    "doubtful",
    "spread",
    "views_against",
    "views",
    "mean_logit",
    "warnings",
)
SUBJECT_COLUMNS = (
    "subject",
    "cells",
    "all",
    "share_all",
    "doubtful",
    "mean_probability",
    "low",
    "high",
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins so for a formula, which may do harm."""


def write_predictions(path: Path, cells: Iterable[Cell]) -> None:
    """Write a line a cell, :data:`PREDICTION_COLUMNS`."""
    _write(
        path,
        PREDICTION_COLUMNS,
        (
            (
                harmless(cell.name),
                harmless(cell.subject),
                f"{cell.probability:.6f}",
                cell.label,
                "yes" if cell.doubtful else "no",
                f"{cell.spread:.6f}",
                cell.num_against,
                cell.num_views,
                f"{cell.mean_logit:.6f}",
                "; ".join(cell.warnings),
            )
            for cell in cells
        ),
    )


def write_subjects(path: Path, subjects: Iterable[Subject]) -> None:
    """Write a line a subject, :data:`SUBJECT_COLUMNS`; the interval is empty for a single cell."""
    _write(
        path,
        SUBJECT_COLUMNS,
        (
            (
                harmless(subject.name),
                subject.num_cells,
                subject.num_all,
                f"{subject.share_all:.6f}",
                subject.num_doubtful,
                f"{subject.mean_probability:.6f}",
                *(f"{end:.6f}" for end in subject.interval or ()),
                *(("", "") if subject.interval is None else ()),
            )
            for subject in subjects
        ),
    )


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write a line for each file that was left out, ``file`` and ``reason``."""
    rows = ((harmless(item.name), harmless(item.reason)) for item in skipped)
    _write(path, ("file", "reason"), rows)


def harmless(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe goes before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def check_submission(names: Sequence[str], skipped: Sequence[Skipped]) -> None:
    """Refuse files that are not the challenge's: 1.bmp, 2.bmp and so on, each once and all read.

    Raises:
        CnmcError: Files have other names, are there twice, are missing, or were left out.
    """

    def refuse(what: str, which: Sequence[str]) -> None:
        if which:
            more = f" and {len(which) - 5} more" if len(which) > 5 else ""
            raise CnmcError(
                f"format=challenge: {what} {', '.join(which[:5])}{more}; expected 1.bmp, 2.bmp and "
                "so on without a gap, as the challenge has them, and nothing else"
            )

    refuse("left out:", [f"{item.name} ({item.reason})" for item in skipped])
    refuse("other names:", [name for name in names if not _is_numbered(name)])
    found = Counter(map(_number, names))
    refuse("there twice:", [f"{number}.bmp" for number in sorted(found) if found[number] > 1])
    # As many different numbers as files: where one is too high, one up to their number is missing.
    missing = [number for number in range(1, len(names) + 1) if number not in found]
    refuse("missing:", [f"{number}.bmp" for number in missing])


def write_submission(path: Path, cells: Sequence[Cell]) -> None:
    """Write the challenge's submission: a zipped file of one label a line, 1 ALL and 0 HEM.

    Args:
        path: The ``.zip``.
        cells: Those of :func:`check_submission`; the lines go by their numbers.
    """
    ordered = sorted(cells, key=lambda cell: _number(cell.name))
    text = "".join(f"{int(cell.is_all)}\n" for cell in ordered)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        # ZipInfo has a fixed date: the same labels are the same file.
        archive.writestr(zipfile.ZipInfo(SUBMITTED), text, zipfile.ZIP_DEFLATED)


def _is_numbered(name: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,8}\.bmp", name, re.IGNORECASE) is not None


def _number(name: str) -> int:
    return int(name.partition(".")[0])


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)

"""Write the results of a screening as CSV files and as the challenge's submission."""

from __future__ import annotations

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cnmc.deploy.gather import Skipped
from cnmc.deploy.judgement import Cell, Subject
from cnmc.errors import CnmcError

SUBMITTED = "isbi_valid.predict"
"""Name of the file in the submission."""

_PREDICTIONS = (
    "file,subject,probability,label,doubtful,spread,views_against,views,mean_logit,warnings"
)
_SUBJECTS = "subject,cells,all,share_all,doubtful,mean_probability,low,high"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins with one of these for a formula."""


def write_predictions(path: Path, cells: Iterable[Cell]) -> None:
    """Write one row per cell."""
    rows = (
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
    )
    _write(path, _PREDICTIONS, rows)


def write_subjects(path: Path, subjects: Iterable[Subject]) -> None:
    """Write one row per subject; the interval of a single cell is empty."""
    rows = (
        (
            harmless(subject.name),
            subject.num_cells,
            subject.num_all,
            f"{subject.share_all:.6f}",
            subject.num_doubtful,
            f"{subject.mean_probability:.6f}",
            *([f"{end:.6f}" for end in subject.interval] if subject.interval else ("", "")),
        )
        for subject in subjects
    )
    _write(path, _SUBJECTS, rows)


def write_skipped(path: Path, skipped: Iterable[Skipped]) -> None:
    """Write one row per file that was left out."""
    rows = ((harmless(item.name), harmless(item.reason)) for item in skipped)
    _write(path, "file,reason", rows)


def harmless(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def check_submission(names: Sequence[str], skipped: Sequence[Skipped]) -> None:
    """Refuse files other than those of the challenge: 1.bmp, 2.bmp, and so on without a gap.

    Raises:
        CnmcError: Files were left out, have other names, occur twice or are missing.
    """
    found = Counter(map(_number, names))
    problems = {
        "left out:": [f"{item.name} ({item.reason})" for item in skipped],
        "other names:": [name for name in names if _number(name) is None],
        "twice:": [f"{number}.bmp" for number, count in found.items() if number and count > 1],
        "missing:": [f"{n}.bmp" for n in range(1, len(names) + 1) if n not in found],
    }
    for what, which in problems.items():
        if which:
            more = f" and {len(which) - 5} more" if len(which) > 5 else ""
            raise CnmcError(
                f"format=challenge: {what} {', '.join(which[:5])}{more}; expected 1.bmp, 2.bmp and "
                "so on without a gap, as in the challenge, and no other file"
            )


def write_submission(path: Path, cells: Sequence[Cell]) -> None:
    """Write the challenge's submission: a zipped file with one label per line, 1 ALL and 0 HEM.

    Args:
        path: The ``.zip``.
        cells: Cells that passed :func:`check_submission`; the lines are in order of their numbers.
    """
    ordered = sorted(cells, key=lambda cell: _number(cell.name) or 0)
    text = "".join(f"{int(cell.is_all)}\n" for cell in ordered)
    with zipfile.ZipFile(path, "w") as archive:
        # ZipInfo has a fixed date, so the same labels give the same file.
        archive.writestr(zipfile.ZipInfo(SUBMITTED), text, zipfile.ZIP_DEFLATED)


def _number(name: str) -> int | None:
    found = re.fullmatch(r"([1-9][0-9]{0,8})\.bmp", name, re.IGNORECASE)
    return int(found[1]) if found else None


def _write(path: Path, columns: str, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns.split(","))
        writer.writerows(rows)

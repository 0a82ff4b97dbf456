"""Judge the cells of a screening by their logits, and write the results.

Logits become probabilities, classes and doubts, by cell and by subject.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from cnmc.analysis.decision import Decision, sigmoid
from cnmc.data.names import CLASS_NAMES, parse_uid
from cnmc.errors import CnmcError
from cnmc.files import natural_key, replacing

RESULTS = ("predictions.csv", "subjects.csv", "skipped.csv", "screening.html", "submission.zip")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins with one of these for a formula."""

MOST_AGAINST = 0.25
"""A cell is doubtful where this share of its views, or more, calls the other class."""

LEAST_ODDS = 2.0
"""A cell is doubtful where its odds are within this factor of the threshold's."""


class Entry(NamedTuple):
    """The logits of a file's content, by network and rotation, and the warnings about it."""

    logits: Sequence[Sequence[float]]
    warnings: Sequence[str]


class Cell(NamedTuple):
    """A row of ``predictions.csv``, and the log odds minus those of the threshold."""

    file: str
    subject: str
    probability: float
    label: str
    doubtful: bool
    spread: float
    views_against: int
    views: int
    mean_logit: float
    warnings: Sequence[str]
    margin: float


class Subject(NamedTuple):
    """A row of ``subjects.csv``; the ends of the interval are None for a single cell."""

    subject: str
    cells: int
    all: int
    share_all: float
    doubtful: int
    mean_probability: float
    low: float | None
    high: float | None


def judge(seen: Mapping[str, Entry], decisions: Sequence[Decision], threshold: float) -> list[Cell]:
    """Decide about cells, which are ALL from a probability of ``threshold`` on.

    The logits of each network are divided by the temperature of its decision, which makes them
    comparable log odds, then averaged over the views: the rotations, by each network.
    """
    if not seen:
        return []
    logits = [np.array(rows) for rows in zip(*(e.logits for e in seen.values()), strict=True)]
    views = [rows / item.temperature for rows, item in zip(logits, decisions, strict=True)]
    log_odds = np.mean([rows.mean(axis=1) for rows in views], axis=0)
    probs, probs_of_views = sigmoid(log_odds), sigmoid(np.concatenate(views, axis=1))
    is_all = probs >= threshold
    margins = log_odds - _log_odds(threshold)
    is_against = (probs_of_views >= threshold) != is_all[:, None]
    is_close = np.abs(margins) < math.log(LEAST_ODDS)
    uids = [parse_uid(PurePosixPath(name).name) for name in seen]
    columns = (
        seen,
        ["" if uid is None else uid.subject for uid in uids],
        probs.tolist(),
        np.array(CLASS_NAMES)[is_all.astype(int)].tolist(),
        (is_close | (is_against.mean(axis=1) >= MOST_AGAINST)).tolist(),
        probs_of_views.std(axis=1).tolist(),
        is_against.sum(axis=1).tolist(),
        [is_against.shape[1]] * len(seen),
        np.mean([rows.mean(axis=1) for rows in logits], axis=0).tolist(),
        [entry.warnings for entry in seen.values()],
        margins.tolist(),
    )
    return [Cell(*values) for values in zip(*columns, strict=True)]


def by_subject(cells: Sequence[Cell]) -> list[Subject]:
    """Summarise each subject in natural order, and last the cells without a subject.

    The interval of the mean probability is a percentile bootstrap over the cells (95 %). Cells of a
    subject are alike, so it says nothing about other cells.
    """
    subjects = []
    for name in sorted({c.subject for c in cells}, key=lambda name: (not name, natural_key(name))):
        mine = [cell for cell in cells if cell.subject == name]
        probs = np.array([cell.probability for cell in mine])
        num_all, num_doubtful = (
            sum(c.label == CLASS_NAMES[1] for c in mine),
            sum(c.doubtful for c in mine),
        )
        ends = [None, None]
        if len(mine) > 1:
            rng = np.random.default_rng(0)
            means = [rng.choice(probs, len(probs)).mean() for _ in range(2000)]
            ends = np.quantile(means, [0.025, 0.975]).tolist()
        numbers = len(mine), num_all, num_all / len(mine), num_doubtful, float(probs.mean())
        subjects.append(Subject(name, *numbers, *ends))
    return subjects


def threshold_of(decisions: Sequence[Decision], wanted: str) -> float:
    """Return the threshold of one network, or the mean of an ensemble's thresholds as log odds.

    With a wanted sensitivity, each network's own threshold has it on its choosing cells; for the
    ensemble it was not measured. See :meth:`~cnmc.analysis.decision.Decision.threshold_for`.
    """
    thresholds = [decision.threshold_for(wanted) for decision in decisions]
    if len(set(thresholds)) == 1:
        return thresholds[0]
    return float(sigmoid(np.mean([_log_odds(threshold) for threshold in thresholds])))


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@contextmanager
def output_lock(folder: Path) -> Iterator[None]:
    """Create an output folder and keep other processes out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".screening.lock", timeout=0):
            yield
    except OSError as error:  # or the Timeout of a lock
        raise CnmcError(
            f"output={folder}: cannot be written ({error}); make room there, wait for another "
            "screening into it, or give another folder"
        ) from error


def write_results(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace all former results by files with these names and contents, or change nothing."""
    with ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(replacing(folder / name)).write_bytes(content)
        for name in set(RESULTS) - set(contents):
            (folder / name).unlink(missing_ok=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as CSV: numbers with 6 decimals, and no text that a spreadsheet would execute."""

    def plain(value: object) -> object:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list):
            return "; ".join(value)
        if isinstance(value, float):
            return f"{value:.6f}"
        return f"'{value}" if str(value).startswith(_FORMULA) else value

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *(map(plain, row) for row in rows)])
    return text.getvalue().encode()


def check_submission(names: Collection[str], skipped: Collection[str]) -> None:
    """Refuse files other than those of the challenge: 1.bmp, 2.bmp, and so on without a gap."""
    expected = {f"{number}.bmp" for number in range(1, len(names) + 1)}
    wrong = list(skipped) or sorted({n.lower() for n in names} ^ expected, key=natural_key)
    if wrong:
        raise CnmcError(
            f"format=challenge: {', '.join(wrong[:5])}: {'left out' if skipped else 'unexpected'}"
            " or missing; expected 1.bmp, 2.bmp and so on without a gap, and no other file"
        )


def submission(labels: Iterable[str]) -> bytes:
    """Return the challenge's submission: a zipped file with one label per line, 1 ALL and 0 HEM."""
    content = io.BytesIO()
    text = "".join(f"{int(label == 'ALL')}\n" for label in labels)
    with zipfile.ZipFile(content, "w") as archive:
        # ZipInfo has a fixed date, so the same labels give the same file.
        archive.writestr(zipfile.ZipInfo("isbi_valid.predict"), text, zipfile.ZIP_DEFLATED)
    return content.getvalue()

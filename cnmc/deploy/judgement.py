"""Turn the logits of cells into probabilities, classes and doubts, by cell and by subject."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from cnmc.analysis.decision import Decision, sigmoid
from cnmc.data.names import parse_uid
from cnmc.deploy.outputs import Entry
from cnmc.files import natural_key

MOST_AGAINST = 0.25
"""A cell is doubtful where this share of its views, or more, calls the other class."""

LEAST_ODDS = 2.0
"""A cell is doubtful where its odds are within this factor of the threshold's."""


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
        np.where(is_all, "ALL", "HEM").tolist(),
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
        num_all, num_doubtful = sum(c.label == "ALL" for c in mine), sum(c.doubtful for c in mine)
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

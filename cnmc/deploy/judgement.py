"""Turn the logits of cells into probabilities, classes and doubts, by cell and by subject."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cnmc.analysis.decision import Decision
from cnmc.data.names import parse_uid
from cnmc.deploy.screen import Seen
from cnmc.files import natural_key

MOST_AGAINST = 0.25
"""A cell is doubtful where this share of its views, or more, calls the other class."""

LEAST_ODDS = 2.0
"""A cell is doubtful where its odds are within this factor of the threshold's."""

_RESAMPLES = 2000
_sigmoid = Decision().probabilities


@dataclass(frozen=True)
class Cell:
    """A cell and what the networks say about it.

    Attributes:
        name: Path of its file relative to the input folder.
        path: Its file.
        subject: Subject in its name; empty where there is none.
        probability: Probability of ALL, 0 to 1.
        is_all: Whether the probability reaches the threshold.
        margin: Log odds minus those of the threshold.
        mean_logit: Mean over rotations and networks, before any temperature.
        spread: Standard deviation of the probability over the views.
        num_against: Views that call the other class.
        num_views: Views: the rotations, by each network.
        doubtful: Whether :data:`MOST_AGAINST` or :data:`LEAST_ODDS` applies.
        warnings: How its image differs from those of training.
    """

    name: str
    path: Path
    subject: str
    probability: float
    is_all: bool
    margin: float
    mean_logit: float
    spread: float
    num_against: int
    num_views: int
    doubtful: bool
    warnings: tuple[str, ...]

    @property
    def label(self) -> str:
        """``ALL`` or ``HEM``."""
        return "ALL" if self.is_all else "HEM"


@dataclass(frozen=True)
class Subject:
    """All cells of a subject.

    Attributes:
        name: Empty for the cells whose names contain no subject.
        interval: 95 % interval of this mean, by a percentile bootstrap over the cells; None for a
            single cell. Cells of a subject are alike, so it says nothing about other cells.
    """

    name: str
    num_cells: int
    num_all: int
    num_doubtful: int
    mean_probability: float
    interval: tuple[float, float] | None

    @property
    def share_all(self) -> float:
        """Share of cells called ALL, 0 to 1."""
        return self.num_all / self.num_cells


def judge(seen: Sequence[Seen], decisions: Sequence[Decision], threshold: float) -> list[Cell]:
    """Decide about cells.

    The logits of each network are divided by its temperature, which makes them comparable log
    odds, then averaged over rotations and networks.

    Args:
        seen: The cells.
        decisions: One per network, in the order of the logits.
        threshold: Probability from which a cell is called ALL.
    """
    if not seen:
        return []
    logits = [
        np.array([item.entry.logits[position] for item in seen], dtype=np.float32)
        for position in range(len(decisions))
    ]
    views = [
        values.astype(np.float64) / decision.temperature
        for values, decision in zip(logits, decisions, strict=True)
    ]
    odds = np.mean([values.mean(axis=1) for values in views], axis=0)
    probabilities, of_views = _sigmoid(odds), _sigmoid(np.concatenate(views, axis=1))
    is_all = probabilities >= threshold
    margins = odds - _log_odds(threshold)
    against = ((of_views >= threshold) != is_all[:, None]).sum(axis=1)
    num_views = of_views.shape[1]
    doubtful = (np.abs(margins) < math.log(LEAST_ODDS)) | (against >= MOST_AGAINST * num_views)
    mean_logits = np.mean([values.mean(axis=1, dtype=np.float64) for values in logits], axis=0)
    return [
        Cell(
            name=item.source.name,
            path=item.source.path,
            subject=_subject(item.source.name),
            probability=float(probabilities[row]),
            is_all=bool(is_all[row]),
            margin=float(margins[row]),
            mean_logit=float(mean_logits[row]),
            spread=float(of_views[row].std()),
            num_against=int(against[row]),
            num_views=num_views,
            doubtful=bool(doubtful[row]),
            warnings=item.entry.warnings,
        )
        for row, item in enumerate(seen)
    ]


def by_subject(cells: Sequence[Cell]) -> list[Subject]:
    """Return the subjects in natural order; cells without a known subject come last."""
    members: dict[str, list[Cell]] = {}
    for cell in cells:
        members.setdefault(cell.subject, []).append(cell)
    names = sorted(members, key=lambda name: (name == "", natural_key(name)))
    return [_summary(name, members[name]) for name in names]


def threshold_of(decisions: Sequence[Decision], wanted: str) -> float:
    """Return the threshold of one network or of an ensemble.

    For an ensemble it is the mean of the networks' thresholds as log odds. With a wanted
    sensitivity, each network's own threshold has it on its choosing cells; for the ensemble it was
    not measured.

    Args:
        decisions: One per network.
        wanted: As in :meth:`~cnmc.analysis.decision.Decision.threshold_for`.

    Raises:
        CnmcError: The text is wrong, or a network has no such threshold.
    """
    thresholds = [decision.threshold_for(wanted) for decision in decisions]
    if len(set(thresholds)) == 1:
        return thresholds[0]
    return float(_sigmoid(np.mean([_log_odds(threshold) for threshold in thresholds])))


def _summary(name: str, cells: Sequence[Cell]) -> Subject:
    values = np.array([cell.probability for cell in cells])
    interval = None
    if len(values) > 1:
        rng = np.random.default_rng(0)
        means = [
            values[rng.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)
        ]
        low, high = np.quantile(means, [0.025, 0.975])
        interval = float(low), float(high)
    return Subject(
        name=name,
        num_cells=len(cells),
        num_all=sum(cell.is_all for cell in cells),
        num_doubtful=sum(cell.doubtful for cell in cells),
        mean_probability=float(values.mean()),
        interval=interval,
    )


def _subject(name: str) -> str:
    uid = parse_uid(PurePosixPath(name).name)
    return "" if uid is None else uid.subject


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))

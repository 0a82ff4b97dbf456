"""What is known of each cell and each subject when all is screened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cnmc.analysis.decision import Decision
from cnmc.data.names import parse_uid
from cnmc.deploy.judgement import judge
from cnmc.deploy.screen import Seen
from cnmc.files import natural_key

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Cell:
    """A cell and what the networks think of it; see :class:`~cnmc.deploy.judgement.Judgement`.

    Attributes:
        name: Path of its file relative to the input folder.
        path: Its file.
        subject: As its name tells it; empty where it does not.
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
    """The cells of a subject together.

    Attributes:
        name: Empty for the cells whose names tell no subject.
        num_cells: Their number.
        num_all: Those called ALL.
        num_doubtful: Those that are doubtful.
        mean_probability: Over the cells.
        interval: Its 95 % interval, by a percentile bootstrap over the cells: how precisely these
            cells measure this mean. Cells of a subject are alike and the network may be wrong about
            all of them, so it says nothing of how sure one can be about the subject. None for a
            single cell.
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


def judge_cells(
    seen: Sequence[Seen], decisions: Sequence[Decision], threshold: float
) -> list[Cell]:
    """Decide about all cells that the networks have seen.

    Args:
        seen: In the order that is kept.
        decisions: One a network, as the entries have them.
        threshold: Probability from which a cell is called ALL.
    """
    if not seen:
        return []
    logits = [
        np.array([item.entry.logits[position] for item in seen], dtype=np.float32)
        for position in range(len(decisions))
    ]
    found = judge(logits, decisions, threshold)
    return [
        Cell(
            name=item.source.name,
            path=item.source.path,
            subject=_subject(item.source.name),
            probability=float(found.probabilities[row]),
            is_all=bool(found.is_all[row]),
            margin=float(found.margins[row]),
            mean_logit=float(found.mean_logits[row]),
            spread=float(found.spread[row]),
            num_against=int(found.num_against[row]),
            num_views=found.num_views,
            doubtful=bool(found.doubtful[row]),
            warnings=item.entry.warnings,
        )
        for row, item in enumerate(seen)
    ]


def by_subject(cells: Sequence[Cell]) -> list[Subject]:
    """Return the subjects in natural order, and last the cells of none that is known."""
    members: dict[str, list[Cell]] = {}
    for cell in cells:
        members.setdefault(cell.subject, []).append(cell)
    names = sorted(members, key=lambda name: (name == "", natural_key(name)))
    return [_summary(name, members[name]) for name in names]


def _summary(name: str, cells: Sequence[Cell]) -> Subject:
    values = np.array([cell.probability for cell in cells])
    interval = None
    if len(values) > 1:
        rng = np.random.default_rng(_SEED)
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

"""From the logits of a cell to its probability, its label and whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnmc.analysis.decision import Decision
from cnmc.deploy.runtime import Logits

Numbers = NDArray[np.float64]

MOST_AGAINST = 0.25
"""A cell is doubtful where this share of its views, or more, calls the other class."""

LEAST_ODDS = 2.0
"""A cell is doubtful where its odds are within this factor of the threshold's: at a threshold of
0.5, where its probability is between a third and two thirds."""


@dataclass(frozen=True)
class Judgement:
    """What networks think of N cells.

    Attributes:
        mean_logits: Mean logit over rotations and networks, before any temperature.
        probabilities: Of ALL, 0 to 1.
        margins: Log odds of the probability less those of the threshold: how decided a cell is,
            also where its probability rounds to 0 or 1.
        is_all: Whether the probability reaches the threshold.
        spread: Standard deviation of the probability over the views of a cell: its rotations, by
            each network.
        num_against: Views that call the other class.
        num_views: Views of each cell.
        doubtful: Where :data:`MOST_AGAINST` or :data:`LEAST_ODDS` says so.
    """

    mean_logits: Numbers
    probabilities: Numbers
    margins: Numbers
    is_all: NDArray[np.bool_]
    spread: Numbers
    num_against: NDArray[np.int64]
    num_views: int
    doubtful: NDArray[np.bool_]


def judge(logits: Sequence[Logits], decisions: Sequence[Decision], threshold: float) -> Judgement:
    """Decide about cells.

    Each network's logits are divided by its own temperature, which makes them log odds that mean
    what they say; these are averaged over rotations and then over networks. Of one network this is
    its own probability, and the paper's mean logit; of several, a network that is too sure of
    itself does not outvote the others.

    Args:
        logits: One array (N, rotations) a network.
        decisions: One a network.
        threshold: Probability from which a cell is called ALL.
    """
    views = [
        np.asarray(values, dtype=np.float64) / decision.temperature
        for values, decision in zip(logits, decisions, strict=True)
    ]
    odds = np.mean([values.mean(axis=1) for values in views], axis=0)
    probabilities = _sigmoid(odds)
    is_all = probabilities >= threshold
    of_views = _sigmoid(np.concatenate(views, axis=1))
    num_views = of_views.shape[1]
    num_against = ((of_views >= threshold) != is_all[:, None]).sum(axis=1)
    margins = odds - _log_odds(threshold)
    near = np.abs(margins) < math.log(LEAST_ODDS)
    return Judgement(
        mean_logits=np.mean([np.mean(values, axis=1, dtype=np.float64) for values in logits], 0),
        probabilities=probabilities,
        margins=margins,
        is_all=is_all,
        spread=of_views.std(axis=1),
        num_against=num_against,
        num_views=num_views,
        doubtful=near | (num_against >= MOST_AGAINST * num_views),
    )


def threshold_of(decisions: Sequence[Decision], wanted: str) -> float:
    """Return the threshold of one network, or of several together.

    Of several it is the mean of their own thresholds as log odds, as their probabilities are
    averaged: a cell that is at the threshold of each is at that of all. Where a sensitivity was
    asked for, each network's threshold has it on the part that chose it; all together are usually
    better, but nobody has measured it.

    Args:
        decisions: One a network.
        wanted: As :meth:`~cnmc.analysis.decision.Decision.threshold_for` takes it.

    Raises:
        CnmcError: The words are wrong, or a network has no such point.
    """
    thresholds = [decision.threshold_for(wanted) for decision in decisions]
    if len(set(thresholds)) == 1:
        return thresholds[0]
    mean = np.mean([_log_odds(threshold) for threshold in thresholds])
    return float(_sigmoid(np.array(mean)))


def _sigmoid(log_odds: Numbers) -> Numbers:
    # By logarithms, as a large number would overflow.
    probabilities: Numbers = np.exp(-np.logaddexp(0.0, -log_odds))
    return probabilities


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))

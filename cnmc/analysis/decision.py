"""From logits to decisions: temperature, threshold, and other possible thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cnmc.errors import CnmcError

PAPER_THRESHOLD = 0.5
"""The probability of a mean logit of 0 at any temperature."""


def sigmoid(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the probabilities of ALL, in double precision, of the same shape."""
    # In logarithms, because a large logit would overflow.
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64))))


@dataclass(frozen=True)
class Decision:
    """Temperature and threshold that turn a mean logit into a probability and a class."""

    temperature: float = 1.0
    """Logits are divided by it before the sigmoid."""
    threshold: float = PAPER_THRESHOLD
    """Probability from which a cell is called ALL, in (0, 1)."""
    chosen_on: str = ""
    """Role of the cells that chose both, such as ``val``; empty if nothing was chosen."""
    num_cells: int = 0
    points: tuple[tuple[float, ...], ...] = ()
    """Threshold, sensitivity and specificity on those cells, thresholds ascending."""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Decision:
        """Return a decision that was stored as plain values.

        Raises:
            CnmcError: A value is missing, unknown, of another type or out of range.
        """
        with suppress(KeyError, TypeError, ValueError):
            points = tuple(tuple(map(float, point)) for point in values["points"])
            found = cls(**{**values, "points": points})
            if (
                len(values) == len(fields(cls))
                and 0.0 < found.temperature < math.inf
                and 0.0 < found.threshold < 1.0
                and isinstance(found.chosen_on, str)
                and type(found.num_cells) is int
                and all(len(point) == 3 and 0 <= min(point) <= max(point) <= 1 for point in points)
                and all(one[0] < next_one[0] for one, next_one in pairwise(points))
            ):
                return found
        raise CnmcError("decision: a value is missing, unknown, of another type or out of range")

    def probabilities(self, mean_logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the probability of ALL of each mean logit, of the same shape."""
        return sigmoid(np.asarray(mean_logits, dtype=np.float64) / self.temperature)

    def threshold_for(self, wanted: str) -> float:
        """Return the probability from which a cell is called ALL.

        ``wanted`` is ``checkpoint`` (the stored one), ``paper`` (a mean logit of 0), a number in
        (0, 1), ``sensitivity:0.95`` (the highest specificity with this sensitivity on the cells
        that chose it) or ``specificity:0.9``.

        Raises:
            CnmcError: It is something else, or the point cannot be reached.
        """
        text = wanted.strip().lower()
        if text in ("checkpoint", "paper"):
            return self.threshold if text == "checkpoint" else PAPER_THRESHOLD
        kind, _, value = text.rpartition(":")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not kind and 0.0 < number < 1.0:
            return number
        if kind not in ("sensitivity", "specificity") or not 0.0 < number <= 1.0:
            raise CnmcError(
                f"threshold={wanted}: expected checkpoint, paper, a number between 0 and 1, "
                "sensitivity:0.95 or specificity:0.9"
            )
        if not self.points:
            raise CnmcError(
                f"threshold={wanted}: nothing was chosen for this network, so the {kind} of a "
                "threshold is not known; give threshold=paper or a number"
            )
        column, other = (1, 2) if kind == "sensitivity" else (2, 1)
        enough = [point for point in self.points if point[column] >= number]
        if not enough:
            highest = max(point[column] for point in self.points)
            raise CnmcError(f"threshold={wanted}: the highest possible {kind} is {highest:.4f}")
        return max(enough, key=lambda point: (point[other], point[column]))[0]

"""From logits to decisions: temperature, threshold, and other possible thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cnmc.errors import CnmcError

PAPER_THRESHOLD = 0.5
"""The probability of a mean logit of 0, whatever the temperature."""

_POINTS = ("sensitivity", "specificity")


@dataclass(frozen=True)
class Decision:
    """Temperature and threshold that turn a mean logit into a probability and a class.

    Attributes:
        temperature: Logits are divided by it before the sigmoid.
        threshold: Probability from which a cell is called ALL, in (0, 1), with the highest weighted
            F1 on the cells that it was chosen on.
        chosen_on: Role of those cells, such as ``val``; empty if nothing was chosen.
        num_cells: Their number.
        points: Threshold, sensitivity and specificity on those cells, thresholds ascending.

    Raises:
        CnmcError: A value is of another type or out of range.
    """

    temperature: float = 1.0
    threshold: float = PAPER_THRESHOLD
    chosen_on: str = ""
    num_cells: int = 0
    points: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        """Check types and ranges: values may come from a file."""
        _expect(_is_number(self.temperature) and self.temperature > 0, "temperature")
        _expect(_is_threshold(self.threshold), "threshold")
        _expect(isinstance(self.chosen_on, str), "chosen_on")
        _expect(type(self.num_cells) is int and self.num_cells >= 0, "num_cells")
        _expect(isinstance(self.points, tuple), "points")
        before = 0.0
        for point in self.points:
            _expect(
                isinstance(point, tuple)
                and len(point) == 3
                and all(_is_number(value) and 0.0 <= value <= 1.0 for value in point)
                and before < point[0] < 1.0,
                "points",
            )
            before = point[0]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Decision:
        """Return a decision that was kept as plain values, sequences perhaps as lists.

        Raises:
            CnmcError: A value is missing, unknown, of another type or out of range.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise CnmcError(f"decision: expected {', '.join(sorted(names))}")
        points = values["points"]
        _expect(isinstance(points, list | tuple), "points")
        _expect(all(isinstance(point, list | tuple) for point in points), "points")
        return cls(**{**values, "points": tuple(tuple(point) for point in points)})

    def probabilities(self, mean_logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the probability of ALL of each mean logit, of the same shape."""
        scaled = np.asarray(mean_logits, dtype=np.float64) / self.temperature
        # In logarithms, because a large logit would overflow.
        probs: npt.NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -scaled))
        return probs

    def threshold_for(self, wanted: str) -> float:
        """Return the probability from which a cell is called ALL.

        Args:
            wanted: ``checkpoint`` (the one that came with it), ``paper`` (a mean logit of 0), a
                number in (0, 1), or a point such as ``sensitivity:0.95``: the threshold with the
                highest specificity among those that reach this sensitivity on the cells that it was
                chosen on; ``specificity:0.9`` is the other way round.

        Raises:
            CnmcError: The words are others, or the point cannot be had.
        """
        text = wanted.strip().lower()
        if text == "checkpoint":
            return self.threshold
        if text == "paper":
            return PAPER_THRESHOLD
        kind, _, value = text.rpartition(":")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not kind and _is_threshold(number):
            return number
        if kind not in _POINTS or not 0.0 < number <= 1.0:
            raise CnmcError(
                f"threshold={wanted}: expected checkpoint, paper, a number between 0 and 1, "
                "sensitivity:0.95 or specificity:0.9"
            )
        return self._at_least(kind, number, wanted)

    def _at_least(self, kind: str, least: float, wanted: str) -> float:
        if not self.points:
            raise CnmcError(
                f"threshold={wanted}: nothing was chosen for this network, so what a threshold "
                "gives is not known; give threshold=paper or a number"
            )
        column, other = (1, 2) if kind == "sensitivity" else (2, 1)
        enough = [point for point in self.points if point[column] >= least]
        if not enough:
            highest = max(point[column] for point in self.points)
            raise CnmcError(
                f"threshold={wanted}: the highest {kind} that can be had is {highest:.4f}"
            )
        return max(enough, key=lambda point: (point[other], point[column]))[0]


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


def _is_threshold(value: object) -> bool:
    return _is_number(value) and 0.0 < float(value) < 1.0  # type: ignore[arg-type]


def _expect(condition: bool, name: str) -> None:
    if not condition:
        raise CnmcError(f"decision: {name} is of another type or out of range")

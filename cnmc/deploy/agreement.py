"""How far the logits of a backend are from those of the network itself.

Networks amplify the rounding of 32-bit numbers, some a thousandfold, so no single tolerance suits
all: the distance of a backend is to be held against that of PyTorch's own arithmetic.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cnmc.analysis.metrics import decision_metrics
from cnmc.data.parallel import progress
from cnmc.deploy.backends import eager
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.runtime import Images, Logits, Predictor
from cnmc.model.preprocess import to_float
from cnmc.model.tta import predict_logits

_AT_ONCE = 8

TOLERANCE = 1e-4
"""Distance of logits that no decision or table depends on."""


@dataclass(frozen=True)
class Agreement:
    """A backend against PyTorch on the same cells.

    Attributes:
        to_eager: Largest distance of a logit to the one that training's evaluation gives it.
        to_exact: Largest distance to 64-bit arithmetic.
        rounding: The same for PyTorch in 32 bits: what no backend can be blamed for.
        same_decisions: Share of cells, 0 to 1, with the same sign of the mean logit as in eager.
        f1: Weighted F1 of the backend, 0 to 1; NaN where no labels were given.
        f1_of_eager: The same of PyTorch.
    """

    to_eager: float
    to_exact: float
    rounding: float
    same_decisions: float
    f1: float = math.nan
    f1_of_eager: float = math.nan

    @property
    def is_faithful(self) -> bool:
        """Whether the logits are as good as PyTorch's; those of 8-bit numbers are not.

        They are equal within the tolerance, or else, where the network amplifies rounding, at most
        twice as far from exact arithmetic as PyTorch's are.
        """
        return self.to_eager <= TOLERANCE or self.to_exact <= 2 * self.rounding


def compare(
    predictor: Predictor,
    graph: CellGraph,
    images: Images,
    labels: NDArray[np.int64] | None = None,
    *,
    exact: bool = True,
) -> Agreement:
    """Hold a backend against the network that it was made of.

    Args:
        predictor: The backend.
        graph: The network.
        images: At least one cell, as both take it. Each costs three passes, one in 64 bits.
        labels: 1 where a cell is ALL, else 0, for F1; then a progress bar is shown.
        exact: Leave the pass in 64 bits out where this is false; its distances are NaN then.
    """
    plain = eager(graph)
    slices = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    parts = []
    with progress("Checking", len(images), show_progress=labels is not None) as advance:
        for part in slices:
            parts.append((predictor.predict(part), plain.predict(part)))
            advance(len(part))
    logits, expected = (np.concatenate(side) for side in zip(*parts, strict=True))
    true = exact_logits(graph, images) if exact else np.full_like(expected, np.nan)
    means = logits.mean(axis=1), expected.mean(axis=1)
    f1 = [math.nan, math.nan]
    if labels is not None:
        f1 = [float(decision_metrics(labels, mean)["f1"]) for mean in means]
    return Agreement(
        to_eager=float(np.abs(logits - expected).max()),
        to_exact=float(np.abs(logits - true).max()),
        rounding=float(np.abs(expected - true).max()),
        same_decisions=float(((means[0] > 0) == (means[1] > 0)).mean()),
        f1=f1[0],
        f1_of_eager=f1[1],
    )


def exact_logits(graph: CellGraph, images: Images) -> Logits:
    """Return the logits that 64-bit arithmetic gives, one a rotation; rounded when all is done."""
    info = graph.info
    network = copy.deepcopy(graph.network).double()
    with torch.no_grad():
        logits: Logits = predict_logits(
            network,
            torch.from_numpy(np.array(images)).permute(0, 3, 1, 2),
            info.num_rotations,
            lambda views: to_float(views, info.mean, info.std).double(),
        ).numpy()
    return logits

"""Scores of the stored logits by other choices of epoch and rotations, and of ensembles.

The paper reports the F1 that chose the epoch (section 4.2), which is optimistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd

from cnmc.analysis.bootstrap import strata_of
from cnmc.analysis.metrics import (
    FloatArray,
    IntArray,
    confusion,
    count_metrics,
    decision_metrics,
    evaluate_each,
)
from cnmc.analysis.results import Group
from cnmc.analysis.statistics import std
from cnmc.runs.identity import differing_keys

NUM_DIVISIONS = 100
NUM_CHOICES = 50
HONEST = "honest protocol"


class Scheme(NamedTuple):
    """F1 of each run, shape (R,), under a rule that chooses the epoch."""

    name: str
    f1: FloatArray
    note: str


def best_upright_logits(group: Group) -> FloatArray:
    """Return the upright logits of each run's epoch of the highest upright F1, shape (R, N).

    This is the paper's NOROT (section 4.4): the training of PROPOSAL, and only the original
    orientation in evaluation and choice of the epoch.
    """
    logits = _trained(group, rotations=False)
    chosen = np.argmax(decision_metrics(group.labels, logits)["f1"], axis=0)
    return np.asarray(logits[chosen, np.arange(logits.shape[1])])


def _trained(group: Group, *, rotations: bool) -> FloatArray:
    """Return the logits of the epochs after 0, or of all epochs if there is no other."""
    epochs, logits = group.by_epoch(rotations=rotations)
    return logits[epochs > 0] if (epochs > 0).any() else logits


def schemes(group: Group, others: tuple[Group, ...] = ()) -> list[Scheme]:
    """Return the F1 of the same runs, and of an honest twin among other groups, by each rule.

    With protocol honest there is only one rule.
    """
    f1 = decision_metrics(group.labels, group.logits)["f1"]
    if group.protocol == "honest":
        note = "subjects of the training part chose the epoch, so fewer cells trained"
        return [Scheme(HONEST, f1, note)]
    numbers = group.subjects
    counts = confusion(group.labels, _trained(group, rotations=True) > 0.0, numbers)
    last = count_metrics(counts[-1].sum(axis=1))["f1"]
    paper = "the paper's rule: the same cells choose and are reported"
    found = [
        Scheme("best epoch on the reported cells", f1, paper),
        Scheme("last epoch", last, "no choice at all"),
    ]
    crossed = choose_on_other_subjects(counts, strata_of(group.labels, numbers))
    if crossed is not None:
        note = (
            "from the same runs: half of the subjects chooses the epoch of the other half, "
            f"over {NUM_DIVISIONS} divisions"
        )
        found.append(Scheme("epoch chosen on other subjects", crossed, note))
    return found + [schemes(other)[0] for other in others if is_honest_twin(group, other)]


def is_honest_twin(group: Group, other: Group) -> bool:
    """Return whether the other group is the same study with protocol honest on the same cells."""
    if (group.protocol, other.protocol) != ("paper", "honest"):
        return False
    keys = differing_keys(group.runs[0].variant, other.runs[0].variant)
    only_split = all(key == "split file" or key.startswith("split.") for key in keys)
    return only_split and group.cells.equals(other.cells)


def choose_on_other_subjects(counts: IntArray, strata: IntArray) -> FloatArray | None:
    """Return the F1 of each run if the epoch is chosen on other subjects, shape (R,).

    The subjects are divided into halves, class by class. Each half is scored at the epoch that is
    best on the other; both together give one F1, which is averaged over the divisions. It is None
    if a class has only one subject. The counts are by epoch, run and subject, shape (E, R, S, 4),
    and the strata by subject.
    """
    if np.unique(strata, return_counts=True)[1].min() < 2:
        return None
    rng = np.random.default_rng(0)
    halves = np.zeros((NUM_DIVISIONS, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        for half in halves:
            # The odd one goes to either half by chance.
            size = len(members) // 2 + int(rng.integers(2)) * (len(members) % 2)
            half[rng.permutation(members)[:size]] = 1.0
    first = np.einsum("ds,ersc->edrc", halves, counts, optimize=True)
    second = counts.sum(axis=2)[:, None] - first
    pooled = np.zeros(first.shape[1:])
    for chooser, scored in ((first, second), (second, first)):
        chosen = np.argmax(count_metrics(chooser)["f1"], axis=0)
        pooled += np.take_along_axis(scored, chosen[None, ..., None], axis=0)[0]
    return np.asarray(count_metrics(pooled)["f1"].mean(axis=0))


def ensembles(labels: IntArray, logits: FloatArray) -> pd.DataFrame:
    """Score the mean logit of k runs, for k from 1 to all, from logits of shape (R, N).

    Columns: k, num_choices (:data:`NUM_CHOICES` random subsets of k runs, or all if there are not
    more), and of F1 and AUROC mean, low and high (the middle 95 % of the choices).
    """
    rng = np.random.default_rng(0)
    rows, number = [], len(logits)
    for size in range(1, number + 1):
        if comb(number, size) <= NUM_CHOICES:
            chosen = _members(list(combinations(range(number), size)), number)
        else:
            drawn = [rng.permutation(number)[:size] for _ in range(NUM_CHOICES)]
            chosen = _members(drawn, number)
        scores = evaluate_each(labels, (chosen @ logits) / size)
        row: dict[str, float] = {"k": size, "num_choices": len(chosen)}
        for name in ("f1", "auroc"):
            low, high = np.quantile(scores[name], [0.025, 0.975])
            row |= {f"{name}_mean": scores[name].mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _members(subsets: Sequence[Sequence[int] | IntArray], number: int) -> FloatArray:
    """Return subsets of the first integers as rows of zeros and ones, shape (C, number)."""
    rows = np.zeros((len(subsets), number))
    np.put_along_axis(rows, np.array(subsets), 1.0, axis=1)
    return rows


def views(group: Group) -> pd.DataFrame:
    """Score the mean logit of several of the stored rotations, from 1 to all.

    Columns: num_views; mean and std over runs (ddof 0) of the F1 averaged over all choices of so
    many rotations; spaced, the mean F1 of the equally spaced rotations that begin with the original
    orientation (``tta.num_rotations``), NaN where there are none.
    """
    stored = len(group.runs[0].reported.columns)
    rows = []
    for size in range(1, stored + 1):
        subsets = list(combinations(range(stored), size))
        weights = np.ascontiguousarray(_members(subsets, stored).T / size)
        logits = (run.reported.at(run.best_epoch) @ weights for run in group.runs)
        f1 = np.stack([decision_metrics(group.labels, each.T)["f1"] for each in logits], axis=1).T
        spaced = np.nan
        if stored % size == 0:
            spaced = f1[:, subsets.index(tuple(range(0, stored, stored // size)))].mean()
        mean = f1.mean(axis=1)
        rows.append({"num_views": size, "mean": mean.mean(), "std": std(mean), "spaced": spaced})
    return pd.DataFrame(rows)

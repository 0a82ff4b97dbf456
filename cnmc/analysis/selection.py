"""How optimistic it is to choose the epoch on the reported cells.

The paper chooses each run's best epoch by its F1 on the preliminary test set and reports that same
F1 (section 4.2). The stored logits of every epoch give the F1 of other rules.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cnmc.analysis.bootstrap import strata_of
from cnmc.analysis.metrics import FloatArray, IntArray, confusion, count_metrics, decision_metrics
from cnmc.analysis.results import Group
from cnmc.runs.identity import differing_keys

NUM_DIVISIONS = 100
HONEST = "honest protocol"


class Scheme(NamedTuple):
    """F1 of each run, shape (R,), under a rule that chooses the epoch."""

    name: str
    f1: FloatArray
    note: str


def best_logits(group: Group, *, rotations: bool = True) -> FloatArray:
    """Return the logits of each run's epoch of the highest F1 on the reported cells, shape (R, N).

    Without rotations this is the paper's NOROT (section 4.4): the training of PROPOSAL, and only
    the original orientation in evaluation and choice of the epoch.
    """
    epochs, logits = group.by_epoch(rotations=rotations)
    trained = _trained(epochs)
    f1 = decision_metrics(group.labels, logits[trained])["f1"]
    chosen = trained[np.argmax(f1, axis=0)]
    best: FloatArray = logits[chosen, np.arange(logits.shape[1])]
    return best


def _trained(epochs: IntArray) -> IntArray:
    """Return the positions of the epochs after 0, or of all epochs if there is no other."""
    positions = np.flatnonzero(epochs > 0)
    return positions if len(positions) else np.arange(len(epochs))


def schemes(group: Group, others: tuple[Group, ...] = ()) -> list[Scheme]:
    """Return the F1 of the same runs on the same cells by different rules.

    Args:
        group: Runs; with protocol honest there is only one rule.
        others: Groups that may include its honest twin.
    """
    f1 = decision_metrics(group.labels, group.logits)["f1"]
    if group.protocol == "honest":
        note = "subjects of the training part chose the epoch, so fewer cells trained"
        return [Scheme(HONEST, f1, note)]
    epochs, logits = group.by_epoch()
    counts = confusion(group.labels, logits > 0.0, group.subjects[1])[_trained(epochs)]
    last = count_metrics(counts[-1].sum(axis=1))["f1"]
    paper = "the paper's rule: the same cells choose and are reported"
    found = [
        Scheme("best epoch on the reported cells", f1, paper),
        Scheme("last epoch", last, "no choice at all"),
    ]
    crossed = choose_on_other_subjects(counts, strata_of(group.labels, group.subjects[1]))
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


def choose_on_other_subjects(
    counts: IntArray, strata: IntArray, *, num_divisions: int = NUM_DIVISIONS
) -> FloatArray | None:
    """Return the F1 of each run if the epoch is chosen on other subjects.

    The subjects are divided into halves, class by class. Each half is scored at the epoch that is
    best on the other; both together give one F1, which is averaged over the divisions.

    Args:
        counts: True negatives, false positives, false negatives, true positives by epoch, run and
            subject, shape (E, R, S, 4).
        strata: Stratum of each subject, shape (S,).
        num_divisions: Divisions, D.

    Returns:
        Shape (R,); None if a class has only one subject.
    """
    if np.unique(strata, return_counts=True)[1].min() < 2:
        return None
    rng = np.random.default_rng(0)
    halves = np.zeros((num_divisions, len(strata)))
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
    mean: FloatArray = count_metrics(pooled)["f1"].mean(axis=0)
    return mean

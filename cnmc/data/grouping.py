"""Groups of subjects that belong together, and their distribution over the sides of a split.

A group is a set of subjects joined by byte-identical images; it is never divided. Everything here
is a pure function of its arguments and repeats itself exactly for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnmc.files import natural_key

_NUM_DEALS = 100
"""Shuffles tried. One does where every subject has one class; few groups of both may need more."""

Counts = NDArray[np.int64]
"""Cells by group (rows) and class (columns: HEM, ALL)."""


def groups(cells: pd.DataFrame) -> pd.Series:
    """Name the group of every cell.

    Subjects of whatever part that share a byte-identical image, directly or over others, are one
    group: in the training part of the release H2, H4, H5 and H6, for instance.

    Args:
        cells: Rows of a manifest (``cell_id``, ``subject``, ``sha256``).

    Returns:
        Group by ``cell_id``: its subjects in order, joined by ``+``. A cell without a subject
        stands for a subject of its own, named like the cell.
    """
    subjects = cells["subject"].where(cells["subject"] != "", cells["cell_id"])
    parents = {subject: subject for subject in subjects.unique()}

    def root(subject: str) -> str:
        while parents[subject] != subject:
            parents[subject] = parents[parents[subject]]
            subject = parents[subject]
        return subject

    first: dict[str, str] = {}
    for subject, sha256 in zip(subjects, cells["sha256"], strict=True):
        if sha256:
            other = root(first.setdefault(sha256, subject))
            parents[root(subject)] = other
    members: dict[str, list[str]] = {}
    for subject in parents:
        members.setdefault(root(subject), []).append(subject)
    names = {
        subject: "+".join(sorted(joined, key=natural_key))
        for joined in members.values()
        for subject in joined
    }
    return pd.Series(subjects.map(names).to_list(), index=pd.Index(cells["cell_id"]), name="group")


def count_by_group(labels: Sequence[int], names: Sequence[str]) -> tuple[list[str], Counts]:
    """Count the cells of each class in each group.

    Args:
        labels: 1 or 0 by cell.
        names: Group by cell.

    Returns:
        Groups in order, and their counts, of shape (groups, 2).
    """
    order = sorted(set(names), key=natural_key)
    row = {name: i for i, name in enumerate(order)}
    counts = np.zeros((len(order), 2), dtype=np.int64)
    for label, name in zip(labels, names, strict=True):
        counts[row[name], label] += 1
    return order, counts


def draw_fraction(counts: Counts, *, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """Draw groups that together hold about a fraction of the cells of each class.

    Shuffled groups are taken one after another while they bring the drawn share of the classes
    closer to the fraction. Groups are indivisible, so it is met as nearly as they allow.

    Args:
        counts: Shape (groups, 2).
        fraction: Wanted share in (0, 1).
        seed: Seed of the shuffle.

    Returns:
        Whether a group is drawn, of shape (groups,), with both classes among those that are drawn
        and among those that are not; None where that is impossible.
    """
    totals = counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(counts))

    def distance(drawn: NDArray[np.bool_]) -> float:
        shares = counts[drawn].sum(axis=0) / np.maximum(totals, 1)
        return float(np.abs(shares - fraction).sum())

    def extend(drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
        for group in order:
            more = drawn.copy()
            more[group] = True
            if distance(more) < distance(drawn) and (counts[~more].sum(axis=0) > 0).all():
                drawn = more
        return drawn

    def both_sides(drawn: NDArray[np.bool_]) -> bool:
        return bool(all((counts[side].sum(axis=0) > 0).all() for side in (drawn, ~drawn)))

    drawn = extend(np.zeros(len(counts), dtype=np.bool_))
    if both_sides(drawn):
        return drawn
    # Every group of a class overshoots the fraction. If any division has both classes on both
    # sides, then so does one that draws a single group of each class: begin with the best of them.
    starts: list[NDArray[np.bool_]] = []
    for pair in combinations_with_replacement(order, 2):
        start = np.zeros(len(counts), dtype=np.bool_)
        start[list(pair)] = True
        if both_sides(start):
            starts.append(start)
    return extend(min(starts, key=distance)) if starts else None


def deal_folds(counts: Counts, *, num_folds: int, seed: int) -> NDArray[np.int64] | None:
    """Deal shuffled groups into folds, each to where the fewest cells of its classes lie.

    Args:
        counts: Shape (groups, 2).
        num_folds: Number of folds.
        seed: Seed of the shuffle.

    Returns:
        Fold by group, of shape (groups,), each with both classes; None where no shuffle gives that.
    """
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    generator = np.random.default_rng(seed)
    for _ in range(_NUM_DEALS):
        folds = np.full(len(counts), -1, dtype=np.int64)
        held = np.zeros((num_folds, 2))
        for group in generator.permutation(len(counts)):
            # What this group adds to the sum of squared shares, which is smallest for equal
            # folds; among equals the emptiest fold.
            added = (held * shares[group]).sum(axis=1)
            fold = np.lexsort((held.sum(axis=1), added))[0]
            folds[group] = fold
            held[fold] += shares[group]
        if bool((held > 0).all()):
            return folds
    return None

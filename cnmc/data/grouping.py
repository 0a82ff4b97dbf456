"""Groups of subjects that belong together, and their distribution over the sides of a split.

A group is a set of subjects joined by byte-identical images; it is never divided. The functions
are pure and repeat themselves exactly for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cnmc.files import natural_key

_NUM_DEALS = 100
"""Shuffles tried. One is enough if every subject has one class; few groups of both need more."""

Counts = NDArray[np.int64]
"""Cells by group (rows) and class (columns: HEM, ALL)."""


def groups(cells: pd.DataFrame) -> pd.Series:
    """Name the group of every cell.

    Subjects of any part that share a byte-identical image, directly or through others, are one
    group: in the training part of the release H2, H4, H5 and H6, for instance.

    Args:
        cells: Rows of a manifest (``cell_id``, ``subject``, ``sha256``).

    Returns:
        Group by ``cell_id``: its subjects in order, joined by ``+``. A cell without a subject
        counts as a subject of its own, named like the cell.
    """
    subject, subjects = pd.factorize(
        cells["subject"].where(cells["subject"] != "", cells["cell_id"])
    )
    # A file without a hash is equal to no other.
    image, images = pd.factorize(cells["sha256"].where(cells["sha256"] != "", cells["cell_id"]))
    num_nodes = len(subjects) + len(images)
    edges = (np.ones(len(cells)), (subject, len(subjects) + image))
    graph = coo_array(edges, shape=(num_nodes, num_nodes))
    components = connected_components(graph, directed=False)[1][: len(subjects)]
    members = pd.Series(subjects).groupby(components)
    names = members.transform(lambda joined: "+".join(sorted(joined, key=natural_key)))
    return pd.Series(names.to_numpy()[subject], index=pd.Index(cells["cell_id"]), name="group")


def count_by_group(labels: Sequence[int], names: Sequence[str]) -> tuple[list[str], Counts]:
    """Count the cells of each class in each group, from label and group by cell.

    Returns:
        Groups in order, and their counts, of shape (groups, 2).
    """
    order = sorted(set(names), key=natural_key)
    table = pd.crosstab(np.array(names), np.array(labels))
    return order, table.reindex(index=order, columns=[0, 1], fill_value=0).to_numpy(np.int64)


def draw_fraction(counts: Counts, *, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """Draw groups that together hold about a fraction of the cells of each class.

    Shuffled groups are added one after another while they bring the drawn share of the classes
    closer to the fraction.

    Returns:
        Whether a group is drawn, of shape (groups,), with both classes among the drawn and among
        the other groups; None if that is impossible.
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
        return all((counts[side].sum(axis=0) > 0).all() for side in (drawn, ~drawn))

    def only(*chosen: int) -> NDArray[np.bool_]:
        return np.isin(np.arange(len(counts)), chosen)

    drawn = extend(only())
    if both_sides(drawn):
        return drawn
    # Every group of a class overshoots the fraction. If any division has both classes on both
    # sides, so does one that draws a single group of each class: start from the best of them.
    pairs = (only(*pair) for pair in combinations_with_replacement(order, 2))
    starts = [start for start in pairs if both_sides(start)]
    return extend(min(starts, key=distance)) if starts else None


def deal_folds(counts: Counts, *, num_folds: int, seed: int) -> NDArray[np.int64] | None:
    """Deal shuffled groups into folds, each into the fold with the fewest cells of its classes.

    Returns:
        Fold by group, of shape (groups,), each with both classes; None if no shuffle gives that.
    """
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    generator = np.random.default_rng(seed)
    for _ in range(_NUM_DEALS):
        folds = np.full(len(counts), -1, dtype=np.int64)
        held = np.zeros((num_folds, 2))
        for group in generator.permutation(len(counts)):
            # The increase of the sum of squared shares, which is smallest for equal folds; among
            # equals the emptiest fold.
            added = (held * shares[group]).sum(axis=1)
            fold = np.lexsort((held.sum(axis=1), added))[0]
            folds[group] = fold
            held[fold] += shares[group]
        if (held > 0).all():
            return folds
    return None

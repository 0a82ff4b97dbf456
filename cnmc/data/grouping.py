"""Groups of subjects that belong together, and their distribution over the sides of a split."""

from __future__ import annotations

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
    """Return the group of every cell, by ``cell_id``.

    Subjects of any part that share a byte-identical image, directly or through others, are one
    group: in the training part of the release H2, H4, H5 and H6, for instance. The name of a group
    is its subjects in order, joined by ``+``. A cell without a subject counts as a subject.
    """
    ids = cells["cell_id"]
    subject, subjects = pd.factorize(cells["subject"].where(cells["subject"] != "", ids))
    image, images = pd.factorize(cells["sha256"])
    num_nodes = len(subjects) + len(images)
    edges = (np.ones(len(ids)), (subject, len(subjects) + image))
    graph = coo_array(edges, shape=(num_nodes, num_nodes))
    component = connected_components(graph, directed=False)[1][: len(subjects)]
    names = (
        pd.Series(subjects)
        .groupby(component)
        .transform(lambda joined: "+".join(sorted(joined, key=natural_key)))
    )
    return pd.Series(names.to_numpy()[subject], index=pd.Index(ids), name="group")


def draw_fraction(counts: Counts, *, fraction: float, seed: int) -> NDArray[np.bool_] | None:
    """Draw groups that together hold about a fraction of the cells of each class.

    Shuffled groups are added one after another while they bring the drawn share of the classes
    closer to the fraction.

    Returns:
        Whether a group is drawn, of shape (groups,), with both classes among the drawn and among
        the other groups; None if that is impossible.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    order = np.random.default_rng(seed).permutation(len(counts))

    def distance(drawn: NDArray[np.bool_]) -> float:
        return float(np.abs(counts[drawn].sum(axis=0) / totals - fraction).sum())

    def has_both(side: NDArray[np.bool_]) -> bool:
        return bool((counts[side].sum(axis=0) > 0).all())

    def extend(drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
        for group in order:
            more = drawn.copy()
            more[group] = True
            if distance(more) < distance(drawn) and has_both(~more):
                drawn = more
        return drawn

    drawn = extend(np.zeros(len(counts), dtype=bool))
    if has_both(drawn):
        return drawn
    # Every group of a class overshoots the fraction. If any division has both classes on both
    # sides, so does one that draws a single group of each class: start from the best of them.
    pairs = (np.isin(np.arange(len(counts)), p) for p in combinations_with_replacement(order, 2))
    starts = [start for start in pairs if has_both(start) and has_both(~start)]
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
            folds[group] = np.lexsort((held.sum(axis=1), added))[0]
            held[folds[group]] += shares[group]
        if (held > 0).all():
            return folds
    return None

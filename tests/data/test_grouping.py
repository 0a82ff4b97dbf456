from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cnmc.data.grouping import deal_folds, draw_fraction, groups

from .trees import real_training_cells, table

Rows = list[tuple[int, int]]
counts_of_any_kind = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda row: sum(row) > 0),
    min_size=1,
    max_size=12,
)
one_class_each = st.lists(
    st.one_of(st.tuples(st.just(0), st.integers(1, 60)), st.tuples(st.integers(1, 60), st.just(0))),
    min_size=1,
    max_size=40,
)
seeds = st.integers(0, 2**32 - 1)


def array(rows: Rows) -> NDArray[np.int64]:
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def test_subjects_are_joined_over_chains_and_parts() -> None:
    cells = table(
        [("1", 1, 3), ("10", 1, 2), ("2", 1, 2), ("3", 1, 1)],
        [("7", 1, 2)],
        copies=[
            ("train/UID_2_1_0_x", "train/UID_10_1_0_x"),
            ("train/UID_10_1_1_x", "prelim/UID_7_1_0_x"),
            ("train/UID_1_1_0_x", "train/UID_1_1_1_x"),
        ],
    )
    names = groups(cells)
    assert list(names.index) == cells["cell_id"].to_list()
    of_subject = dict(zip(cells["subject"], names, strict=True))
    assert of_subject == {"1": "1", "2": "2+7+10", "10": "2+7+10", "7": "2+7+10", "3": "3"}


def test_a_cell_without_a_subject_is_its_own_group() -> None:
    cells = table([("1", 1, 1)], [("", 1, 2)])
    assert groups(cells).to_list() == ["1", *cells["cell_id"][1:]]


@pytest.mark.real
def test_the_real_groups(real_train_files: Path) -> None:
    names = groups(real_training_cells(real_train_files))
    joined = {name for name in names if "+" in name}
    assert joined == {"H2+H4+H5+H6", "H3+H10", "20+21", "51+75+78"}
    assert names.nunique() == 66


def divisible(rows: Rows) -> bool:
    """Try every division for one with both classes on both sides."""
    counts = array(rows)
    sides = np.array(np.meshgrid(*[[0, 1]] * len(rows))).reshape(len(rows), -1).T.astype(bool)
    return any(
        (counts[side].sum(axis=0) > 0).all() and (counts[~side].sum(axis=0) > 0).all()
        for side in sides
    )


@given(counts_of_any_kind, st.floats(0.01, 0.99), seeds)
def test_a_fraction_is_drawn_wherever_it_is_possible(
    rows: Rows, fraction: float, seed: int
) -> None:
    drawn = draw_fraction(array(rows), fraction=fraction, seed=seed)
    assert (drawn is not None) == divisible(rows)
    if drawn is not None:
        assert (array(rows)[drawn].sum(axis=0) > 0).all()
        assert (array(rows)[~drawn].sum(axis=0) > 0).all()


@given(one_class_each, st.floats(0.1, 0.5), seeds)
def test_a_fraction_is_met_as_nearly_as_groups_allow(
    rows: Rows, fraction: float, seed: int
) -> None:
    counts = array(rows)
    drawn = draw_fraction(counts, fraction=fraction, seed=seed)
    if drawn is None:
        return
    wanted = fraction * counts.sum(axis=0)
    largest = counts.max(axis=0)
    assert (np.abs(counts[drawn].sum(axis=0) - wanted) <= largest + 1e-9).all()


@given(one_class_each, st.integers(2, 6), seeds)
def test_folds_part_the_groups_and_have_both_classes(rows: Rows, num_folds: int, seed: int) -> None:
    counts = array(rows)
    folds = deal_folds(counts, num_folds=num_folds, seed=seed)
    possible = ((counts > 0).sum(axis=0) >= num_folds).all()
    assert (folds is not None) == possible
    if folds is not None:
        assert set(folds.tolist()) == set(range(num_folds))
        held = np.array([counts[folds == fold].sum(axis=0) for fold in range(num_folds)])
        assert (held > 0).all()
        # Dealing to the emptiest fold, no two folds differ by more than the largest group.
        assert (np.ptp(held, axis=0) <= counts.max(axis=0)).all()


def test_folds_of_subjects_with_both_classes() -> None:
    # Wherever the pure groups fall first, only one division serves: {pure, pure}, {mixed}.
    for seed in range(20):
        folds = deal_folds(array([(3, 0), (0, 3), (2, 2)]), num_folds=2, seed=seed)
        assert folds is not None
        assert folds[0] == folds[1] != folds[2]


@pytest.mark.real
def test_shares_of_the_real_composition(real_train_files: Path) -> None:
    cells = real_training_cells(real_train_files)
    names = groups(cells).to_numpy()
    counts = pd.crosstab(names, cells["label"].to_numpy(int)).to_numpy(np.int64)
    for seed in range(10):
        drawn = draw_fraction(counts, fraction=0.2, seed=seed)
        assert drawn is not None
        shares = counts[drawn].sum(axis=0) / counts.sum(axis=0)
        assert np.abs(shares - 0.2).max() < 0.06

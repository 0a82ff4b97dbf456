"""Every metric against scikit-learn on shared and on generated cases."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from cnmc.analysis.metrics import auroc, confusion, evaluate, mean_logits

Case = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


@st.composite
def cases(draw: st.DrawFn, both_classes: bool = True) -> Case:
    labels = draw(st.lists(st.integers(0, 1), min_size=2, max_size=60))
    if both_classes:
        labels = [0, 1, *labels]
    # Few distinct values, so that ties are common.
    values = st.sampled_from([-3.0, -1.0, -0.25, 0.0, 0.25, 1.0, 2.5])
    logits = draw(st.lists(values, min_size=len(labels), max_size=len(labels)))
    return np.array(labels), np.array(logits)


@given(cases())
def test_metrics_equal_scikit_learn(case: Case) -> None:
    labels, logits = case
    decided = (logits > 0).astype(int)
    got = evaluate(labels, logits)
    options = {"average": "weighted", "zero_division": 0}
    expected = {
        "accuracy": sk.accuracy_score(labels, decided),
        "sensitivity": sk.recall_score(labels, decided, pos_label=1, zero_division=0),
        "specificity": sk.recall_score(labels, decided, pos_label=0, zero_division=0),
        "f1": sk.f1_score(labels, decided, **options),
        "precision": sk.precision_score(labels, decided, **options),
        "recall": sk.recall_score(labels, decided, **options),
        "auroc": sk.roc_auc_score(labels, logits),
    }
    assert got == pytest.approx(expected, abs=1e-12)


@given(cases(both_classes=False))
def test_confusion_equals_scikit_learn(case: Case) -> None:
    labels, logits = case
    expected = sk.confusion_matrix(labels, logits > 0, labels=[0, 1]).ravel()
    assert confusion(labels, logits > 0).tolist() == expected.tolist()


@pytest.mark.parametrize(("label", "missing"), [(1, "specificity"), (0, "sensitivity")])
def test_a_missing_class_is_not_defined(label: int, missing: str) -> None:
    got = evaluate(np.full(5, label), np.array([-1.0, 1.0, 1.0, 2.0, 3.0]))
    assert math.isnan(got[missing])
    assert math.isnan(got["auroc"])
    assert not math.isnan(got["f1"])


def test_no_cells_are_not_defined() -> None:
    assert all(math.isnan(value) for value in evaluate(np.array([]), np.array([])).values())


def test_a_logit_of_zero_is_negative() -> None:
    assert evaluate(np.array([0, 1]), np.array([0.0, 0.1]))["accuracy"] == 1.0


def test_constant_scores_have_an_auroc_of_one_half() -> None:
    assert auroc(np.array([0, 1, 1]), np.zeros(3)) == 0.5


def test_rotations_are_averaged_as_logits() -> None:
    table = pd.DataFrame({"cell_id": ["a", "b"], "logit_0": [-0.4, 0.6], "logit_4": [0.6, -0.4]})
    assert mean_logits(table) == pytest.approx([0.1, 0.1])

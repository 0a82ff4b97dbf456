"""Selection, averaging, calibration, persons: against scikit-learn, by hand, and on known truth."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from scipy.special import expit
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.calibration import (
    expected_calibration_error,
    fit_temperature,
    mean_roc,
    reliability,
    roc_points,
    sensitivity_at,
)
from cnmc.analysis.loading import read_study
from cnmc.analysis.metrics import confusion, count_metrics, evaluate, evaluate_each
from cnmc.analysis.results import Group, best_and_last, hardest_cells, person_scores, persons
from cnmc.analysis.selection import (
    HONEST,
    best_upright_logits,
    choose_on_other_subjects,
    ensembles,
    schemes,
    views,
)
from cnmc.analysis.summary import MANN_WHITNEY, WILCOXON, comparisons
from tests.analysis.test_metrics import Case, cases
from tests.studies import Subjects, write_run


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """Four runs of PROPOSAL."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(4):
        write_run(root, "proposal", seed, signal=0.8)
    return read_study(root).groups[0]


def _f1(labels: Any, logits: Any) -> float:
    return float(sk.f1_score(labels, np.asarray(logits) > 0, average="weighted"))


# Selection


def test_the_rules_that_choose_an_epoch_report_what_they_say(group: Group) -> None:
    best, last, crossed = schemes(group)
    for position, run in enumerate(group.runs):
        course = [_f1(group.labels, logits) for logits in run.reported.mean()[1:]]
        assert best.f1[position] == pytest.approx(max(course))
        assert last.f1[position] == pytest.approx(course[-1])
        assert min(course) <= best.f1[position]
    assert crossed.f1.mean() < best.f1.mean()


def test_norot_by_its_own_epoch_is_the_best_without_rotations(group: Group) -> None:
    logits = best_upright_logits(group)
    for position, run in enumerate(group.runs):
        course = run.reported.mean(rotations=False)[1:]
        assert _f1(group.labels, logits[position]) == max(_f1(group.labels, x) for x in course)


def test_an_epoch_that_is_best_for_all_subjects_is_chosen_on_any_half() -> None:
    """Two epochs, four subjects: the second is right everywhere, whoever chooses."""
    right = np.array([[5, 0, 0, 0], [5, 0, 0, 0], [0, 0, 0, 5], [0, 0, 0, 5]])
    wrong = right[:, [1, 0, 3, 2]]
    counts = np.stack([wrong, right])[:, None]
    assert choose_on_other_subjects(counts, np.array([1, 1, 2, 2])) == pytest.approx([1.0])
    assert choose_on_other_subjects(counts, np.array([1, 1, 2, 3])) is None


def test_choosing_among_equal_epochs_flatters_and_choosing_elsewhere_does_not() -> None:
    """Epochs that are all as good: the best looks better than the truth, the other does not."""
    rng = np.random.default_rng(0)
    labels, subjects = np.repeat([0, 1], 300), np.repeat(np.arange(20), 30)
    right = rng.random((6, 40, 600)) < 0.8
    counts = confusion(labels, right == (labels == 1), subjects)
    whole = count_metrics(counts.sum(axis=2))["f1"]
    strata = np.repeat([1, 2], 10)
    crossed = choose_on_other_subjects(counts, strata)
    assert crossed is not None
    assert whole.max(axis=0).mean() > 0.815
    assert crossed.mean() == pytest.approx(0.8, abs=0.005)


def test_the_honest_protocol_of_the_same_study_stands_beside_it(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / "a", "proposal", seed)
        write_run(
            tmp_path / "a", "other", seed, protocol="honest", config={"split": {"kind": "nested"}}
        )
    paper, other = read_study(tmp_path / "a").groups
    # Another experiment is another study.
    assert HONEST not in [scheme.name for scheme in schemes(paper, (paper, other))]
    for seed in range(2):
        nested = {"split": {"kind": "nested"}}
        write_run(tmp_path / "b", "proposal", seed, protocol="honest", config=nested)
    (twin,) = read_study(tmp_path / "b").groups
    found = schemes(paper, (paper, twin))[-1]
    assert found.name == HONEST
    assert found.f1 == pytest.approx([_f1(twin.labels, row) for row in twin.logits])
    assert [scheme.name for scheme in schemes(twin)] == [HONEST]


# Averaging


def test_ensembles_are_the_mean_logits_of_all_choices(group: Group) -> None:
    table = ensembles(group.labels, group.logits).set_index("k")
    assert table["num_choices"].to_list() == [4, 6, 4, 1]
    for size in range(1, 5):
        chosen = [group.logits[list(c)].mean(axis=0) for c in combinations(range(4), size)]
        f1 = [_f1(group.labels, logits) for logits in chosen]
        area = [sk.roc_auc_score(group.labels, logits) for logits in chosen]
        assert table.loc[size, "f1_mean"] == pytest.approx(np.mean(f1))
        assert table.loc[size, "f1_low"] == pytest.approx(np.quantile(f1, 0.025))
        assert table.loc[size, "auroc_mean"] == pytest.approx(np.mean(area))


def test_many_runs_are_chosen_from_at_random_and_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 50), rng.normal(size=(12, 50))
    table = ensembles(labels, logits)
    assert table["num_choices"].to_list() == [12, *[50] * 9, 12, 1]
    assert table.equals(ensembles(labels, logits))


def test_views_are_averaged_over_all_choices_of_rotations(group: Group) -> None:
    table = views(group).set_index("num_views")
    assert table.index.to_list() == list(range(1, 9))
    by_run = []
    for run in group.runs:
        logits = run.reported.at(run.best_epoch).astype(float)
        subsets = combinations(range(8), 3)
        by_run += [np.mean([_f1(group.labels, logits[:, list(c)].mean(axis=1)) for c in subsets])]
    assert table.loc[3, "mean"] == pytest.approx(np.mean(by_run), abs=1e-4)
    assert table.loc[3, "std"] == pytest.approx(np.std(by_run), abs=1e-4)
    upright = [_f1(group.labels, row) for row in group.upright]
    assert table.loc[1, "spaced"] == pytest.approx(np.mean(upright))
    assert table.loc[8, "spaced"] == pytest.approx(table.loc[8, "mean"])
    assert table["spaced"].isna().to_list() == [False, False, True, False, True, True, True, False]


# Calibration and ROC


@given(cases())
def test_reliability_is_scikit_learns(case: Case) -> None:
    labels, logits = case
    # Away from the edges, where scikit-learn takes the bin below.
    probs = expit(logits) * 0.98 + 0.001
    fraction, mean = calibration_curve(labels, probs, n_bins=10)
    table = reliability(labels, probs)
    some = table[table["num_cells"] > 0]
    assert some["fraction"].to_list() == pytest.approx(fraction.tolist())
    assert some["mean_probability"].to_list() == pytest.approx(mean.tolist())
    assert table["num_cells"].sum() == len(labels)


def test_the_calibration_error_is_the_mean_gap() -> None:
    labels = np.array([1, 1, 0, 0, 1, 0])
    probs = np.array([0.95, 0.95, 0.95, 0.15, 0.15, 1.0])
    # Bins: 0.9 to 1 holds four cells (half are ALL, mean 0.9625), 0.1 to 0.2 holds two.
    expected = (4 * abs(0.9625 - 0.5) + 2 * abs(0.15 - 0.5)) / 6
    assert expected_calibration_error(labels, probs) == pytest.approx(expected)


@pytest.mark.parametrize("truth", [0.5, 1.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(truth: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < expit(honest)).astype(int)
    assert fit_temperature(labels, honest * truth) == pytest.approx(truth, rel=0.05)
    calibrated = expit(honest * truth / fit_temperature(labels, honest * truth))
    assert expected_calibration_error(labels, calibrated) < 0.015


@given(cases())
def test_the_roc_is_scikit_learns(case: Case) -> None:
    labels, scores = case
    fpr, tpr = roc_points(labels, scores)
    expected = sk.roc_curve(labels, scores, drop_intermediate=False)
    assert fpr == pytest.approx(expected[0])
    assert tpr == pytest.approx(expected[1])
    for specificity in (0.5, 0.8, 0.9, 1.0):
        best = max(
            np.mean(scores[labels == 1] > t)
            for t in [*scores, -np.inf]
            if np.mean(scores[labels == 0] <= t) >= specificity
        )
        assert sensitivity_at(labels, scores, specificity) == pytest.approx(best)


def test_the_mean_roc_of_one_run_is_its_own() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 400), rng.normal(size=(2, 400))
    curve = mean_roc(labels, scores[:1])
    assert np.trapezoid(curve["tpr_mean"], curve["fpr"]) == pytest.approx(
        sk.roc_auc_score(labels, scores[0]), abs=0.01
    )
    both = mean_roc(labels, scores)
    assert (both["tpr_low"] <= both["tpr_mean"]).all()
    assert (both["tpr_mean"] <= both["tpr_high"]).all()


@pytest.mark.filterwarnings("error")
def test_one_class_alone_defines_no_roc_and_no_temperature() -> None:
    labels, scores = np.ones(5, dtype=int), np.arange(5.0)
    assert mean_roc(labels, scores[None]).empty
    assert np.isnan(sensitivity_at(labels, scores, 0.9))
    assert np.isnan(fit_temperature(labels, scores))
    assert np.isnan(evaluate(labels, scores)["specificity"])


# Persons and errors


def test_persons_are_scored_by_the_mean_probability_of_their_cells(group: Group) -> None:
    table = persons(group).set_index("subject")
    assert table.index.to_list() == ["53", "54", "55", "57", "H25", "H26", "H27", "H28"]
    probs = expit(group.logits)
    for subject, row in table.iterrows():
        mine = (group.cells["subject"] == subject).to_numpy()
        by_run = probs[:, mine].mean(axis=1)
        assert row["mean_probability"] == pytest.approx(by_run.mean())
        assert row["std_probability"] == pytest.approx(by_run.std())
        assert row["num_cells"] == mine.sum()
        assert row["wrong_share"] == np.mean((by_run > 0.5) != row["label"])
        right = (group.logits[:, mine] > 0) == row["label"]
        assert row["mean_accuracy"] == pytest.approx(right.mean())
    expected = [
        sk.roc_auc_score(
            table["label"], [p[group.cells["subject"] == s].mean() for s in table.index]
        )
        for p in probs
    ]
    assert evaluate_each(*person_scores(group))["auroc"] == pytest.approx(expected)


def test_accuracy_by_subject_is_of_the_best_and_of_the_last_checkpoint(group: Group) -> None:
    table = best_and_last(group, 1).set_index("subject")
    run = group.runs[1]
    mine = (group.cells["subject"] == "H26").to_numpy()
    for name, epoch in (("best", run.best_epoch), ("last", 3)):
        logits = run.reported.at(epoch)[mine].mean(axis=1)
        assert table.loc["H26", name] == pytest.approx((logits <= 0).mean())


def test_a_person_with_cells_of_both_classes_is_two_rows(tmp_path: Path) -> None:
    write_run(tmp_path, "proposal", 0, subjects=Subjects({"9": 3, "10": 4}, {"9": 2, "H1": 3}))
    table = persons(read_study(tmp_path).groups[0])
    assert table[["subject", "label", "num_cells"]].to_numpy().tolist() == [
        ["9", 1, 3],
        ["10", 1, 4],
        ["9", 0, 2],
        ["H1", 0, 3],
    ]


def test_the_cells_that_most_runs_get_wrong_come_first(group: Group) -> None:
    table = hardest_cells(group)
    wrong = ((group.logits > 0) != (group.labels == 1)).mean(axis=0)
    assert len(table) == (wrong > 0).sum()
    assert table["wrong_share"].is_monotonic_decreasing
    assert table["wrong_share"].iloc[0] == wrong.max()
    by_cell = dict(zip(group.cells["cell_id"], wrong, strict=True))
    assert table["wrong_share"].to_list() == [by_cell[cell] for cell in table["cell_id"]]


# Comparisons


def _compare(root: Path) -> tuple[list[Any], list[str]]:
    study = read_study(root)
    bootstraps = {
        g.cells_key: SubjectBootstrap(g.labels, g.subjects, number=200) for g in study.groups
    }
    found, refused = comparisons(study, bootstraps)
    return list(found.itertuples()), refused


def test_every_group_is_compared_with_proposal_and_rotations_with_none(tmp_path: Path) -> None:
    for seed in range(4):
        write_run(tmp_path, "proposal", seed, signal=1.0)
        write_run(tmp_path, "norot", seed, signal=0.4, num_views=1)
        write_run(tmp_path, "nospeclr", seed, signal=0.4)
    rows, refused = _compare(tmp_path)
    assert not refused
    assert [(row.first, row.second, row.test) for row in rows] == [
        ("proposal, no rotation (same checkpoints)", "proposal", WILCOXON),
        ("norot", "proposal", MANN_WHITNEY),
        ("nospeclr", "proposal", MANN_WHITNEY),
    ]
    assert [row.experiment for row in rows] == ["norot", "norot", "nospeclr"]
    assert all(row.difference < 0 for row in rows)
    assert all(row.p_holm >= row.p_two_sided for row in rows)


def test_norot_is_taken_from_the_runs_of_proposal_where_it_was_not_trained(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "proposal", seed)
    rows, _ = _compare(tmp_path)
    assert [(row.first, row.test) for row in rows] == [
        ("proposal, no rotation (same checkpoints)", WILCOXON),
        ("proposal, no rotation (own epoch)", MANN_WHITNEY),
    ]


@pytest.mark.parametrize("name", ["manifest_fingerprint", "split_fingerprint"])
def test_other_cells_are_refused_by_name(tmp_path: Path, name: str) -> None:
    for seed in range(2):
        write_run(tmp_path, "proposal", seed)
        other: dict[str, Any] = {name: "e" * 64}
        write_run(tmp_path, "nospeclr", seed, **other)
    rows, refused = _compare(tmp_path)
    assert {row.test for row in rows if row.first.startswith("nospeclr")} == {WILCOXON}
    mine = "a" if name == "manifest_fingerprint" else "b"
    kind = name.split("_", maxsplit=1)[0].replace("manifest", "data")
    assert refused == [
        f"nospeclr is not compared with proposal: {kind} {'e' * 12} against {kind} {mine * 12}"
    ]


@pytest.mark.parametrize(("signal", "found"), [(0.25, True), (1.0, False)])
def test_a_known_difference_is_found_from_the_run_folders(
    tmp_path: Path, signal: float, found: bool
) -> None:
    for seed in range(10):
        write_run(tmp_path, "proposal", seed, num_epochs=1)
        write_run(tmp_path, "nospeclr", seed, signal=signal, num_epochs=1)
    rows, _ = _compare(tmp_path)
    (row,) = (row for row in rows if row.first == "nospeclr")
    assert (row.p_holm <= 0.05) == found
    assert (row.seeds_high < 0) == found
    assert row.subjects_high - row.subjects_low > row.seeds_high - row.seeds_low

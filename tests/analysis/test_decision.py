from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from cnmc.analysis.calibration import MAX_POINTS, choose
from cnmc.analysis.decision import Decision
from cnmc.analysis.metrics import evaluate
from cnmc.deploy.networks import GraphInfo
from cnmc.errors import CnmcError

POINTS = ((0.1, 1.0, 0.0), (0.3, 0.96, 0.5), (0.4, 0.95, 0.7), (0.6, 0.8, 0.9), (0.9, 0.0, 1.0))
CHOSEN = Decision(2.0, 0.45, "val", 40, POINTS)


def test_probabilities_are_the_sigmoid_of_scaled_logits() -> None:
    probs = CHOSEN.probabilities([0.0, 2.0, -2e4, 2e4])
    np.testing.assert_allclose(probs, [0.5, 1 / (1 + np.exp(-1)), 0.0, 1.0], rtol=1e-12)


@pytest.mark.parametrize(
    ("wanted", "threshold"),
    [
        ("checkpoint", 0.45),
        ("paper", 0.5),
        ("0.25", 0.25),
        ("sensitivity:0.95", 0.4),
        ("sensitivity:0.951", 0.3),
        ("specificity:0.7", 0.4),
        ("specificity:0.71", 0.6),
        ("Specificity:1", 0.9),
    ],
)
def test_thresholds_have_words(wanted: str, threshold: float) -> None:
    assert CHOSEN.threshold_for(wanted) == threshold


@pytest.mark.parametrize(
    "wanted", ["", "best", "0", "1", "nan", "1.5", "recall:0.9", "sensitivity:", "sensitivity:0"]
)
def test_other_words_are_refused(wanted: str) -> None:
    with pytest.raises(CnmcError, match=r"^threshold="):
        CHOSEN.threshold_for(wanted)


def test_what_cannot_be_had_says_what_can() -> None:
    with pytest.raises(CnmcError, match="threshold=paper"):
        Decision().threshold_for("sensitivity:0.9")
    assert Decision().threshold_for("checkpoint") == 0.5
    with pytest.raises(CnmcError, match=r"specificity.* 0\.9000"):
        Decision(points=POINTS[:-1]).threshold_for("specificity:0.95")


@pytest.mark.parametrize("num_cells", [60, 3000])
def test_the_choice_is_the_best_of_all_thresholds(num_cells: int) -> None:
    rng = np.random.default_rng(num_cells)
    labels = (rng.random(num_cells) < 0.6).astype(np.int64)
    logits = rng.normal(8 * labels - 6, 8.0).round(2)  # with ties, off centre and overconfident
    chosen = choose(labels, logits, "val")
    assert (chosen.chosen_on, chosen.num_cells) == ("val", num_cells)
    assert chosen.temperature > 1
    probs = chosen.probabilities(logits)

    def scores(threshold: float) -> dict[str, float]:
        return evaluate(labels, np.where(probs >= threshold, 1.0, -1.0))

    best = max(scores(threshold)["f1"] for threshold in np.unique(probs))
    assert scores(chosen.threshold)["f1"] == pytest.approx(best, abs=1e-12)
    assert chosen.threshold in [point[0] for point in chosen.points]
    assert len(chosen.points) <= MAX_POINTS + 1
    for threshold, sensitivity, specificity in chosen.points[::7]:
        assert scores(threshold)["sensitivity"] == pytest.approx(sensitivity)
        assert scores(threshold)["specificity"] == pytest.approx(specificity)
    reached = scores(chosen.threshold_for("sensitivity:0.9"))
    assert reached["sensitivity"] >= 0.9
    # Another runtime, which rounds otherwise, decides alike.
    assert np.abs(probs - chosen.threshold).min() > 1e-9


@pytest.mark.parametrize(
    ("labels", "logits"),
    [([1, 1], [0.0, 1.0]), ([], []), ([0, 1], [0.0, np.nan])],
)
def test_nothing_is_chosen_by_cells_that_cannot(labels: list[int], logits: list[float]) -> None:
    chosen = choose(np.array(labels, dtype=np.int64), np.array(logits), "val")
    assert chosen == Decision()


def test_classes_that_are_far_apart_are_told_apart() -> None:
    chosen = choose(np.array([0, 0, 1, 1]), np.array([-900.0, -800.0, 800.0, 900.0]), "val")
    probs = chosen.probabilities([-900.0, -800.0, 800.0, 900.0])
    assert list(probs >= chosen.threshold) == [False, False, True, True]


@pytest.mark.parametrize(
    "logits",
    [
        [-4.0, -0.5, 0.3, 5.0],  # told apart: the loss falls with the temperature
        [-900.0, -800.0, 800.0, 900.0],  # and is exactly 0 over most of the range
        [3.0, 2.0, -2.0, -3.0],  # the wrong way round: it falls with a rising one
    ],
)
def test_a_temperature_that_the_cells_cannot_tell_is_1(logits: list[float]) -> None:
    chosen = choose(np.array([0, 0, 1, 1]), np.array(logits), "val")
    assert chosen.temperature == 1.0
    assert chosen.num_cells == 4
    # A new cell at which the network hardly decides stays one.
    assert chosen.probabilities(0.05) == pytest.approx(0.512, abs=1e-3)


def test_is_kept_in_metadata() -> None:
    info = GraphInfo(network="test_resnet", crop=40, decision=CHOSEN)
    assert GraphInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", "2"),
        ("threshold", 1.0),
        ("threshold", float("nan")),
        ("num_cells", 1.5),
        ("points", 3),
        ("points", [[0.1, 1.0]]),
        ("points", [[0.5, 1.0, 0.0], [0.4, 1.0, 0.0]]),
        ("points", [[0.5, 1.2, 0.0]]),
        ("extra", 1),
    ],
)
def test_damaged_metadata_are_refused(name: str, value: Any) -> None:
    values = json.loads(GraphInfo(network="test_resnet", crop=40).to_json())
    values["decision"] = asdict(CHOSEN) | {name: value}
    with pytest.raises(ValueError, match="decision"):
        GraphInfo.from_json(json.dumps(values))

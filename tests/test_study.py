"""Which folders a sweep fills, and the table at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnmc.analysis.summary import evaluate_finished, summary
from cnmc.runs import RunFolder, RunInfo
from cnmc.study import planned_runs


def _planned(*overrides: str) -> list[str]:
    runs = planned_runs(overrides, root=Path("r"), seed=5, experiment="demo")
    return [run.path.as_posix() for run in runs]


def test_every_combination_has_a_folder() -> None:
    assert _planned("experiment=proposal,norot", "seed=range(2)", "data.crop=40") == [
        "r/proposal/seed=0",
        "r/proposal/seed=1",
        "r/norot/seed=0",
        "r/norot/seed=1",
    ]


def test_defaults_come_from_the_composed_configuration() -> None:
    assert _planned("optimizer.lr=1e-3,1e-4") == [
        "r/demo/seed=5,optimizer.lr=0.001",
        "r/demo/seed=5,optimizer.lr=0.0001",
    ]


def _finished(path: Path, logits: dict[str, list[float]], **changes: Any) -> RunFolder:
    values: dict[str, Any] = {
        "status": "finished",
        "experiment": path.parent.name,
        "name": path.name,
        "seed": 0,
        "protocol": "paper",
        "config_hash": "0",
        "manifest_fingerprint": "m",
        "split_fingerprint": "s",
        "started": "2026-01-01T00:00:00+00:00",
        "best_epoch": 1,
    }
    folder = RunFolder(path)
    folder.write_info(RunInfo(**{**values, **changes}))
    table = {"epoch": 1, "role": "val", "cell_id": list("abcd"), "subject": "S"}
    folder.add_predictions(pd.DataFrame({**table, "label": [1, 1, 1, 0], **logits}))
    return folder


RIGHT, WRONG = [1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]


def test_the_table_has_spread_best_run_and_majority(tmp_path: Path) -> None:
    runs = [
        _finished(tmp_path / "proposal" / "seed=0", {"logit_0": WRONG, "logit_4": [3.0] * 4}),
        _finished(tmp_path / "proposal" / "seed=1", {"logit_0": RIGHT, "logit_4": RIGHT}),
    ]
    text = summary(runs)
    # All four called ALL: precision 3/4 and F1 6/7 for three cells, 0 for the fourth.
    constant = 100 * 3 / 4 * 6 / 7
    assert f"{(100 + constant) / 2:.2f} ± {(100 - constant) / 2:.2f}" in text
    assert f"majority class: {constant:.2f}" in text
    assert str(runs[1].best_checkpoint) in text
    assert "proposal: 2 runs, protocol paper, 4 cells" in text


def test_a_run_without_rotations_claims_none(tmp_path: Path) -> None:
    table = evaluate_finished([_finished(tmp_path / "norot" / "seed=0", {"logit_0": RIGHT})])
    assert table["view"].tolist() == ["no rotation"]
    assert "F1 rotations" not in summary([RunFolder(tmp_path / "norot" / "seed=0")])


def test_a_metric_without_its_class_is_not_defined(tmp_path: Path) -> None:
    folder = _finished(tmp_path / "demo" / "seed=0", {"logit_0": RIGHT})
    predictions = folder.read_predictions()
    assert predictions is not None
    folder.add_predictions(predictions.assign(label=1))
    row = evaluate_finished([folder]).iloc[0]
    assert np.isnan(row["specificity"])
    assert "n/a" in summary([folder])


def test_what_is_not_finished_is_listed_with_its_reason(tmp_path: Path) -> None:
    error = "Traceback ...\nRuntimeError: out of memory\n"
    failed = _finished(
        tmp_path / "demo" / "seed=0", {"logit_0": RIGHT}, status="failed", error=error
    )
    text = summary([failed, RunFolder(tmp_path / "demo" / "seed=1")])
    assert "seed=0 (failed: RuntimeError: out of memory)" in text
    assert "seed=1 (not started)" in text


@pytest.mark.parametrize("status", ["running", "failed"])
def test_only_finished_runs_count(tmp_path: Path, status: str) -> None:
    folder = _finished(tmp_path / "demo" / "seed=0", {"logit_0": RIGHT}, status=status)
    assert evaluate_finished([folder]).empty

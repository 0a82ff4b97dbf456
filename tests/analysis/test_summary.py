"""The table of a study: spread, best runs, comparisons, and what is not finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnmc.analysis.summary import evaluate_finished, summary
from cnmc.runs import RunFolder, RunInfo


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
    assert "best run of proposal: seed=1, F1 100.00 at epoch 1" in text
    assert "protocol paper: reported on 4 cells" in text


def test_a_run_without_rotations_claims_none(tmp_path: Path) -> None:
    table = evaluate_finished([_finished(tmp_path / "norot" / "seed=0", {"logit_0": RIGHT})])
    assert table["view"].tolist() == ["no rotation"]
    assert "rotations " not in summary([RunFolder(tmp_path / "norot" / "seed=0")])


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


def test_what_is_swept_besides_the_seed_is_not_averaged_away(tmp_path: Path) -> None:
    runs = [
        _finished(
            tmp_path / "nospeclr" / f"seed=0,optimizer.lr={rate}",
            {"logit_0": logits},
            setting=f"optimizer.lr={rate}",
        )
        for rate, logits in (("0.001", RIGHT), ("0.0001", WRONG))
    ]
    text = summary(runs)
    assert "100.00 ±  0.00" in text
    assert "0.00 ±  0.00" in text
    assert "best run of nospeclr optimizer.lr=0.001: seed=0,optimizer.lr=0.001" in text
    assert (
        "F1 of nospeclr optimizer.lr=0.0001 less that of nospeclr optimizer.lr=0.001: -100" in text
    )


def test_few_runs_are_said_to_be_few(tmp_path: Path) -> None:
    def study(num_runs: int) -> str:
        return summary(
            [
                _finished(tmp_path / name / f"seed={seed}", {"logit_0": logits}, seed=seed)
                for name, logits in (("proposal", RIGHT), ("norot", WRONG))
                for seed in range(num_runs)
            ]
        )

    assert "few runs" in study(4)
    text = study(5)
    assert "few runs" not in text
    assert "with probability 0.00" in text
    assert "proposal with no rotation is NOROT from the same checkpoints" in text


def test_the_earliest_of_equal_runs_is_the_best(tmp_path: Path) -> None:
    runs = [
        _finished(tmp_path / "proposal" / f"seed={seed}", {"logit_0": RIGHT}) for seed in range(12)
    ]
    assert "best run of proposal: seed=0," in summary(runs)


def test_a_run_at_work_and_one_that_was_interrupted_are_told_apart(tmp_path: Path) -> None:
    folder = _finished(tmp_path / "demo" / "seed=0", {"logit_0": RIGHT}, status="running")
    info = folder.read_info()
    assert info is not None
    folder.write_info(replace(info, epochs_done=2, max_epochs=6, best_f1=0.875))
    assert "(interrupted, epoch 2/6, F1 so far 87.50)" in summary([folder])
    with folder.lock():
        assert "(running, epoch 2/6, F1 so far 87.50)" in summary([folder])


def test_a_reason_that_the_folder_does_not_hold_is_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "demo" / "seed=1")
    assert "(not started: another keeps it)" in summary(
        [folder], {str(folder.path): "another keeps it"}
    )

"""The table of a study: spread, best runs, comparisons, and what is not finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cnmc.analysis.loading import load_study
from cnmc.analysis.metrics import evaluate
from cnmc.analysis.results import run_table
from cnmc.analysis.summary import summarise
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import config_hash


def _text(folders: list[RunFolder], reasons: dict[str, str] | None = None) -> str:
    return summarise(load_study(folders, reasons))


def _table(folders: list[RunFolder]) -> pd.DataFrame:
    return run_table(load_study(folders).groups)


def _finished(
    path: Path, logits: dict[str, list[float]], *, lr: float = 1e-4, **changes: Any
) -> RunFolder:
    values: dict[str, Any] = {
        "status": "finished",
        "experiment": path.parent.name,
        "name": path.name,
        "seed": 0,
        "protocol": "paper",
        "manifest_fingerprint": "m",
        "split_fingerprint": "s",
        "started": "2026-01-01T00:00:00+00:00",
        "best_epoch": 1,
    }
    labels = np.array([1, 1, 1, 0])
    mean = np.mean(list(logits.values()), axis=0)
    values["best_f1"] = None if np.isnan(mean).any() else evaluate(labels, mean)["f1"]
    folder = RunFolder(path)
    config = {"seed": changes.get("seed", 0), "optimizer": {"lr": lr}}
    folder.write_info(RunInfo(**{**values, "config_hash": config_hash(config), **changes}))
    folder.write_config(config)
    folder.add_metrics({"epoch": 1, "val/f1": 0.5})
    table = {"epoch": 1, "role": "val", "cell_id": list("abcd"), "subject": "S"}
    folder.add_predictions(pd.DataFrame({**table, "label": labels, **logits}))
    return folder


RIGHT, WRONG = [1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, -1.0, 1.0]


def test_the_table_has_spread_best_run_and_majority(tmp_path: Path) -> None:
    runs = [
        _finished(tmp_path / "proposal" / "seed=0", {"logit_0": WRONG, "logit_4": [3.0] * 4}),
        _finished(tmp_path / "proposal" / "seed=1", {"logit_0": RIGHT, "logit_4": RIGHT}),
    ]
    text = _text(runs)
    # All four called ALL: precision 3/4 and F1 6/7 for three cells, 0 for the fourth.
    constant = 100 * 3 / 4 * 6 / 7
    assert f"{(100 + constant) / 2:.2f} ± {(100 - constant) / 2:.2f}" in text
    assert f"{constant:.2f}" in text
    assert str(runs[1].best_checkpoint) in text
    assert "best run of proposal: seed=1, F1 100.00 at epoch 1" in text
    assert "protocol paper: reported on 4 cells" in text


def test_a_run_without_rotations_claims_none(tmp_path: Path) -> None:
    table = _table([_finished(tmp_path / "norot" / "seed=0", {"logit_0": RIGHT})])
    assert table["view"].tolist() == ["no rotation"]
    assert "rotations " not in _text([RunFolder(tmp_path / "norot" / "seed=0")])


def test_a_metric_without_its_class_is_not_defined(tmp_path: Path) -> None:
    folder = _finished(tmp_path / "demo" / "seed=0", {"logit_0": RIGHT})
    predictions = folder.read_predictions()
    assert predictions is not None
    folder.add_predictions(predictions.assign(label=1))
    row = _table([folder]).iloc[0]
    assert np.isnan(row["specificity"])
    assert "n/a" in _text([folder])


def test_what_is_not_finished_is_listed_with_its_reason(tmp_path: Path) -> None:
    error = "Traceback ...\nRuntimeError: out of memory\n"
    failed = _finished(
        tmp_path / "demo" / "seed=0", {"logit_0": RIGHT}, status="failed", error=error
    )
    text = _text([failed, RunFolder(tmp_path / "demo" / "seed=1")])
    assert "seed=0 (failed: RuntimeError: out of memory)" in text
    assert "seed=1 (not started)" in text


@pytest.mark.parametrize("status", ["running", "failed"])
def test_only_finished_runs_count(tmp_path: Path, status: str) -> None:
    folder = _finished(tmp_path / "demo" / "seed=0", {"logit_0": RIGHT}, status=status)
    assert _table([folder]).empty


def test_what_is_swept_besides_the_seed_is_not_averaged_away(tmp_path: Path) -> None:
    runs = [
        _finished(
            tmp_path / "nospeclr" / f"seed=0,optimizer.lr={rate}",
            {"logit_0": logits},
            setting=f"optimizer.lr={rate}",
        )
        for rate, logits in (("0.001", RIGHT), ("0.0001", WRONG))
    ]
    text = _text(runs)
    assert "100.00 ±   n/a" in text
    assert "0.00 ±   n/a" in text
    assert "best run of nospeclr optimizer.lr=0.001: seed=0,optimizer.lr=0.001" in text
    assert (
        "F1 of nospeclr optimizer.lr=0.0001 minus F1 of nospeclr optimizer.lr=0.001: -100" in text
    )


def _two_groups(root: Path, num_runs: int, **changes: Any) -> list[RunFolder]:
    return [
        _finished(root / name / f"seed={seed}", {"logit_0": logits}, seed=seed, **own)
        for name, logits, own in (("proposal", RIGHT, {}), ("norot", WRONG, changes))
        for seed in range(num_runs)
    ]


def test_few_runs_are_said_to_be_few(tmp_path: Path) -> None:
    assert "too few runs" in _text(_two_groups(tmp_path, 3))
    text = _text(_two_groups(tmp_path, 4))
    assert "too few runs" not in text
    assert "F1 of norot minus F1 of proposal: -100.00" in text
    assert "better: 0.00" in text


@pytest.mark.parametrize("name", ["manifest_fingerprint", "split_fingerprint"])
def test_groups_on_other_cells_are_not_compared(tmp_path: Path, name: str) -> None:
    text = _text(_two_groups(tmp_path, 5, **{name: "other"}))
    assert "norot: not compared" in text
    assert "Mann-Whitney" not in text


def test_runs_of_one_name_and_two_configurations_are_told_apart(tmp_path: Path) -> None:
    """Seeds 0 and 1 with one rate, seed 2 with another that was set and not swept."""
    runs = [
        _finished(tmp_path / "proposal" / f"seed={seed}", {"logit_0": RIGHT}, seed=seed, lr=lr)
        for seed, lr in enumerate([1e-4, 1e-4, 1e-3])
    ]
    table = _table(runs)
    assert table["variant"].nunique() == 2
    text = _text(runs)
    assert "best run of proposal optimizer.lr=0.0001: seed=0" in text
    assert "best run of proposal optimizer.lr=0.001: seed=2" in text


def test_what_rotations_add_is_told_run_by_run(tmp_path: Path) -> None:
    runs = [
        _finished(
            tmp_path / "demo" / f"seed={n}", {"logit_0": zero, "logit_4": [9.0, 9.0, 9.0, -9.0]}
        )
        for n, zero in enumerate((WRONG, RIGHT))
    ]
    text = _text(runs)
    assert "from the same checkpoints: +50.00" in text
    assert "higher in 1 of 2 runs" in text


def test_the_earliest_of_equal_runs_is_the_best(tmp_path: Path) -> None:
    runs = [
        _finished(tmp_path / "proposal" / f"seed={seed}", {"logit_0": RIGHT}) for seed in range(12)
    ]
    assert "best run of proposal: seed=0," in _text(runs)


def test_a_run_at_work_and_one_that_was_interrupted_are_told_apart(tmp_path: Path) -> None:
    folder = _finished(tmp_path / "demo" / "seed=0", {"logit_0": RIGHT}, status="running")
    info = folder.read_info()
    assert info is not None
    folder.write_info(replace(info, epochs_done=2, max_epochs=6, best_f1=0.875))
    assert "(interrupted, epoch 2/6, F1 so far 87.50)" in _text([folder])
    with folder.lock():
        assert "(running, epoch 2/6, F1 so far 87.50)" in _text([folder])


def test_a_reason_that_the_folder_does_not_hold_is_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "demo" / "seed=1")
    assert "(not started: another keeps it)" in _text(
        [folder], {str(folder.path): "another keeps it"}
    )

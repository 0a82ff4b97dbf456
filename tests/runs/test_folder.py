"""The run folder: identity, atomic files, best epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cnmc.errors import CnmcError
from cnmc.files import replacing
from cnmc.runs.folder import RunFolder, RunInfo, find_runs
from cnmc.runs.identity import config_hash, differing_keys, run_name
from cnmc.runs.lifecycle import check_place

CONFIG: dict[str, Any] = {
    "seed": 0,
    "optimizer": {"lr": {"head": 1e-2}},
    "data": {"root": "here", "crop": 300},
    "run": {"root": "runs"},
    "logger": {"kind": "wandb"},
}


def _info(**changes: Any) -> RunInfo:
    values: dict[str, Any] = {"experiment": "proposal", "name": "seed=0", "seed": 0}
    values |= {"status": "running", "config_hash": "0" * 12, "started": "2026-01-01T00:00:00+00:00"}
    return RunInfo(**{**values, **changes})


def test_the_identity_of_a_run_does_not_depend_on_its_place() -> None:
    moved = {**CONFIG, "data": {"root": "there", "crop": 300}, "run": {"root": "x"}, "logger": {}}
    assert config_hash(moved) == config_hash(CONFIG)
    assert differing_keys(moved, CONFIG) == {}
    other = {**CONFIG, "seed": 1, "optimizer": {"lr": 1e-4}}
    assert config_hash(other) != config_hash(CONFIG)
    assert list(differing_keys(CONFIG, other)) == ["optimizer.lr", "optimizer.lr.head", "seed"]


def test_the_same_sweep_gives_the_same_name() -> None:
    one = run_name(3, {"seed": "3", "optimizer.lr": "1e-4", "model": "x"})
    other = run_name(3, {"model": "x", "optimizer.lr": "1e-4"})
    assert one == other == "seed=3,model=x,optimizer.lr=1e-4"
    assert run_name(0, {"experiment": "norot"}) == "seed=0"
    assert "/" not in run_name(0, {"data.root": "/a/b"})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_info_round_trips_and_ignores_unknown_keys(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_info() is None
    folder.write_info(_info(best_f1=0.5))
    values = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**values, "of_a_later_version": 1}))
    assert folder.read_info() == _info(best_f1=0.5)


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "metrics.csv", "predictions.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / name).write_bytes(b"" if name != "run.json" else b"{")
    readers = {
        "run.json": folder.read_info,
        "config.yaml": folder.read_config,
        "metrics.csv": folder.read_metrics,
        "predictions.parquet": folder.read_predictions,
    }
    with pytest.raises(CnmcError, match=rf"{name}.*run.overwrite=true"):
        readers[name]()


def _rows(epoch: int, role: str = "val", value: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"epoch": epoch, "role": role, "cell_id": ["a", "b"], "subject": "S", "label": [0, 1]}
    ).assign(logit_0=value)


def test_predictions_of_an_epoch_are_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for rows in (_rows(0), _rows(1), _rows(1, "test"), _rows(1, value=5.0)):
        folder.add_predictions(rows)
    stored = folder.read_predictions()
    assert stored is not None
    assert len(stored) == 6
    value = stored.set_index(["epoch", "role", "cell_id"])["logit_0"]
    assert value[(1, "val", "a")] == 5.0
    assert value[(1, "test", "a")] == 0.0


def test_best_epoch_is_the_first_highest_and_never_epoch_0(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.best_epoch() is None
    for epoch, f1 in [(0, 0.99), (2, 0.8), (1, 0.7), (3, 0.8)]:
        folder.add_metrics({"epoch": epoch, "val/f1": f1})
    assert folder.read_metrics()["epoch"].tolist() == [0, 1, 2, 3]
    assert folder.best_epoch() == (2, 0.8)


def test_the_epochs_that_a_resumed_run_repeats_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in range(4):
        folder.add_metrics({"epoch": epoch, "val/f1": epoch / 10})
        folder.add_predictions(_rows(epoch))
    folder.forget_after(1)
    stored = folder.read_predictions()
    assert stored is not None
    assert set(stored["epoch"]) == {0, 1}
    assert folder.best_epoch() == (1, 0.1)


def test_only_one_process_trains_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnmc.runs.folder.LOCK_PATIENCE", 0.2)
    folder, other = (RunFolder(tmp_path / "experiment" / "seed=0") for _ in range(2))
    assert not folder.is_locked()
    with folder.lock():
        assert other.is_locked()
        with pytest.raises(CnmcError, match="seed=0"), other.lock():
            pass
    with other.lock():
        pass
    assert not folder.is_locked()


def test_the_reason_of_a_failure_is_its_last_line() -> None:
    error = "Traceback ...\n  File x\n"
    assert _info(error=error + "torch.OutOfMemoryError: full").reason == (
        "torch.OutOfMemoryError: full"
    )
    assert _info(error=error + "cnmc.errors.CnmcError: a.bmp: broken").reason == "a.bmp: broken"
    assert _info().reason is None


def test_runs_are_found_in_natural_order(tmp_path: Path) -> None:
    for name in ("seed=10", "seed=9"):
        RunFolder(tmp_path / "proposal" / name).write_info(_info(name=name))
    RunFolder(tmp_path / "norot" / "seed=1").write_info(_info())
    assert [run.path.name for run in find_runs(tmp_path)] == ["seed=1", "seed=9", "seed=10"]
    assert len(find_runs(tmp_path, ["proposal"])) == 2


@pytest.mark.parametrize(
    "path",
    ["file/runs/proposal/seed=0", "x" * 300 + "/proposal/seed=0", "runs/proposal/" + "ä" * 125],
)
def test_a_folder_that_cannot_be_made_is_refused_before(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CnmcError, match=r"run.root=.*run.name="):
        check_place(RunFolder(tmp_path / path))
    check_place(RunFolder(tmp_path / "runs" / "proposal" / "seed=0"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

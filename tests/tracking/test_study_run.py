"""A study's own run at W&B, read back from its offline files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wandb

from cnmc.analysis.loading import load_study
from cnmc.analysis.metrics import METRICS
from cnmc.analysis.results import run_table
from cnmc.cli.app import compose
from cnmc.runs.folder import find_runs
from cnmc.tracking import keys
from cnmc.tracking.loggers import log_study
from cnmc.train import study_figures
from tests.studies import write_run
from tests.tracking.transactions import LoggedRun, read_logs

CONFIG = {"model": {"name": "test_resnet"}}


def _log(root: Path, *overrides: str) -> dict[str, LoggedRun]:
    options = compose(["logger=wandb", "logger.mode=offline", *overrides])[0].logger
    log_study(options, load_study(find_runs(root)), root, study_figures)
    return {run.group: run for run in read_logs(root)}


def test_each_group_has_a_run_with_its_spread_and_the_reports_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(4):
        begun = f"2026-01-0{4 - seed}T00:00:00+00:00"
        write_run(tmp_path, "proposal", seed, config=CONFIG, started=begun, run_id=f"abc-{seed}")
    write_run(tmp_path, "norot", 0, config=CONFIG, num_views=1, run_id="def-0")
    logs = _log(tmp_path)
    assert set(logs) == {"proposal", "norot"}
    table = run_table(load_study(find_runs(tmp_path)).groups)
    for experiment, run in logs.items():
        assert (run.job_type, run.tags) == (keys.STUDY, ["paper", "test_resnet"])
        assert run.exit_code == 0
        rows = table[table["experiment"] == experiment]
        shown = rows[rows["view"] == rows["view"].iloc[0]]
        assert run.summary["n"] == len(shown)
        for metric in METRICS:
            values = shown[metric].to_numpy()
            for name, value in (
                ("mean", np.mean(values)),
                ("std", np.std(values)),
                ("min", np.min(values)),
                ("max", np.max(values)),
            ):
                assert run.summary[f"{metric}/{name}"] == pytest.approx(value)
        upright = rows[rows["view"] == "no rotation"]["f1"]
        assert run.summary["f1_norot/mean"] == pytest.approx(upright.mean())
        assert run.summary[keys.METRICS_TABLE]["_type"] == "table-file"
        for name in ("figure2", "figure3", "intervals", "roc", "persons"):
            assert run.summary[f"figures/{name}"]["_type"] == "image-file"
    whole, alone = logs["proposal"], logs["norot"]
    # The run that was begun first names it.
    assert (whole.id, alone.id) == ("study-abc-3", "study-def-0")
    assert whole.summary["f1/ci_low"] < whole.summary["f1/mean"] < whole.summary["f1/ci_high"]
    assert "f1/ci_low" not in alone.summary, "one run has no interval"
    assert whole.config["seeds"] == [0, 1, 2, 3]
    assert "seed" not in whole.config
    told = capsys.readouterr().out
    assert told.count("wandb sync") == 1
    assert str(tmp_path / "wandb/offline-run-*") in told


def test_a_study_that_cannot_be_logged_is_told_of_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError("no room")

    write_run(tmp_path, "proposal", 0, config=CONFIG)
    monkeypatch.setattr(wandb, "init", fail)
    assert _log(tmp_path) == {}
    told = capsys.readouterr()
    assert told.err.count("(OSError)") == 1
    assert told.out == ""


@pytest.mark.parametrize("overrides", [["logger=csv"], ["logger.mode=disabled"]])
def test_another_logger_leaves_nothing(tmp_path: Path, overrides: list[str]) -> None:
    write_run(tmp_path, "proposal", 0, config=CONFIG)
    assert _log(tmp_path, *overrides) == {}
    assert not (tmp_path / "wandb").exists()

"""The progress of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnmc.cli.app import compose
from cnmc.study.plan import job_folder
from cnmc.train import train
from cnmc.training.progress import RunProgress, clock


def test_a_clock_has_hours_minutes_and_seconds() -> None:
    assert clock(0.4) == "0:00:00"
    assert clock(3600 * 30 + 59 * 60 + 59.6) == "31:00:00"


def test_a_run_reports_its_epochs_its_batches_and_its_share(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnmc.training.progress._SECONDS_BETWEEN_REPORTS", 0.0)
    config, resolved = compose(tiny)
    reports: list[RunProgress] = []
    assert train(config, resolved, job_folder(config, [], {}), reports.append) == "trained"
    ends = [progress for progress in reports if progress.doing is None]
    assert [progress.epoch for progress in ends] == [0, 1, 2]
    assert [progress.share for progress in ends] == pytest.approx([0.0, 0.5, 1.0])
    shares = [progress.share for progress in reports if progress.share]
    assert shares == sorted(shares)
    # 40 cells in batches of 8, three passes each; 18 in one batch of 32, eight views each.
    first = next(p for p in reports if p.doing and p.doing.startswith("training batch 1/5 loss "))
    assert first.share == pytest.approx(0.5 * (3 * 8) / (5 * 3 * 8 + 8 * 32))
    assert ends[-1].seconds_left == pytest.approx(0.0)
    assert ends[-1].name == "proposal/seed=0"
    assert ends[0].best_f1 is None
    assert ends[-1].best_f1 is not None


def test_a_single_run_prints_a_line_for_each_epoch(
    tiny: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, resolved = compose([*tiny, "trainer.max_epochs=1"])
    train(config, resolved, job_folder(config, [], {}))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == [
        "proposal/seed=0 epoch 0/1",
        "proposal/seed=0 epoch 1/1",
    ]
    config, resolved = compose([*tiny, "trainer.progress_bar=false", f"run.root={tmp_path / 'q'}"])
    train(config, resolved, job_folder(config, [], {}))
    assert capsys.readouterr().out == ""

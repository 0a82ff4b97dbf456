"""How far a run is, as its callback tells it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

from cnmc.cli.app import compose
from cnmc.study.plan import job_folder
from cnmc.train import train
from cnmc.training.progress import BarProgress, RunProgress, clock


def test_a_clock_has_hours_minutes_and_seconds() -> None:
    assert clock(0.4) == "0:00:00"
    assert clock(3600 * 30 + 59 * 60 + 59.6) == "31:00:00"


@pytest.fixture
def told(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> list[RunProgress]:
    """What a run of two epochs tells when it may tell at every batch."""
    monkeypatch.setattr("cnmc.training.build._SECONDS_BETWEEN_STATES", 0.0)
    config, resolved = compose(tiny)
    states: list[RunProgress] = []
    assert train(config, resolved, job_folder(config, [], {}), states.append) == "trained"
    return states


def test_a_run_tells_its_epochs_its_batches_and_its_share(told: list[RunProgress]) -> None:
    ends = [state for state in told if state.doing is None]
    assert [state.epoch for state in ends] == [0, 1, 2]
    assert [state.share for state in ends] == pytest.approx([0.0, 0.5, 1.0])
    shares = [state.share for state in told if state.share]
    assert shares == sorted(shares)
    # 40 cells in batches of 8, three passes each; 18 in one batch of 32, eight views each.
    first = next(state for state in told if state.doing and state.doing.startswith("training"))
    assert first.doing is not None
    assert first.doing.startswith("training batch 1/5 loss ")
    assert first.share == pytest.approx(0.5 * (3 * 8) / (5 * 3 * 8 + 8 * 32))
    assert ends[-1].seconds_left == pytest.approx(0.0)
    assert ends[-1].name == "proposal/seed=0"
    assert ends[0].best_f1 is None
    assert 0.0 <= float(ends[-1].best_f1 or -1) <= 1.0


def test_a_bar_asks_for_the_loss_now_and_then(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time a GPU is waited for."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    asked: list[int] = []

    def ask(_self: BarProgress, trainer: pl.Trainer, _module: object) -> dict[str, float]:
        asked.append(trainer.global_step)
        return {}

    monkeypatch.setattr(BarProgress, "get_metrics", ask)
    monkeypatch.setattr("cnmc.training.progress._SECONDS_BETWEEN_LOSSES", 1e6)
    config, resolved = compose(tiny)
    train(config, resolved, job_folder(config, [], {}))
    assert asked
    # Of five steps the last; and what Lightning shows after each evaluation.
    assert not {1, 2, 3, 4, 6, 7, 8, 9} & set(asked)


def test_a_run_without_a_listener_prints_lines(
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

"""The progress and the end of a run."""

from __future__ import annotations

import os
import signal

import pytest

from cnmc.cli.app import compose
from cnmc.data.datamodule import CellDataModule
from cnmc.model.module import CellClassifier
from cnmc.signals import TERMINATED, listen
from cnmc.study.plan import job_folder
from cnmc.train import train
from cnmc.training.progress import RunProgress, clock


def test_a_clock_has_hours_minutes_and_seconds() -> None:
    assert clock(0.4) == "0:00:00"
    assert clock(3600 * 30 + 59 * 60 + 59.6) == "31:00:00"


def test_a_run_reports_its_epochs_its_batches_and_its_share(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnmc.training.recorder._SECONDS_BETWEEN_REPORTS", 0.0)
    config, resolved = compose(tiny)
    reports: list[RunProgress] = []
    assert train(config, resolved, job_folder(config), reports.append) == "trained"
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


@pytest.mark.parametrize(("shown", "epochs"), [("true", ["0/1", "1/1"]), ("false", [])])
def test_a_single_run_prints_a_line_for_each_epoch(
    tiny: list[str], capsys: pytest.CaptureFixture[str], shown: str, epochs: list[str]
) -> None:
    overrides = ["trainer.max_epochs=1", f"trainer.progress_bar={shown}"]
    config, resolved = compose([*tiny, *overrides])
    train(config, resolved, job_folder(config))
    lines = capsys.readouterr().out.splitlines()
    expected = [f"proposal/seed=0 epoch {epoch}" for epoch in epochs]
    assert [line.partition("  ")[0] for line in lines] == expected


class _Loses:
    """An object whose finaliser receives a signal."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, TERMINATED)])
def test_a_run_ends_even_if_the_exception_of_its_signal_was_lost(
    tiny: list[str], number: int, code: int
) -> None:
    listen()
    config, resolved = compose([*tiny, "trainer.max_epochs=20"])
    folder = job_folder(config)

    def report(progress: RunProgress) -> None:
        if progress.epoch == 1:
            _Loses(number)

    with pytest.raises(SystemExit) as ended:
        train(config, resolved, folder, report)
    # Lightning makes an exit with status 1 of Ctrl-C.
    assert ended.value.code == code
    info = folder.read_info()
    assert info is not None
    assert (info.status, info.epochs_done) == ("running", 1)


def test_the_first_error_of_a_training_is_raised(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("cause")

    def fail_too(_module: object, stage: str) -> None:
        if stage == "fit":
            raise RuntimeError("consequence")

    monkeypatch.setattr(CellClassifier, "training_step", fail)
    monkeypatch.setattr(CellDataModule, "teardown", fail_too)
    config, resolved = compose(tiny)
    folder = job_folder(config)
    with pytest.raises(ValueError, match="cause"):
        train(config, resolved, folder)
    info = folder.read_info()
    assert info is not None
    assert str(info.reason).endswith("cause")

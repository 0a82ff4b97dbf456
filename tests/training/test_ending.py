"""A signal whose exception got lost."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from cnmc.cli.app import compose
from cnmc.data.datamodule import CellDataModule
from cnmc.model.module import CellClassifier
from cnmc.signals import TERMINATED, listen
from cnmc.study.plan import job_folder
from cnmc.train import train
from cnmc.training.progress import RunProgress


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
    tiny: list[str],
    number: int,
    code: int,
) -> None:
    listen()
    config, resolved = compose([*tiny, "trainer.max_epochs=20"])
    folder = job_folder(config, [], {})

    def tell(progress: RunProgress, **_: Any) -> None:
        if progress.epoch == 1:
            _Loses(number)

    with pytest.raises(SystemExit) as ended:
        train(config, resolved, folder, tell)
    # Lightning makes an exit with status 1 of Ctrl-C.
    assert ended.value.code == code
    info = folder.read_info()
    assert info is not None
    assert info.status == "running"
    assert info.epochs_done == 1


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
    folder = job_folder(config, [], {})
    with pytest.raises(ValueError, match="cause"):
        train(config, resolved, folder)
    info = folder.read_info()
    assert info is not None
    assert str(info.reason).endswith("cause")

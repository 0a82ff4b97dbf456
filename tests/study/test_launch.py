"""The process that launches a study, until its first run begins."""

from __future__ import annotations

import signal

import pytest
from omegaconf import OmegaConf

from cnmc import signals
from cnmc.study import launch


@pytest.mark.parametrize(
    ("number", "ending", "status"),
    [
        (signal.SIGINT, KeyboardInterrupt, None),
        (signal.SIGTERM, SystemExit, signals.TERMINATED),
        (None, SystemExit, 2),
    ],
)
def test_an_error_ends_the_command_and_a_signal_too(
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals | None,
    ending: type[BaseException],
    status: int | None,
) -> None:
    """Hydra would continue. Code that a signal interrupts may fail in its own way."""

    def fail(*_: object) -> None:
        monkeypatch.setattr(signals, "_received", [number] if number else [])
        raise AttributeError("left halfway")

    monkeypatch.setattr(launch, "_begin", fail)
    with pytest.raises(ending) as caught:
        launch.StudyPlan().on_multirun_start(OmegaConf.create())
    assert getattr(caught.value, "code", None) == status

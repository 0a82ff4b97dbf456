"""The process that launches a study, until its first run begins."""

from __future__ import annotations

import signal

import pytest
from omegaconf import OmegaConf

from cnmc import signals
from cnmc.study import launch


@pytest.mark.parametrize(
    ("number", "raised", "status"),
    [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, SystemExit, 143)],
)
def test_what_stumbles_over_a_signal_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    raised: type[BaseException],
    status: int,
) -> None:
    """What is interrupted halfway may fail in its own way while it is left."""

    def interrupted(*_: object) -> None:
        monkeypatch.setattr(signals, "_received", [number])
        raise AttributeError("left halfway")

    monkeypatch.setattr(launch, "_begin", interrupted)
    with pytest.raises(raised):
        launch.StudyPlan().on_multirun_start(OmegaConf.create())
    assert signals.status_of_signal() == status
    assert capsys.readouterr().err == ""


def test_a_mistake_ends_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra would go on."""

    def failing(*_: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(launch, "_begin", failing)
    with pytest.raises(SystemExit) as caught:
        launch.StudyPlan().on_multirun_start(OmegaConf.create())
    assert caught.value.code == 2
    assert "error: no such thing" in capsys.readouterr().err

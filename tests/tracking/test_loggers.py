"""Loggers beside W&B, and what keeps their failures away from the training."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pytorch_lightning.loggers import CSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnmc.cli.app import compose
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from cnmc.study.plan import job_folder
from cnmc.tracking.loggers import Guard, ScalarLogger
from cnmc.train import train


def _train(tiny: list[str], *overrides: str) -> RunFolder:
    composed, resolved = compose([*tiny, *overrides])
    folder = job_folder(composed, [], {})
    train(composed, resolved, folder)
    return folder


def test_tensorboard_gets_the_scalars_by_epoch(tiny: list[str]) -> None:
    folder = _train(tiny, "logger=tensorboard", "data.batch_size=2")
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    kinds = {kind: names for kind, names in events.Tags().items() if names}
    assert set(kinds) == {"scalars"}
    metrics = folder.read_metrics().set_index("epoch")
    # Within an epoch: every tenth step.
    assert [event.step for event in events.Scalars("train/loss_step")] == [9, 19, 29, 39]
    assert set(kinds["scalars"]) == {*metrics.columns, "train/loss_step"}
    for name in metrics.columns:
        logged = pd.Series({event.step: event.value for event in events.Scalars(name)})
        stored = metrics[name].dropna()
        assert logged.index.tolist() == stored.index.tolist()
        np.testing.assert_allclose(logged, stored, rtol=1e-6)
    assert not list(folder.path.rglob("hparams*"))


def test_a_missing_tensorboard_is_named_with_the_way_out(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnmc.config.groups.find_spec", lambda _name: None)
    with pytest.raises(
        CnmcError, match=r"logger.kind=tensorboard.* pip install 'cnmc\[tensorboard\]'"
    ):
        compose([*tiny, "logger=tensorboard"])


@pytest.mark.parametrize(("logger", "kind"), [(CSVLogger, "csv"), (ScalarLogger, "tensorboard")])
def test_a_logger_that_fails_at_random_leaves_the_run_finished(
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    logger: Any,
    kind: str,
) -> None:
    dice = random.Random(0)
    for name in ("log_metrics", "save", "finalize"):
        real = getattr(logger, name)

        def broken(*args: Any, real: Any = real, **kwargs: Any) -> Any:
            if dice.random() < 0.7:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        monkeypatch.setattr(logger, name, broken)
    folder = _train(tiny, f"logger={kind}")
    info = folder.read_info()
    assert info is not None
    assert info.status == "finished"
    assert folder.read_metrics()["epoch"].tolist() == [0, 1, 2]
    assert folder.best_checkpoint.is_file()
    assert capsys.readouterr().err.count("(OSError)") == 1


def test_the_guard_reports_the_first_failure_only(capsys: pytest.CaptureFixture[str]) -> None:
    guard = Guard("the logger", "nothing is lost")
    for _ in range(3):
        with guard:
            raise KeyError("https://a.secret.address")
    assert guard.failed
    (line,) = capsys.readouterr().err.splitlines()
    assert "(KeyError)" in line
    with Guard("the logger", "nothing is lost"):
        raise CnmcError("predictions.parquet is lost")
    assert "(predictions.parquet is lost)" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt), guard:
        raise KeyboardInterrupt

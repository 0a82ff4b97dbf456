"""The shell around commands: one-line errors, composition."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module

import pytest
from hydra import compose as hydra_compose
from hydra import initialize
from hydra.errors import HydraException
from omegaconf.errors import ConfigKeyError

import cnmc.predict
from cnmc.cli.app import (
    compose,
    run_app,
    without_multirun,
)
from cnmc.config import Config, PredictConfig
from cnmc.errors import CnmcError, one_line
from cnmc.signals import TERMINATED


def test_an_error_is_one_line_with_its_cause() -> None:
    error = ValueError("Error merging\n")
    error.__cause__ = ValueError("Value 'abc'.\n    full_key: seed\n    object_type=Config")
    assert one_line(error) == "Error merging; Value 'abc'; key seed"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("data.crop=-1", "data.crop=-1"),
        ("split.seed=-1", "split.seed=-1"),
        ("trainer.accelerator=xyz", "trainer.accelerator=xyz"),
        ("run.name=../x", "run.name=../x"),
        ("run.name=.", "run.name=."),
        ("+foo=1", "foo"),
        ("+optimizer.lr.hed=1", "optimizer.lr.hed"),
        ("data.resize=0", "data.resize=0"),
        ("data.batch_size=0", "data.batch_size"),
        ("data.num_workers=-1", "data.num_workers"),
        ("split.kind=random", "split.kind=random"),
        ("split.val_fraction=1.0", "split.val_fraction"),
        ("split.fold=5", "split.fold=5"),
        ("augment.hflip=1.5", "augment.hflip"),
        ("augment.rotate=400", "augment.rotate"),
        ("model.drop_rate=1.0", "model.drop_rate"),
        ("model.std=[0,1,1]", "model.std"),
        ("optimizer.lr.head=-1", "optimizer.lr.head"),
        ("optimizer.decay_every=0", "optimizer.decay_every"),
        ("tta.num_rotations=3", "tta.num_rotations=3"),
        ("trainer.precision=64", "trainer.precision=64"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches"),
        ("logger.kind=paper", "logger.kind=paper"),
        ("logger.mode=on", "logger.mode"),
        ("seed=-1", "seed=-1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(override: str, key: str) -> None:
    with pytest.raises(CnmcError) as caught:
        compose([override])
    assert key in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("override", ["split.subjects=[H14]", "split.fold=1"])
def test_a_key_of_another_split_is_refused(override: str) -> None:
    with pytest.raises(CnmcError, match="goes with split=subject_"):
        compose([override])


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_several_jobs_are_refused_where_one_status_tells_of_one(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["predict", flag, "checkpoint=a", "input=b,c"])
    with pytest.raises(SystemExit) as ended:
        run_app(cnmc.predict.main, PredictConfig, arguments=without_multirun)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {flag}: ")
    assert told.count("\n") == 1


def test_one_rate_for_layerwise_rates_gets_a_hint() -> None:
    with pytest.raises(Exception, match="lr") as caught:
        compose(["optimizer.lr=1e-3"])
    assert "optimizer=flat" in one_line(caught.value)


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["model.weights=x.pth", "model.pretrained=false"], ["model.weights", "model.pretrained"]),
        (["augment.device=true", "augment.color=0.2"], ["augment.device", "augment.color"]),
        (["logger.log_last=true", "logger.log_model=false"], ["logger.log_last"]),
        (["data=synthetic", "data.synthetic.image_size=48"], ["data.crop"]),
        (
            ["data=synthetic", "data.synthetic.final_cells_all=1"],
            ["data.synthetic.final_cells_all"],
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(overrides: list[str], keys: list[str]) -> None:
    with pytest.raises(CnmcError) as caught:
        compose(overrides)
    for key in keys:
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("override", "key"),
    [("seed=abc", "seed"), ("optimizer.lr.hed=1", "hed"), ("data.crpo=3", "crpo")],
)
def test_a_wrong_type_or_key_is_refused_by_name(override: str, key: str) -> None:
    with pytest.raises(Exception, match=key) as caught:
        compose([override])
    line = one_line(caught.value)
    assert "\n" not in line
    assert key in line


@pytest.mark.usefixtures("own_signals")
def test_a_signal_is_what_ended_a_command_whatever_it_broke_on_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries are left in the middle of their work, and may stumble over it."""

    def main() -> None:
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        raise ConfigKeyError("half composed")

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as ended:
        run_app(main, Config)
    assert ended.value.code == TERMINATED
    told = capsys.readouterr().err
    assert "interrupted" in told
    assert "half composed" not in told


@pytest.mark.parametrize(
    ("command", "key"), [("report", "data.root"), ("export", "data.root"), ("best", "manifest")]
)
def test_data_of_existing_runs_names_the_key_to_use(command: str, key: str) -> None:
    import_module(f"cnmc.{command}")
    with initialize(config_path=None, version_base="1.3"), pytest.raises(HydraException) as caught:
        hydra_compose(command, ["data=/tmp"])
    assert key in one_line(caught.value)

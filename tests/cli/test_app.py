"""The shell around commands: composition, one-line errors, signals."""

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

from cnmc.cli.app import compose, run_app
from cnmc.config import Config, is_mistake
from cnmc.errors import CnmcError, one_line
from cnmc.signals import TERMINATED


def test_an_error_is_one_line_with_its_cause() -> None:
    error = ValueError("Error merging\n")
    error.__cause__ = ValueError("Value 'abc'.\n    full_key: seed\n    object_type=Config")
    assert one_line(error) == "Error merging; Value 'abc'; key seed"


@pytest.mark.parametrize(
    "override",
    [
        "data.crop=-1",
        "data.resize=0",
        "data.batch_size=0",
        "data.num_workers=-1",
        "split.seed=-1",
        "split.kind=random",
        "split.val_fraction=1.0",
        "split.fold=5",
        "split.fold=1",
        "split.subjects=[H14]",
        "augment.hflip=1.5",
        "augment.rotate=400",
        "model.drop_rate=1.0",
        "model.std=[0,1,1]",
        "optimizer.lr.head=-1",
        "optimizer.decay_every=0",
        "tta.num_rotations=3",
        "trainer.accelerator=xyz",
        "trainer.precision=64",
        "trainer.limit_val_batches=0",
        "logger.kind=paper",
        "logger.mode=on",
        "run.name=../x",
        "run.name=.",
        "seed=-1",
        "+foo=1",
        "+optimizer.lr.hed=1",
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key(override: str) -> None:
    key = override.partition("=")[0].lstrip("+")
    with pytest.raises(CnmcError, match=f"^{key}"):
        compose([override])


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["model.weights=x.pth", "model.pretrained=false"], "model.weights"),
        (["augment.device=true", "augment.color=0.2"], "augment.device"),
        (["logger.log_last=true", "logger.log_model=false"], "logger.log_last"),
        (["data=synthetic", "data.synthetic.image_size=48"], "data.crop"),
        (["data=synthetic", "data.synthetic.final_cells_all=1"], "data.synthetic.final_cells_all"),
    ],
)
def test_values_that_do_not_go_together_are_refused(overrides: list[str], key: str) -> None:
    with pytest.raises(CnmcError, match=f"^{key}"):
        compose(overrides)


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("seed=abc", "seed"),
        ("optimizer.lr.hed=1", "hed"),
        ("data.crpo=3", "crpo"),
        ("data.synthetic.image_size=48", "data.synthetic"),
        ("optimizer.lr=1e-3", "optimizer=flat"),
    ],
)
def test_what_hydra_refuses_is_one_line_that_names_the_key(override: str, word: str) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        compose([override])
    assert is_mistake(caught.value)
    assert word in one_line(caught.value)
    assert "\n" not in one_line(caught.value)


@pytest.mark.parametrize(
    ("command", "key"), [("report", "data.root"), ("export", "data.root"), ("best", "manifest")]
)
def test_data_of_existing_runs_names_the_key_to_use(command: str, key: str) -> None:
    import_module(f"cnmc.{command}")
    with initialize(config_path=None, version_base="1.3"), pytest.raises(HydraException) as caught:
        hydra_compose(command, ["data=/tmp"])
    assert key in one_line(caught.value)


@pytest.mark.usefixtures("own_signals")
def test_a_command_ends_with_the_status_of_its_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted library may raise an error of its own."""

    def main() -> None:
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        raise ConfigKeyError("half composed")

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as ended:
        run_app(main, Config)
    assert ended.value.code == TERMINATED
    assert "half composed" not in capsys.readouterr().err

"""The runs that a command line asks for, and the start of their study."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from cnmc import signals
from cnmc.config import CONFIG_DIR, register
from cnmc.errors import CnmcError
from cnmc.runs.identity import agent_parameters, agent_run_id
from cnmc.study import plan
from cnmc.study.plan import compose_settings, job_folder, planned_jobs, setting, with_multirun


def _planned(*arguments: str) -> list[str]:
    """Return the run folders of a command line."""
    register()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        command = with_multirun(["run.root=r", *arguments])
        jobs = planned_jobs([item for item in command if not item.startswith("-")])
        configs = compose_settings(jobs, "config")
    assert len(configs) == len({setting(job) for job in jobs})
    return [str(job_folder(configs[setting(job)], job).path) for job in jobs]


def test_every_combination_has_a_folder() -> None:
    assert _planned("experiment=proposal,norot", "seed=range(2)", "data.crop=40") == [
        "r/proposal/seed=0",
        "r/proposal/seed=1",
        "r/norot/seed=0",
        "r/norot/seed=1",
    ]


@pytest.mark.parametrize("sign", ["", "++"])
def test_folders_are_named_by_what_is_swept(sign: str) -> None:
    assert _planned("experiment=nospeclr", "seed=5", f"{sign}optimizer.lr=1e-3,1e-4") == [
        "r/nospeclr/seed=5,optimizer.lr=0.001",
        "r/nospeclr/seed=5,optimizer.lr=0.0001",
    ]


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["seed=range(24)"], "seed"),
        (["experiment=proposal,norot", "seed=1,2"], "experiment,seed"),
        (["-m", "seed=3", "split.subjects=[H14,2]", "model.weights='a,b'"], ""),
        (["+model.x=glob(*)", "optimizer.lr=choice(1,2)"], "model.x,optimizer.lr"),
    ],
)
def test_sweeps_are_recognised(arguments: list[str], keys: str) -> None:
    assert f"run.swept=[{keys}]" in with_multirun(arguments)


def test_a_sweep_switches_multirun_on_once() -> None:
    swept = ["seed=range(2)", "run.swept=[seed]", "study.id=x"]
    assert with_multirun(["seed=range(2)"], "x") == [*swept, "--multirun"]
    assert with_multirun(["-m", "seed=range(2)"], "x") == ["-m", *swept]
    assert with_multirun(["seed=range(2)", "-m"], "x") == [*swept, "-m"]
    assert with_multirun(["-m"], "x") == ["run.swept=[]", "study.id=x", "-m"]


@pytest.mark.parametrize("override", ["run.name=x", "++run.name=x", "run.root=a,b"])
def test_a_study_names_its_own_folders(override: str) -> None:
    with pytest.raises(CnmcError, match=override.lstrip("+").partition("=")[0]):
        with_multirun(["seed=1,2", override])


def test_two_commands_have_two_boards() -> None:
    assert with_multirun(["seed=1,2"]) != with_multirun(["seed=1,2"])


@pytest.mark.parametrize("arguments", [["seed=1"], ["seed=1,2", "--cfg", "job"], ["--help"]])
def test_other_commands_are_left_alone(arguments: list[str]) -> None:
    assert with_multirun(arguments) == arguments


def test_a_study_file_switches_multirun_on() -> None:
    study = ["+sweep=paper", "run.swept=[]", "study.id=x"]
    assert with_multirun(["+sweep=paper"], "x") == [*study, "--multirun"]
    assert with_multirun(["-m", "+sweep=paper"], "x") == ["-m", *study]
    with pytest.raises(CnmcError, match=r"^run\.name:"):
        with_multirun(["+sweep=paper", "run.name=x"])


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parameters' file of a W&B agent that started this process with two rates and a seed."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "wandb_version: 1\n\noptimizer.lr.head:\n  value: 0.003\noptimizer.lr.stage3:\n"
        "  value: 1.0e-05\nseed:\n  value: 4\n"
    )
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
    return path


GIVEN = ["split=nested", "optimizer.lr.head=0.003", "++optimizer.lr.stage3=1e-05", "seed=4"]


@pytest.mark.usefixtures("agent")
def test_the_parameters_of_an_agent_are_swept_in_a_single_run() -> None:
    assert agent_run_id() == "r1"
    keys = "run.swept=[optimizer.lr.head,optimizer.lr.stage3,seed]"
    assert with_multirun(GIVEN) == [*GIVEN, keys]
    assert with_multirun([*GIVEN, "--cfg", "job"]) == [*GIVEN, "--cfg", "job"]


@pytest.mark.parametrize("variable", ["WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"])
@pytest.mark.usefixtures("agent")
def test_without_an_agent_nothing_is_swept(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable)
    assert agent_parameters() is None
    assert agent_run_id() is None
    assert with_multirun(GIVEN) == GIVEN


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([*GIVEN, "data.crop=40,50"], "data.crop"),
        ([*GIVEN[:-1], "seed=range(2)"], "seed"),
        ([*GIVEN, "-m"], "multirun"),
        ([*GIVEN, "+sweep=paper"], "multirun"),
        ([*GIVEN, "run.name=x"], "run.name"),
        (GIVEN[:2], "optimizer.lr.stage3, seed"),
    ],
)
@pytest.mark.usefixtures("agent")
def test_an_agent_asks_for_one_run_with_all_parameters(arguments: list[str], named: str) -> None:
    with pytest.raises(CnmcError, match=f"^{named}:"):
        with_multirun(arguments)


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

    monkeypatch.setattr(plan, "_launch", fail)
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "basic"}}})
    with pytest.raises(ending) as caught:
        plan.StudyCallback().on_multirun_start(config)
    assert getattr(caught.value, "code", None) == status

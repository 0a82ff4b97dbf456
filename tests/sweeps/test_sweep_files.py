"""Sweep and study files: valid for W&B, composed by Hydra, in the folders of the command line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from wandb import wandb_agent

from cnmc.cli.app import compose, without_hydra
from cnmc.config import CONFIG_DIR, Config, register, to_config
from cnmc.runs.folder import find_runs
from cnmc.study.plan import compose_settings, job_folder, planned_jobs, setting, with_multirun
from tests.conftest import ROOT
from tests.study.forks import Forks

GRIDS = ("norot", "nospeclr", "proposal")
STUDY_FOLDER = ROOT / "sweeps" / "hydra"

LOWEST = {"optimizer.lr.stage1": 1e-7, "optimizer.lr.stage3": 1e-5, "optimizer.lr.head": 1e-3}
HIGHEST = {"optimizer.lr.stage1": 1e-5, "optimizer.lr.stage3": 1e-3, "optimizer.lr.head": 1e-1}
"""Two corners of the search over rates."""


def _sweep(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "sweeps" / "wandb" / f"{name}.yaml").read_text()))


class Started(list[str]):
    """The command of a process that an agent started, in place of that process."""

    environment: dict[str, str]

    def __init__(self, *, command: list[str], env: dict[str, str], **_: Any) -> None:
        super().__init__(command)
        self.environment = {key: env[key] for key in env if key.startswith("WANDB_")}

    @property
    def overrides(self) -> list[str]:
        """The command line of the program."""
        start = ["/usr/bin/env", "python", "-m", "cnmc.train"]
        assert self[: len(start)] == start
        return self[len(start) :]


class Agent:
    """W&B's own agent, without its server and its processes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # The agent sets these in its own process; monkeypatch restores them.
        monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
        monkeypatch.setenv("WANDB_DIR", str(folder))
        monkeypatch.setenv("WANDB_RUN_ID", "")
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "")
        monkeypatch.setattr(wandb_agent, "AgentProcess", Started)
        self._agent = wandb_agent.Agent(api=None, queue=None, sweep_id="s1")

    def start(self, name: str, parameters: dict[str, Any], run_id: str = "r1") -> Started:
        """Start a run of a sweep file as if the server had chosen the parameters."""
        sweep = _sweep(name)
        self._agent._sweep_command = sweep["command"]
        args = {key: {"value": value} for key, value in parameters.items()}
        self._agent._command_run(  # type: ignore[no-untyped-call]
            {"run_id": run_id, "program": sweep["program"], "type": "run", "args": args}
        )
        started: Started = self._agent._run_processes[run_id]
        return started


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    return Agent(tmp_path, monkeypatch)


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps" / "wandb").iterdir()))
def test_a_sweep_file_is_valid_for_wandb(path: Path) -> None:
    pytest.importorskip("sweeps.config", reason="W&B's package sweeps is not installed: make setup")
    # By name: type checkers confuse it with the folder of the checkout.
    wandb_sweeps: Any = import_module("sweeps")
    sweep = _sweep(path.stem)
    assert wandb_sweeps.schema_violations_from_proposed_config(sweep) == []
    assert sweep["name"] == path.stem
    assert (ROOT / sweep["program"]).is_file()


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_the_study_of_the_command_line(agent: Agent, name: str) -> None:
    parameters = _sweep(name)["parameters"]
    assert parameters == {"seed": {"values": list(range(24))}}
    command = with_multirun(agent.start(name, {"seed": 23}).overrides)
    config, _ = compose(command)
    planned = _planned([f"experiment={name}", "seed=range(24)", "run.swept=[seed]"])
    assert job_folder(config, command).path == planned[-1]


def test_the_search_over_rates_compares_trials_when_the_rates_first_fall(agent: Agent) -> None:
    for trial in (LOWEST, HIGHEST):
        config, _ = compose(with_multirun(agent.start("rates", trial).overrides))
        one, three, head = trial.values()
        assert list(config.optimizer.rates.values()) == [one, one, three, three, three, head]
        assert (config.split.kind, config.run.root) == ("nested", "runs/rates")
    sweep = _sweep("rates")
    ends = [(value["min"], value["max"]) for value in sweep["parameters"].values()]
    assert ends == list(zip(LOWEST.values(), HIGHEST.values(), strict=True))
    # Epoch 0, before training, has a value too.
    stop = sweep["early_terminate"]
    assert stop["max_iter"] == config.trainer.max_epochs + 1
    assert stop["max_iter"] // stop["eta"] == config.optimizer.decay_every + 1


@pytest.mark.slow
def test_the_trials_of_an_agent_have_their_own_folders(
    agent: Agent, commands: Forks, tiny: list[str], tmp_path: Path
) -> None:
    for run_id, trial in zip("abb", [LOWEST, HIGHEST, HIGHEST], strict=True):
        started = agent.start("rates", trial, run_id)
        (outcome,) = commands.run(
            [*started.overrides, *tiny, "trainer.max_epochs=1"], environment=started.environment
        )
        assert outcome.status == 0, outcome.output
    found = sorted(find_runs(tmp_path / "runs"), key=lambda folder: folder.path.name)
    assert [folder.path.name for folder in found] == [
        "seed=0,optimizer.lr.head=0.001,optimizer.lr.stage1=1e-07,optimizer.lr.stage3=1e-05",
        "seed=0,optimizer.lr.head=0.1,optimizer.lr.stage1=1e-05,optimizer.lr.stage3=0.001",
    ]
    info = found[1].read_info()
    assert info is not None
    assert (info.status, info.protocol, info.study_id) == ("finished", "honest", None)
    assert info.setting == found[1].path.name.removeprefix("seed=0,")


def _compose(*overrides: str) -> Config:
    """Compose the configuration of a command with study files."""
    register()
    search = f"hydra.searchpath=[{STUDY_FOLDER.as_uri()}]"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        whole = hydra_compose("config", [search, *overrides], return_hydra_config=True)
    config: Config = to_config(without_hydra(whole))
    return config


STUDIES = {
    "paper": ["experiment=proposal,norot,nospeclr", "seed=range(24)"],
    "proposal": ["seed=range(24)"],
    "norot": ["experiment=norot", "seed=range(24)"],
    "nospeclr": ["experiment=nospeclr", "seed=range(24)"],
    "rates": [
        "optimizer.lr.stage1=1e-7,1e-6,1e-5",
        "optimizer.lr.stage3=3e-5,1e-4,3e-4",
        "optimizer.lr.head=3e-3,1e-2,3e-2",
    ],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDY_FOLDER.glob("*/*")))
def test_a_study_file_fills_the_folders_of_the_command_line(name: str) -> None:
    config = _compose(f"+sweep={name}")
    assert config.split.kind == ("nested" if name == "rates" else "official")
    root = Path(config.run.root)
    assert root == Path("runs/rates" if name == "rates" else "runs")
    params = dict(HydraConfig.get().sweeper.params)
    plain = [*STUDIES[name], f"run.root={root}"]
    keys = [override.partition("=")[0] for override in STUDIES[name]]
    planned = _planned([f"+sweep={name}"], params)
    assert planned == _planned([*plain, f"run.swept=[{','.join(keys)}]"])


def _planned(overrides: list[str], params: dict[str, Any] | None = None) -> list[Path]:
    """Return the run folders of a study, with all its settings composed."""
    register()
    swept = [f"{key}={value}" for key, value in (params or {}).items()]
    jobs = [f"hydra.searchpath=[{STUDY_FOLDER.as_uri()}]", *swept, *overrides]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        planned = planned_jobs(jobs)
        configs = compose_settings(planned, "config")
    return [job_folder(configs[setting(job)], job, params).path for job in planned]


@pytest.mark.slow
def test_a_study_file_and_the_command_line_share_their_runs(
    commands: Forks, tiny: list[str], tmp_path: Path
) -> None:
    run = ["experiment=norot", "seed=1", *tiny, "trainer.max_epochs=1"]
    (first,) = commands.run(["--config-dir", str(STUDY_FOLDER), "+sweep=paper", *run])
    assert first.status == 0, first.output
    (found,) = find_runs(tmp_path / "runs")
    assert found.path == tmp_path / "runs" / "norot" / "seed=1"
    (again,) = commands.run(run)
    assert again.status == 0, again.output
    assert "finished already" in again.output


@pytest.mark.slow
def test_a_study_file_is_not_trained_as_one_run(commands: Forks, tmp_path: Path) -> None:
    experiment = tmp_path / "experiment" / "mine.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}\n")
    (outcome,) = commands.run(["--config-dir", str(tmp_path), "experiment=mine"])
    assert outcome.status == 2
    assert "hydra.sweeper.params" in outcome.output

"""Sweep and study files: valid for W&B, composed by Hydra, in the folders of the command line."""

from __future__ import annotations

import copy
import itertools
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
from cnmc.runs.folder import RunFolder, find_runs
from cnmc.study.plan import compose_settings, job_folder, planned_jobs, setting, with_multirun
from tests.conftest import ROOT
from tests.study.forks import Forks

GRIDS = ("norot", "nospeclr", "proposal")
SWEEPS = (*GRIDS, "rates")
STUDIES = ("norot", "nospeclr", "paper", "proposal", "rates")
STUDY_FOLDER = ROOT / "sweeps" / "hydra"


def _sweep(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "sweeps" / "wandb" / f"{name}.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def _search_corners() -> list[dict[str, float]]:
    """Return the corners of the search over rates."""
    parameters = _sweep("rates")["parameters"]
    ends = [(value["min"], value["max"]) for value in parameters.values()]
    return [dict(zip(parameters, corner, strict=True)) for corner in itertools.product(*ends)]


class Started(list[str]):
    """The command of a process that an agent started, in place of that process."""

    environment: dict[str, str]

    def __init__(self, *, command: list[str], env: dict[str, str], **_: Any) -> None:
        super().__init__(command)
        self.environment = {key: env[key] for key in env if key.startswith("WANDB_")}

    @property
    def overrides(self) -> list[str]:
        """What the command tells the program, after the start that all sweeps share."""
        start = ["/usr/bin/env", "python", "-m", "cnmc.train"]
        assert self[: len(start)] == start
        return self[len(start) :]


class Agent:
    """W&B's own agent, whose processes are caught and whose server is this test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # What the agent sets in its own process must not outlive the test.
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


@pytest.fixture
def wandb_sweeps() -> Any:
    """W&B's own package, with its schema and its searches."""
    pytest.importorskip("sweeps.config", reason="W&B's package sweeps is not installed: make setup")
    # By its name alone: type checkers take the folder of the checkout for it.
    return import_module("sweeps")


def test_the_schema_is_that_of_wandb(wandb_sweeps: Any) -> None:
    """The folder of the checkout has the same name as the package."""
    assert not Path(wandb_sweeps.__file__).is_relative_to(ROOT / "sweeps")


def test_every_sweep_file_is_tested() -> None:
    assert {path.stem for path in (ROOT / "sweeps" / "wandb").iterdir()} == set(SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_file_is_valid_for_wandb(wandb_sweeps: Any, name: str) -> None:
    sweep = _sweep(name)
    assert wandb_sweeps.schema_violations_from_proposed_config(sweep) == []
    wandb_sweeps.SweepConfig(sweep)
    assert sweep["name"] == name
    assert (ROOT / sweep["program"]).is_file()


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("method",), "gird"),
        (("comand",), []),
        (("early_terminate", "min_iters"), 3),
        (("parameters", "optimizer.lr.head", "min"), 0.5),
        (("parameters", "optimizer.lr.head", "min"), "1e-3"),
        (("parameters", "optimizer/lr"), {"value": 1}),
    ],
)
def test_a_broken_sweep_file_is_not(
    wandb_sweeps: Any, keys: tuple[str, ...], value: object
) -> None:
    sweep = copy.deepcopy(_sweep("rates"))
    node = sweep
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    assert wandb_sweeps.schema_violations_from_proposed_config(sweep)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_the_study_of_the_command_line(
    wandb_sweeps: Any, agent: Agent, name: str
) -> None:
    """Every run that W&B derives from the file belongs into the folder of the plain command."""
    proposed = wandb_sweeps.next_runs(_sweep(name), [], validate=True, n=100)
    chosen = [{key: v["value"] for key, v in run.config.items()} for run in proposed if run]
    commands = [with_multirun(agent.start(name, parameters).overrides) for parameters in chosen]
    # Only the seed differs, so that one composes where another does.
    assert {tuple(o for o in job if not o.startswith("seed=")) for job in commands} == {
        (f"experiment={name}", "run.swept=[seed]")
    }
    config, _ = compose(commands[-1])
    assert (config.experiment, config.seed, config.split.kind) == (name, 23, "official")
    folders = [job_folder(config, command) for command in commands]
    plain = [f"experiment={name}", "seed=range(24)"]
    assert _paths(folders) == _paths(_planned(plain))


def test_every_trial_of_the_search_composes_and_has_a_folder(
    wandb_sweeps: Any, agent: Agent
) -> None:
    trials = _search_corners()
    runs: list[Any] = []
    for _ in range(3):
        run = wandb_sweeps.next_run(_sweep("rates"), runs, validate=True)
        # As the server sends them, which knows no types of numpy.
        trials.append({key: float(v["value"]) for key, v in run.config.items()})
        f1 = 0.8 + 0.01 * len(runs)
        runs.append(
            wandb_sweeps.SweepRun(
                config=run.config, state=wandb_sweeps.RunState.finished, history=[{"val/f1": f1}]
            )
        )
    folders = []
    for trial in trials:
        command = with_multirun(agent.start("rates", trial).overrides)
        config, _ = compose(command)
        one, three, head = (
            trial[f"optimizer.lr.{stage}"] for stage in ("stage1", "stage3", "head")
        )
        assert list(config.optimizer.rates.values()) == [one, one, three, three, three, head]
        assert config.split.kind == "nested"
        folders.append(job_folder(config, command).path)
    assert {folder.parent for folder in folders} == {Path("runs/rates/proposal")}
    assert len(set(folders)) == len(trials) == 11
    assert folders[0].name == (
        "seed=0,optimizer.lr.head=0.001,optimizer.lr.stage1=1e-07,optimizer.lr.stage3=1e-05"
    )


def _stopped(wandb_sweeps: Any, sweep: dict[str, Any], histories: list[list[float]]) -> list[int]:
    """Return which trials W&B stops, by their position."""
    runs = [
        wandb_sweeps.SweepRun(
            name=str(position),
            state=wandb_sweeps.RunState.running,
            history=[{"val/f1": value} for value in history],
        )
        for position, history in enumerate(histories)
    ]
    return [int(run.name) for run in wandb_sweeps.stop_runs(sweep, runs, validate=True)]


def test_the_search_looks_at_a_trial_once_when_the_rates_first_fall(wandb_sweeps: Any) -> None:
    sweep = _sweep("rates")
    config, _ = compose([])
    # Epoch 0, before training, has a value too.
    num_values = config.trainer.max_epochs + 1
    looked_at = config.optimizer.decay_every + 1
    assert sweep["early_terminate"]["max_iter"] == num_values

    def histories(length: int) -> list[list[float]]:
        return [[0.1 * rank] * length for rank in range(10)]

    assert _stopped(wandb_sweeps, sweep, histories(looked_at - 1)) == []
    assert _stopped(wandb_sweeps, sweep, histories(looked_at)) == [0, 1, 2, 3]
    # Whoever passed goes on to the end, how badly ever.
    later = [course + [0.0] * (num_values - looked_at) for course in histories(looked_at)]
    assert _stopped(wandb_sweeps, sweep, later) == [0, 1, 2, 3]


@pytest.mark.slow
def test_an_agents_trials_have_folders_of_their_own(
    agent: Agent, commands: Forks, tiny: list[str], tmp_path: Path
) -> None:
    trials = [_search_corners()[0], _search_corners()[-1]]
    for run_id, trial in zip("abb", [*trials, trials[-1]], strict=True):
        started = agent.start("rates", trial, run_id)
        (outcome,) = commands.run(
            [*started.overrides, *tiny, "trainer.max_epochs=1"], environment=started.environment
        )
        assert outcome.status == 0, outcome.output
    assert "finished already" in outcome.output
    found = sorted(find_runs(tmp_path / "runs"), key=lambda folder: folder.path.name)
    assert [folder.path.name for folder in found] == [
        "seed=0,optimizer.lr.head=0.001,optimizer.lr.stage1=1e-07,optimizer.lr.stage3=1e-05",
        "seed=0,optimizer.lr.head=0.1,optimizer.lr.stage1=1e-05,optimizer.lr.stage3=0.001",
    ]
    info = found[1].read_info()
    assert info is not None
    assert (info.status, info.protocol, info.study_id) == ("finished", "honest", None)
    assert info.setting == found[1].path.name.removeprefix("seed=0,")


def _planned(overrides: list[str], params: dict[str, Any] | None = None) -> list[RunFolder]:
    """Return the run folders of a study."""
    register()
    with (
        pytest.MonkeyPatch.context() as patch,
        initialize_config_dir(str(CONFIG_DIR), version_base="1.3"),
    ):
        patch.delenv("WANDB_SWEEP_ID", raising=False)
        swept = [f"{key}={value}" for key, value in (params or {}).items()]
        command = [item for item in with_multirun(overrides) if item != "--multirun"]
        jobs = planned_jobs([f"hydra.searchpath=[{STUDY_FOLDER.as_uri()}]", *swept, *command])
        configs = compose_settings(jobs, "config")
    return [job_folder(configs[setting(job)], job, params) for job in jobs]


def _paths(folders: list[RunFolder]) -> list[str]:
    return [str(folder.path) for folder in folders]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("paper", ["experiment=proposal,norot,nospeclr", "seed=range(24)"]),
        ("proposal", ["seed=range(24)"]),
        ("norot", ["experiment=norot", "seed=range(24)"]),
        ("nospeclr", ["experiment=nospeclr", "seed=range(24)"]),
        (
            "rates",
            [
                "optimizer.lr.stage1=1e-7,1e-6,1e-5",
                "optimizer.lr.stage3=3e-5,1e-4,3e-4",
                "optimizer.lr.head=3e-3,1e-2,3e-2",
            ],
        ),
    ],
)
def test_a_study_file_fills_the_folders_of_the_command_line(name: str, plain: list[str]) -> None:
    study = f"+sweep={name}"
    config = _compose(study)
    params = dict(HydraConfig.get().sweeper.params)
    is_search = name == "rates"
    assert config.split.kind == ("nested" if is_search else "official")
    root = Path("runs/rates" if is_search else "runs")
    assert Path(config.run.root) == root
    planned = _planned([study], params)
    assert _paths(planned) == _paths(_planned([*plain, f"run.root={root}"]))


def _compose(*overrides: str) -> Config:
    """Compose what a command with study files asks for."""
    register()
    search = f"hydra.searchpath=[{STUDY_FOLDER.as_uri()}]"
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        whole = hydra_compose("config", [search, *overrides], return_hydra_config=True)
    config: Config = to_config(without_hydra(whole))
    return config


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_settings"), [("paper", 3), ("rates", 27)])
def test_every_setting_of_a_study_file_composes(name: str, num_settings: int) -> None:
    study = f"+sweep={name}"
    kind = _compose(study).split.kind
    params = dict(HydraConfig.get().sweeper.params)
    jobs = planned_jobs([*(f"{key}={value}" for key, value in params.items()), study])
    jobs_by_setting = {setting(job): job for job in jobs}
    assert len(jobs_by_setting) == num_settings
    for job in jobs_by_setting.values():
        config = _compose(*job)
        asked = dict(override.split("=") for override in job)
        assert config.split.kind == kind
        assert config.experiment == asked.get("experiment", "proposal")
        for key, value in asked.items():
            if key.startswith("optimizer.lr."):
                assert config.optimizer.rates[key.removeprefix("optimizer.lr.")] == float(value)


def test_every_study_file_is_tested() -> None:
    assert sorted(path.stem for path in STUDY_FOLDER.glob("*/*")) == list(STUDIES)


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
    assert f"{found.path}: finished already" in again.output


@pytest.mark.slow
def test_a_study_is_not_taken_for_one_run(commands: Forks, tmp_path: Path) -> None:
    experiment = tmp_path / "experiment" / "mine.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '1,2'}}}\n")
    (outcome,) = commands.run(["--config-dir", str(tmp_path), "experiment=mine"])
    assert outcome.status == 2
    assert "error: hydra.sweeper.params: seed would not be swept; add -m" in outcome.output

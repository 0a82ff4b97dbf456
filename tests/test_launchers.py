"""Launchers: the presets, and a study that ends alike whichever of them runs it."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.types import HydraContext, RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from submitit.core.utils import FailedJobError

from cnmc import devices
from cnmc.config import CONFIG_DIR, register
from cnmc.errors import one_line
from cnmc.runs.folder import RunFolder
from cnmc.study.plan import StudyCallback
from tests.conftest import ROOT, TINY
from tests.study.forks import Forks

PRESETS = {
    "sequential": "basic_launcher.BasicLauncher",
    "parallel": "joblib_launcher.JoblibLauncher",
    "slurm": "submitit_launcher.SlurmLauncher",
    "slurm_local": "submitit_launcher.LocalLauncher",
    "ray_local": "ray_launcher.RayLauncher",
    "ray_cluster": "ray_launcher.RayLauncher",
}


@pytest.fixture
def hydra() -> Iterator[None]:
    """Hydra over the configuration files, as a command has it."""
    register()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        yield


def _composed(*overrides: str) -> DictConfig:
    node = (
        GlobalHydra.instance()
        .config_loader()
        .load_configuration("config", list(overrides), RunMode.MULTIRUN)
    )
    HydraConfig.instance().set_config(node)
    return node


def _launch(task: Callable[[DictConfig], Any], jobs: list[list[str]], *overrides: str) -> list[Any]:
    """Launch jobs as Hydra does; return what the task returned in each."""
    node = _composed(*overrides)
    launcher = instantiate(node.hydra.launcher)
    context = HydraContext(
        config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks(node)
    )
    launcher.setup(hydra_context=context, task_function=task, config=node)
    return [job.return_value for job in launcher.launch(jobs, initial_job_idx=0)]


def _num_threads(_node: DictConfig) -> int:
    return torch.get_num_threads()


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in (CONFIG_DIR / "hydra" / "launcher").iterdir()} == set(PRESETS)


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compose(preset: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    node = _composed(f"hydra/launcher={preset}", f"run.root={root}")
    launcher = OmegaConf.to_container(node.hydra.launcher, resolve=True)
    assert isinstance(launcher, dict)
    assert launcher["_target_"].endswith(PRESETS[preset])
    # The logs of jobs are below the study's own folder.
    logs = launcher.get("submitit_folder", str(root / ".multirun"))
    assert logs.startswith(str(root / ".multirun"))


@pytest.mark.usefixtures("hydra")
def test_a_sweep_folder_means_the_same_in_every_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node = _composed("run.root=runs")
    monkeypatch.chdir(ROOT)
    assert node.hydra.sweep.dir == str(tmp_path / "runs" / ".multirun")


@pytest.mark.usefixtures("hydra")
def test_a_job_works_in_the_folder_of_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node = _composed()
    monkeypatch.chdir(ROOT)
    callback = instantiate(node.hydra.callbacks.study)
    assert isinstance(callback, StudyCallback)
    callback.on_job_start(config=node)
    assert Path.cwd() == tmp_path


@pytest.mark.usefixtures("hydra")
def test_ray_shares_gpus_and_cores_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "num_gpus", lambda: 2)
    monkeypatch.setattr(devices, "num_cores", lambda: 16)
    remote = _composed("hydra/launcher=ray_local").hydra.launcher.ray.remote
    assert (remote.num_gpus, remote.num_cpus) == (1, 8)
    quarter = _composed("hydra/launcher=ray_local", "hydra.launcher.ray.remote.num_gpus=0.25")
    assert quarter.hydra.launcher.ray.remote.num_cpus == 2


@pytest.mark.usefixtures("hydra")
@pytest.mark.parametrize(
    ("preset", "plugin", "extra"),
    [
        ("parallel", "joblib", "launchers"),
        ("slurm", "submitit_slurm", "launchers"),
        ("slurm_local", "submitit_local", "launchers"),
        ("ray_cluster", "ray", "ray"),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, preset: str, plugin: str, extra: str
) -> None:
    known = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(known, f"{plugin}.yaml")
    with pytest.raises(MissingConfigException) as error:
        _composed(f"hydra/launcher={preset}")
    message = one_line(error.value)
    assert message.endswith(f"pip install 'cnmc[{extra}]'")


@pytest.mark.usefixtures("hydra")
def test_a_misspelt_launcher_is_not_taken_for_a_missing_package() -> None:
    with pytest.raises(MissingConfigException) as error:
        _composed("hydra/launcher=paralel")
    assert "parallel" in one_line(error.value)
    assert "pip install" not in one_line(error.value)


@pytest.mark.usefixtures("hydra")
def test_slurm_is_asked_for_what_the_preset_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up sbatch keeps the script that it is given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, lines in (
        ("sbatch", f'for last; do :; done; cp "$last" {tmp_path}/script; exit 1'),
        ("srun", "exit 1"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    overrides = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", f"run.root={tmp_path}"]
    with pytest.raises(FailedJobError):
        _launch(_num_threads, [[f"seed={seed}"] for seed in range(4)], *overrides)
    script = (tmp_path / "script").read_text()
    for option in (
        "array=0-3%4",
        "signal=USR2@120",
        "requeue",
        "gpus-per-node=1",
        "cpus-per-task=4",
        "mem=16GB",
        "time=240",
        "partition=gpu",
        "job-name=cnmc",
    ):
        assert f"#SBATCH --{option}\n" in script
    assert "#SBATCH --account" not in script
    assert f"#SBATCH --output={tmp_path}/.multirun/submitit/" in script


STUDY = ("seed=range(2)", "optimizer.decay_every=1", "trainer.max_epochs=3")
"""Two runs, long enough to interrupt one after its first epoch."""


def _command(data: Path, *overrides: str) -> list[str]:
    """Return a study as a user types it, with the default logger and workers."""
    tiny = [o for o in TINY if not o.startswith(("data.num_workers", "logger", "trainer.max"))]
    places = [f"data.root={data / 'data'}", f"data.work_dir={data / 'work'}", "run.root=runs"]
    return [sys.executable, "-m", "cnmc.train", *tiny, *places, *STUDY, *overrides]


def _environment() -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HYDRA", "OMP"))}
    return {**keep, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}


def _assert_complete(root: Path, expected: Path) -> None:
    """Both runs are finished, with the bits of a plain study, and logged to W&B."""
    for seed in range(2):
        folder, other = (
            RunFolder(place / "runs" / "proposal" / f"seed={seed}") for place in (root, expected)
        )
        found, plain = folder.read_predictions(), other.read_predictions()
        assert found is not None
        assert plain is not None
        pd.testing.assert_frame_equal(found, plain, check_exact=True)
        info = folder.read_info()
        assert info is not None
        assert info.status == "finished"
        logs = list(folder.path.glob("wandb/offline-run-*/*.wandb"))
        assert {log.name for log in logs} == {f"run-{info.run_id}.wandb"}


@pytest.fixture(scope="module")
def plain(commands: Forks, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study, one run after the other, without workers and logger."""
    folder = tmp_path_factory.mktemp("plain")
    overrides = _command(tiny_data, "data.num_workers=0", "logger=none")[3:]
    (done,) = commands.run([*overrides, f"run.root={folder / 'runs'}"])
    assert done.status == 0, done.output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "output"), [("parallel", "/dev/full"), ("ray_local", "/dev/stdout")]
)
def test_every_launcher_runs_a_study_whatever_happens_to_its_output(
    plain: Path, tiny_data: Path, tmp_path: Path, launcher: str, output: str
) -> None:
    """``slurm_local`` is tested below, in worse circumstances."""
    if launcher == "ray_local":
        pytest.importorskip("ray")
    command = _command(tiny_data, f"hydra/launcher={launcher}")
    script = f'"$@" <&- > {output} 2>&1'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" finished  F1 ") == (0 if output == "/dev/full" else 2)
    _assert_complete(tmp_path, plain)


@pytest.mark.slow
def test_a_run_that_is_interrupted_is_requeued_and_resumes(
    plain: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """The signal that SLURM sends before a time-out, to every process of one of two jobs."""
    command = _command(tiny_data, "hydra/launcher=slurm_local")
    folder = RunFolder(tmp_path / "runs" / "proposal" / "seed=0")
    with subprocess.Popen(
        command, cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE
    ) as process:
        _wait_for(folder.last_checkpoint.is_file)
        log = _log_of(tmp_path, "proposal/seed=0 epoch")
        # A job's folder is named after the process that controls it.
        (task,) = _children(int(log.parent.name))
        workers = _children(task)
        for number in [*workers, task]:
            os.kill(number, signal.SIGUSR2)
        process.communicate()
    assert workers
    assert process.returncode == 0, log.read_text()
    # The processes that augment leave the signal to the one that trains.
    text = log.read_text()
    assert len(re.findall("submitit INFO .* - Calling checkpoint", text)) == 1
    assert len(re.findall("submitit INFO .* - Requeued job", text)) == 1
    # The second process resumed: epoch 0, before training, was not evaluated again.
    assert text.count("proposal/seed=0 epoch 0/3") == 1
    assert text.count("proposal/seed=0 epoch 3/3") == 1
    _assert_complete(tmp_path, plain)


def _wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _log_of(root: Path, words: str) -> Path:
    logs = (root / "runs" / ".multirun" / "submitit").glob("*/*_log.out")
    (log,) = (path for path in logs if words in path.read_text())
    return log


def _children(process: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]

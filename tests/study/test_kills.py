"""Kills of a parallel study: the launching process, single workers, the whole group."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from cnmc.runs.folder import RunFolder, find_runs
from tests.conftest import ROOT, TINY
from tests.study.forks import Forks

pytestmark = pytest.mark.slow

NUM_KILLS = int(os.environ.get("CNMC_KILLS", "3"))
"""How often a study is killed; set the variable for a longer trial."""

VICTIMS = ("launcher", "worker", "group")
MARK = "CNMC_TEST_STUDY"
"""An environment variable that all processes of a command inherit."""


def _overrides(folder: Path, *overrides: str) -> list[str]:
    tiny = [
        item for item in TINY if not item.startswith(("data.num_workers", "logger", "trainer.m"))
    ]
    own = [f"data.root={folder / 'data'}", f"data.work_dir={folder / 'work'}", "seed=0,1"]
    own += [f"run.root={folder / 'runs'}", "trainer.max_epochs=3", "optimizer.decay_every=1"]
    return [*tiny, *own, *overrides]


@contextmanager
def _started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a study of two runs at once, with the default workers and the default logger."""
    overrides = _overrides(folder, "hydra/launcher=parallel", "hydra.launcher.n_jobs=2")
    command = [sys.executable, "-m", "cnmc.train", *overrides]
    environment = {**os.environ, MARK: str(folder), "WANDB_MODE": "offline"}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process  # type: ignore[misc]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _processes(folder: Path) -> dict[int, str]:
    """Return the command lines of all processes that a command for a folder has or left."""
    mark = f"{MARK}={folder}".encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def _wait(happened: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _workers(folder: Path) -> list[int]:
    return [pid for pid, line in _processes(folder).items() if "LokyProcess" in line]


def _kill(process: subprocess.Popen[str], victim: str, folder: Path, draw: random.Random) -> None:
    if victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "launcher":
        process.kill()
    elif workers := _workers(folder):
        # One that trains or one of its loader processes: they have the same command line.
        os.kill(draw.choice(workers), signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(commands: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (done,) = commands.run(_overrides(folder, "logger=none", "data.num_workers=0"))
    assert done.status == 0, done.output
    return folder


@pytest.mark.timeout(300 + 30 * NUM_KILLS)
def test_a_parallel_study_survives_kills(undisturbed: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    num_kills = number = 0
    while num_kills < NUM_KILLS:
        folder = tmp_path / str(number)
        folder.mkdir()
        number += 1
        victims = iter(VICTIMS)
        while not _finished_or_killed(folder, next(victims, None), draw):
            num_kills += 1
        _assert_same(folder, undisturbed)
    print(f"{num_kills} kills of {number} studies")


def _finished_or_killed(folder: Path, victim: str | None, draw: random.Random) -> bool:
    """Start the study, kill a part of it at a random moment, and wait until nothing is left.

    Returns:
        Whether it finished before.
    """
    with _started(folder) as process:
        _wait(lambda: len(_workers(folder)) >= 2 or process.poll() is not None)
        if victim is not None:
            if draw.random() < 0.7:  # Else no run has begun.
                _wait(lambda: process.poll() is not None or _is_training(folder))
                time.sleep(draw.uniform(0.0, 4.0))
            _kill(process, victim, folder, draw)
        status = process.wait(240)
    _wait(lambda: not _processes(folder), seconds=10)
    return status == 0


def _is_training(folder: Path) -> bool:
    return any(run.is_locked() for run in find_runs(folder / "runs"))


def _predictions(folder: Path, seed: int) -> pd.DataFrame:
    table = RunFolder(folder / "runs" / "proposal" / f"seed={seed}").read_predictions()
    assert table is not None
    return table


def _assert_same(folder: Path, undisturbed: Path) -> None:
    for seed in (0, 1):
        table, expected = _predictions(folder, seed), _predictions(undisturbed, seed)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
    assert not list((folder / "runs").rglob(".*.tmp"))
    assert [path.name for path in (folder / "runs" / ".multirun").iterdir()] == ["multirun.yaml"]

"""What a study survives: kills at any moment, signals, a full disk, runs that fail, company."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder, RunInfo, find_runs
from tests.conftest import ROOT, TINY
from tests.study.forks import Forks, Outcome

pytestmark = pytest.mark.slow

STUDY = ("experiment=proposal,norot", "seed=range(2)", "optimizer.decay_every=1")
NUM_RUNS = 4
NUM_KILLS = int(os.environ.get("CNMC_KILLS", "6"))
"""How often a study is killed; set the variable for a longer trial."""


@dataclass(frozen=True)
class Undisturbed:
    """The study that nothing happened to."""

    runs: Path
    data: Path
    """The folder with its data, to be used again."""
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(commands: Forks, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    # Answered when all is imported: the clock is for the study alone.
    commands.run(["--help"])
    start = time.monotonic()
    (done,) = commands.run(_study(folder))
    assert done.status == 0, done.output
    return Undisturbed(folder / "runs", folder, time.monotonic() - start)


def _study(folder: Path, data: Path | None = None) -> list[str]:
    """Return the command of the study; its data are generated anew in each folder."""
    data = data or folder
    own = [f"data.root={data / 'data'}", f"data.work_dir={data / 'work'}"]
    return [*TINY, *own, f"run.root={folder / 'runs'}", *STUDY]


def _info(folder: RunFolder) -> RunInfo:
    info = folder.read_info()
    assert info is not None
    return info


def _check_whole(root: Path) -> None:
    """Every file that has its final name can be read, and every run can go on or is finished."""
    for folder in find_runs(root):
        info = _info(folder)
        assert info.status in {"running", "failed", "finished"}
        assert folder.read_config()["seed"] == info.seed
        epochs = folder.read_metrics()["epoch"].tolist()
        assert epochs == list(range(len(epochs)))
        predictions = folder.read_predictions()
        if folder.last_checkpoint.is_file():
            done = load_checkpoint(folder.last_checkpoint)["cnmc"]["epoch"]
            assert predictions is not None
            assert set(range(done + 1)) <= set(predictions["epoch"])
            # The metrics of an epoch are written before its checkpoint.
            assert epochs[-1] - done in (0, 1)
        if folder.best_checkpoint.is_file():
            load_checkpoint(folder.best_checkpoint)
        if info.status == "finished":
            assert epochs[-1] == info.max_epochs
            assert folder.best_checkpoint.is_file()


def _check_complete(root: Path, undisturbed: Undisturbed) -> None:
    """Every run is finished, with the logits of a run that nothing happened to, and no litter."""
    found = find_runs(root)
    assert len(found) == NUM_RUNS
    for folder in found:
        assert _info(folder).status == "finished"
        expected = RunFolder(undisturbed.runs / folder.path.relative_to(root))
        table, expected_table = folder.read_predictions(), expected.read_predictions()
        assert table is not None
        assert expected_table is not None
        pd.testing.assert_frame_equal(table, expected_table, check_exact=True)
        names = {path.name for path in folder.path.iterdir()}
        assert names == {path.name for path in expected.path.iterdir()}
    assert not list(root.rglob(".*.tmp"))
    assert [path.name for path in (root / ".multirun").iterdir()] == ["multirun.yaml"]


@pytest.mark.timeout(900)
def test_a_study_survives_kills(commands: Forks, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """SIGKILL at random moments: while data are made, within epochs, between two writes.

    Every other study augments in a process of its own, which fetches ahead.
    """
    moments = random.Random(0)
    num_kills = study = 0
    while num_kills < NUM_KILLS:
        folder = tmp_path / str(study)
        command = [*_study(folder), f"data.num_workers={study % 2}"]
        while True:
            after = moments.uniform(0.01, 0.7) * undisturbed.seconds
            (done,) = commands.run(command, signal=signal.SIGKILL, after=after)
            if done.status == 0:
                break
            assert done.status == -signal.SIGKILL, done.output
            num_kills += 1
            _check_whole(folder / "runs")
        _check_complete(folder / "runs", undisturbed)
        study += 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_study_survives_signals(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    moments = random.Random(int(number))
    num_interrupted = 0
    # On a machine whose speed changes, a signal may come before the start or after the end.
    for _ in range(8):
        after = moments.uniform(0.3, 0.7) * undisturbed.seconds
        (done,) = commands.run(_study(tmp_path), signal=number, after=after)
        # A process that has set no handler yet ends by the signal itself.
        assert done.status in (0, status, -number), done.output
        if done.status == status:
            num_interrupted += 1
            assert "interrupted" in done.output
            assert not list((tmp_path / "runs").rglob(".*.tmp"))
        _check_whole(tmp_path / "runs")
        if num_interrupted == 2:
            break
        if done.status == 0:
            shutil.rmtree(tmp_path / "runs")
    assert num_interrupted
    (done,) = commands.run(_study(tmp_path))
    assert done.status == 0, done.output
    _check_complete(tmp_path / "runs", undisturbed)


# A run.json has 1 kB, predictions some 5 to 20 kB, a checkpoint over 100 kB: the limits let ever
# more of a run be written.
@pytest.mark.parametrize("limit", [600, 40_000])
def test_a_study_survives_writes_that_fail(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path, limit: int
) -> None:
    data = undisturbed.data
    (done,) = commands.run(_study(tmp_path, data), file_limit=limit)
    assert done.status == 1, done.output
    assert "File too large" in done.output
    _check_whole(tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob(".*.tmp"))
    (done,) = commands.run(_study(tmp_path, data))
    assert done.status == 0, done.output
    _check_complete(tmp_path / "runs", undisturbed)


def test_a_study_survives_a_full_disk(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A file system of its own that is too small, and then is given room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    train = [sys.executable, "-m", "cnmc.train", *_study(disk, undisturbed.data)]
    script = """
        set -u
        mount -t tmpfs -o size=700k tmpfs "$1" || exit 99
        "${@:3}"; echo "first: $?"
        mount -o remount,size=100m "$1"
        "${@:3}"; echo "second: $?"
        cp -r "$1/runs" "$2"
    """
    command = ["unshare", "--mount", "bash", "-c", script, "bash", str(disk), str(tmp_path), *train]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) to mount a file system with")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert "first: 1" in done.stdout, done.stdout + done.stderr
    assert "No space left on device" in done.stdout + done.stderr
    assert "second: 0" in done.stdout, done.stdout + done.stderr
    _check_complete(tmp_path / "runs", undisturbed)


def test_a_failing_run_leaves_the_others_alone(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    (done,) = commands.run(_study(tmp_path), broken_seed=0)
    assert done.status == 1
    for experiment in ("proposal", "norot"):
        failed = _info(RunFolder(tmp_path / "runs" / experiment / "seed=0"))
        assert failed.status == "failed"
        assert "Traceback" in str(failed.error)
        assert "training_step" in str(failed.error)
        assert failed.reason is not None
        assert failed.reason.endswith("OutOfMemoryError: CUDA out of memory, says the test")
        assert _info(RunFolder(tmp_path / "runs" / experiment / "seed=1")).status == "finished"
        assert f"{experiment}/seed=0 failed: OutOfMemoryError: CUDA out of memory" in done.output
    assert "not finished: " in done.output
    # The same command makes up for it, and leaves what is finished.
    (done,) = commands.run(_study(tmp_path))
    assert done.status == 0, done.output
    assert done.output.count("finished already") == 2
    _check_complete(tmp_path / "runs", undisturbed)


def test_a_bad_image_is_found_before_a_run_begins(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    good = undisturbed.data / "data"
    bad = tmp_path / "bad"
    shutil.copytree(good, bad)
    image = next(path for path in sorted(bad.rglob("*.bmp")) if "fold" in str(path))
    image.write_bytes(image.read_bytes()[:100])
    command = [*TINY, f"run.root={tmp_path / 'runs'}", "trainer.max_epochs=1"]
    command += [
        f"data.work_dir={tmp_path / 'work'}",
        f"data.root={bad},{good}",
        "data.synthetic=null",
    ]
    (done,) = commands.run(command)
    assert done.status == 1, done.output
    # The folder of the run with the bad image was never begun.
    (finished,) = (_info(folder) for folder in find_runs(tmp_path / "runs"))
    assert finished.status == "finished"
    assert image.name in done.output.split("not finished: ")[1]


def test_a_run_is_tried_again_as_often_as_asked(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = [*_study(tmp_path), "study.max_retries=1"]
    (done,) = commands.run(study, broken_seed=1, broken_times=1)
    assert done.status == 0, done.output
    assert "trying again" in done.output
    infos = [_info(folder) for folder in find_runs(tmp_path / "runs")]
    assert sorted(info.retries for info in infos) == [0, 0, 0, 1]
    assert all(info.error is None for info in infos)
    _check_complete(tmp_path / "runs", undisturbed)


def test_retries_end(commands: Forks, tmp_path: Path) -> None:
    study = [*TINY, f"run.root={tmp_path / 'runs'}", "study.max_retries=2"]
    study += [f"data.root={tmp_path / 'data'}", f"data.work_dir={tmp_path / 'work'}", "seed=1,2"]
    (done,) = commands.run(study, broken_seed=1)
    assert done.status == 1
    assert done.output.count("trying again") == 2
    failed, finished = (_info(folder) for folder in find_runs(tmp_path / "runs"))
    assert (failed.status, failed.retries) == ("failed", 2)
    assert finished.status == "finished"


def test_a_study_can_end_with_its_first_failure(commands: Forks, tmp_path: Path) -> None:
    (done,) = commands.run([*_study(tmp_path), "study.fail_fast=true"], broken_seed=0)
    assert done.status == 1
    assert [folder.path.name for folder in find_runs(tmp_path / "runs")] == ["seed=0"]
    assert done.output.count("left out: study.fail_fast=true, and ") == NUM_RUNS - 1
    assert done.output.count("not finished: ") == NUM_RUNS
    # It does not hold against the next command that this one failed.
    (done,) = commands.run([*_study(tmp_path), "study.fail_fast=true"])
    assert done.status == 0, done.output


def test_two_commands_never_train_the_same_run_at_once(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = _study(tmp_path, undisturbed.data)
    outcomes = commands.run(study, study, patience=0.1)
    # Each run was trained by one of them; to the other it was locked, or finished already.
    assert sum(map(_num_trained, outcomes)) == NUM_RUNS, [out.output for out in outcomes]
    (done,) = commands.run(study)
    assert done.status == 0, done.output
    _check_complete(tmp_path / "runs", undisturbed)


def test_a_run_that_another_process_trains_is_refused(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = _study(tmp_path, undisturbed.data)
    with RunFolder(tmp_path / "runs" / "norot" / "seed=0").lock():
        (done,) = commands.run(study, patience=0.1)
    assert done.status == 1
    assert "norot/seed=0 refused: " in done.output
    assert "not started" in done.output.split("not finished: ")[1]
    assert _num_trained(done) == NUM_RUNS - 1


def _num_trained(outcome: Outcome) -> int:
    lines = outcome.output.splitlines()
    return sum(" finished  F1 " in line and line.startswith("run ") for line in lines)


def test_a_run_of_another_configuration_is_refused_and_the_others_go_on(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = _study(tmp_path, undisturbed.data)
    single = [item for item in study if not item.startswith(("seed", "experiment"))]
    (done,) = commands.run([*single, "seed=1", "trainer.max_epochs=1"])
    assert done.status == 0, done.output
    before = (tmp_path / "runs/proposal/seed=1/run.json").read_text()
    (done,) = commands.run(study)
    assert done.status == 1
    assert "proposal/seed=1 refused: " in done.output
    assert "trainer.max_epochs" in done.output
    assert (tmp_path / "runs/proposal/seed=1/run.json").read_text() == before
    assert json.loads((tmp_path / "runs/norot/seed=1/run.json").read_text())["status"] == "finished"
    (done,) = commands.run([*study, "run.overwrite=true"])
    assert done.status == 0, done.output
    _check_complete(tmp_path / "runs", undisturbed)


def test_a_mistake_in_one_setting_is_found_before_anything_is_trained(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    study = [item for item in _study(tmp_path, undisturbed.data) if "decay_every" not in item]
    (done,) = commands.run([*study, "optimizer.decay_every=1,0"])
    assert done.status == 2
    assert done.output.startswith("error: optimizer.decay_every=0: expected a number above 0")
    assert "run 1 of" not in done.output
    assert "Traceback" not in done.output
    assert not find_runs(tmp_path / "runs")


def test_a_study_file_sweeps_without_a_word_on_the_command_line(
    commands: Forks, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """With a constant among its parameters, and a glob over the files of a group."""
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "# @package _global_\n"
        "hydra:\n"
        "  sweeper:\n"
        "    params: {tta: 'glob(none)', seed: '0,1', trainer.max_epochs: 1}\n"
    )
    tiny = [item for item in TINY if "max_epochs" not in item]
    data = [f"data.root={undisturbed.data / 'data'}", f"data.work_dir={undisturbed.data / 'work'}"]
    command = ["--config-dir", str(own.parent), "-m", *tiny, *data, "experiment=mine"]
    (done,) = commands.run([*command, f"run.root={tmp_path / 'runs'}"])
    assert done.status == 0, done.output
    assert [folder.path.name for folder in find_runs(tmp_path / "runs")] == [
        "seed=0,trainer.max_epochs=1,tta=none",
        "seed=1,trainer.max_epochs=1,tta=none",
    ]
    assert "run 2 of 2  mine/seed=1" in done.output

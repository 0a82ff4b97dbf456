"""The commands in processes of their own: output, exit status and files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder
from tests.conftest import ROOT
from tests.study.forks import Forks

CLASSES = ("all", "hem")

pytestmark = pytest.mark.slow


def _run(
    module: str, *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"cnmc.{module}", *arguments]
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HYDRA"))}
    return subprocess.run(
        command, cwd=cwd, env={**keep, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.crop=-1"], ["data.crop=-1"]),
        (["seed=abc"], ["seed", "abc"]),
        (["optimizer.lr.hed=1"], ["optimizer.lr.hed"]),
        (["experiment=propsal"], ["propsal", "norot", "proposal"]),
        (["data.root=/nowhere"], ["data.root", "/nowhere", "data=synthetic"]),
    ],
)
def test_user_error_prints_one_line_without_traceback(
    commands: Forks, arguments: list[str], words: list[str]
) -> None:
    (done,) = commands.run(arguments)
    assert done.status == 2
    assert done.output.startswith("error: ")
    assert done.output.count("\n") == 1
    for word in words:
        assert word in done.output


def test_user_error_is_printed_to_standard_error() -> None:
    done = _run("train", "data.crop=-1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.crop=-1")
    assert done.stdout == ""


def test_sweep_trains_every_seed_and_prints_a_table(
    commands: Forks, tiny: list[str], tmp_path: Path
) -> None:
    (done,) = commands.run([*tiny, "experiment=proposal,norot", "seed=range(2)"])
    assert done.status == 0, done.output
    for experiment in ("proposal", "norot"):
        for seed in (0, 1):
            folder = tmp_path / "runs" / experiment / f"seed={seed}"
            assert (folder / "checkpoints" / "best.ckpt").is_file()
        assert f"best run of {experiment}: seed=" in done.output
    assert "run 4 of 4  norot/seed=1 finished  F1 " in done.output
    assert "mean ± std" in done.output
    assert "best.ckpt" in done.output
    (again,) = commands.run([*tiny, "experiment=proposal,norot", "seed=range(2)"])
    assert again.output.count("finished already") == 4


def test_sweep_names_run_folders_after_the_swept_values(
    commands: Forks, tiny: list[str], tmp_path: Path
) -> None:
    overrides = ["experiment=nospeclr", "optimizer.lr=1e-3,1e-4", "trainer.max_epochs=1"]
    (done,) = commands.run([*tiny, *overrides])
    assert done.status == 0, done.output
    names = {path.name for path in (tmp_path / "runs" / "nospeclr").glob("seed*")}
    assert names == {"seed=0,optimizer.lr=0.001", "seed=0,optimizer.lr=0.0001"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_interrupts_a_run_that_can_be_resumed(
    tiny: list[str], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    command = [sys.executable, "-u", "-m", "cnmc.train", *tiny, "trainer.max_epochs=200"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "epoch 2/200" in line:
                process.send_signal(number)
                break
        _, errors = process.communicate()
    assert process.returncode == status, errors[-4000:]
    assert "interrupted" in errors
    assert "Traceback" not in errors
    folder = RunFolder(tmp_path / "runs" / "proposal" / "seed=0")
    info = folder.read_info()
    assert info is not None
    assert info.status == "running"
    # The signal may fall between the metrics of an epoch and its checkpoint; it is then repeated.
    assert info.epochs_done - load_checkpoint(folder.last_checkpoint)["cnmc"]["epoch"] in (0, 1)
    assert not list(folder.path.rglob(".*.tmp"))


def test_wandb_logs_offline_without_a_login(tiny: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    overrides = ["logger=wandb", "trainer.max_epochs=1"]
    done = _run("train", *tiny, *overrides, HOME=str(home), NETRC=str(home / ".netrc"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs/proposal/seed=0/wandb").glob("offline-run-*/*.wandb"))
    assert "wandb sync" in done.stdout


def test_csv_logger_writes_steps_to_the_run_folder(
    commands: Forks, tiny: list[str], tmp_path: Path
) -> None:
    (done,) = commands.run([*tiny, "logger=csv", "trainer.max_epochs=1"])
    assert done.status == 0, done.output
    assert "val/f1" in (tmp_path / "runs/proposal/seed=0/steps/metrics.csv").read_text()


def test_prepare_prints_the_composition_and_builds_the_cache(tiny: list[str]) -> None:
    data = [item for item in tiny if item.startswith("data") and "batch_size" not in item]
    done = _run("prepare", *data)
    assert done.returncode == 0, done.stderr
    assert "Table 1" in done.stdout
    assert "protocol paper" in done.stdout
    assert ".npy" in done.stdout


def test_prepare_accepts_only_the_training_part(tiny: list[str], tmp_path: Path) -> None:
    data = [item for item in tiny if item.startswith("data") and "prelim" not in item]
    data += [
        f"data.synthetic.prelim_{what}_{c}=0" for what in ("cells", "subjects") for c in CLASSES
    ]
    data += [f"data.root={tmp_path / 'part'}", "data.batch_size=4"]
    done = _run("prepare", *data)
    assert done.returncode == 0, done.stderr
    assert "split=subject_holdout" in done.stdout
    assert ".npy" in done.stdout


def test_prepare_fails_for_empty_or_damaged_data(tmp_path: Path) -> None:
    done = _run("prepare", f"data.root={tmp_path}")
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    broken = tmp_path / "broken" / "fold_0" / "all"
    broken.mkdir(parents=True)
    (broken / "UID_1_1_1_all.bmp").write_bytes(b"BM not an image")
    done = _run("prepare", f"data.root={tmp_path / 'broken'}", f"data.work_dir={tmp_path / 'w'}")
    assert done.returncode == 1
    assert "UID_1_1_1_all" in done.stdout


def test_wheel_works_outside_the_checkout(tiny: list[str], tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels = tmp_path / "wheels"
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "cnmc/conf/config.yaml" in names
    assert not any(name.startswith(("tests/", "data/", "conf/")) for name in names)
    target = tmp_path / "installed"
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = _run("train", "experiment=norot", "--cfg", "job", cwd=elsewhere, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    assert "num_rotations: 1" in done.stdout
    done = _run("train", "--info", "searchpath", cwd=elsewhere, PYTHONPATH=str(target))
    assert str(target / "cnmc" / "conf") in done.stdout
    assert list(elsewhere.iterdir()) == []
    relative = [*tiny, "trainer.max_epochs=1", "run.root=runs"]
    done = _run("train", *relative, cwd=elsewhere, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["runs"]
    assert (elsewhere / "runs/proposal/seed=0/predictions.parquet").is_file()

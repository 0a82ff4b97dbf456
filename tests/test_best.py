"""``python -m cnmc.best`` on run folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnmc.best import best
from cnmc.cli.app import compose
from cnmc.config import BestConfig
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from tests.conftest import ROOT
from tests.studies import write_run
from tests.tracking.fake_api import checkpoint, files_below


def _run(root: Path, experiment: str, seed: int, f1: float, **changes: Any) -> RunFolder:
    told = {"run_id": f"{experiment}{seed}", "best_f1": f1, **changes}
    folder = write_run(root, experiment, seed, num_epochs=1, **told)
    info = folder.read_info()
    assert info is not None
    folder.best_checkpoint.parent.mkdir()
    folder.best_checkpoint.write_bytes(checkpoint(info.identity(), info.best_epoch or 0))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three finished runs and one at work, of two experiments on the same cells."""
    root = tmp_path / "runs"
    _run(root, "proposal", 0, 0.8)
    _run(root, "proposal", 1, 0.9)
    _run(root, "proposal", 2, 0.99, status="running")
    _run(root, "norot", 0, 0.95)
    return root


def test_the_best_run_is_printed_with_its_checkpoint(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best(BestConfig(runs=str(runs), experiment="proposal"))
    shown = capsys.readouterr().out
    path = runs / "proposal" / "seed=1" / "checkpoints" / "best.ckpt"
    assert "proposal/seed=1, seed 1, F1 90.00 at epoch 1" in shown
    assert f"python -m cnmc.train model.weights={path}" in shown
    best(BestConfig(runs=str(runs)))
    assert "norot/seed=0, seed 0, F1 95.00" in capsys.readouterr().out


def test_runs_on_other_cells_are_refused(runs: Path) -> None:
    _run(runs, "proposal", 5, 0.7, protocol="honest")
    with pytest.raises(CnmcError, match="protocol and split"):
        best(BestConfig(runs=str(runs)))
    best(BestConfig(runs=str(runs), split="cc"))
    best(BestConfig(runs=str(runs), experiment="norot"))


def test_an_experiment_without_a_finished_run_is_an_error(runs: Path) -> None:
    with pytest.raises(CnmcError, match=r"propsal.* norot, proposal"):
        best(BestConfig(runs=str(runs), experiment="propsal"))
    _run(runs, "nospeclr", 0, 0.9, status="failed")
    with pytest.raises(CnmcError, match="finished"):
        best(BestConfig(runs=str(runs), experiment="nospeclr"))


def test_a_lost_checkpoint_is_an_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "norot/seed=0/checkpoints/best.ckpt"
    path.unlink()
    with pytest.raises(CnmcError, match=r"norot/seed=0/.*best\.ckpt"):
        best(BestConfig(runs=str(runs)))
    assert "norot/seed=0" in capsys.readouterr().out


def test_download_copies_the_checkpoint_of_the_run(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    config = BestConfig(runs=str(runs), download=True, output=str(output))
    best(config)
    source = runs / "norot/seed=0/checkpoints/best.ckpt"
    assert files_below(output) == ["norot-seed=0/best.ckpt"]
    assert (output / "norot-seed=0/best.ckpt").read_bytes() == source.read_bytes()
    assert f"model.weights={output}/norot-seed=0/best.ckpt" in capsys.readouterr().out
    (output / "norot-seed=0/best.ckpt").unlink()
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(CnmcError, match=r"best\.ckpt"):
        best(config)
    source.write_bytes((runs / "proposal/seed=0/checkpoints/best.ckpt").read_bytes())
    with pytest.raises(CnmcError, match=r"norot/seed=0.*proposal0"):
        best(config)
    assert files_below(output) == []


def test_a_run_that_was_never_at_wandb_is_not_promoted(runs: Path) -> None:
    with pytest.raises(CnmcError, match="promote=true: norot/seed=0"):
        best(BestConfig(runs=str(runs), promote=True))


@pytest.mark.parametrize("override", ["source=disk", "protocol=fair", "split=inf", "manifest=A"])
def test_its_configuration_is_checked(override: str) -> None:
    with pytest.raises(CnmcError, match=override):
        compose([override], "best")


def test_run_folders_need_neither_torch_nor_wandb(runs: Path) -> None:
    code = (
        "import sys; from cnmc.best import best; from cnmc.config import BestConfig; "
        f"best(BestConfig(runs={str(runs)!r})); "
        "sys.exit(bool({'torch', 'wandb'} & {*sys.modules}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_takes_the_names_of_training_groups_as_keys(runs: Path) -> None:
    command = [sys.executable, "-m", "cnmc.best", f"runs={runs}"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, *arguments]
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run("experiment=proposal", "manifest=aaa", "split=bbb")
    assert done.returncode == 0, done.stderr
    assert "best of 2 runs: proposal/seed=1" in done.stdout
    refused = run("split=e0")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: split=e0")
    assert refused.stderr.count("\n") == 1
    typo = run("experimnt=proposal")
    assert typo.returncode == 2
    assert "experimnt" in typo.stderr

"""Studies whose output, shared memory or data are full, closed or missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnmc.runs.folder import find_runs
from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.slow


def _command(folder: Path, data: Path, *overrides: str) -> list[str]:
    own = [f"data.root={data / 'data'}", f"data.work_dir={data / 'work'}"]
    own += [f"run.root={folder / 'runs'}", "trainer.max_epochs=1"]
    return [sys.executable, "-m", "cnmc.train", *TINY, *own, *overrides]


def _statuses(folder: Path) -> list[str]:
    infos = [run.read_info() for run in find_runs(folder / "runs")]
    return [info.status for info in infos if info is not None]


@pytest.mark.parametrize("redirection", ["| head -n1", "<&- >&- 2>&-"])
def test_output_that_cannot_be_written_stops_no_study(
    tiny_data: Path, tmp_path: Path, redirection: str
) -> None:
    """``tests/test_launchers.py`` does the same with ``/dev/full`` and several processes."""
    script = f'set -o pipefail; "$@" {redirection}'
    command = ["bash", "-c", script, "bash", *_command(tmp_path, tiny_data, "seed=0,1")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert _statuses(tmp_path) == ["finished", "finished"]


@pytest.mark.parametrize(("size", "status"), [("8m", 0), ("4k", 2)])
def test_training_with_workers_needs_little_shared_memory(
    tmp_path: Path, size: str, status: int
) -> None:
    """Cells of 300 x 300 pixels in containers with little in /dev/shm, or nothing left there."""
    full_size = ("data.synthetic.image_size=300", "data.crop=300", "data.num_workers=2")
    train = _command(tmp_path, tmp_path, *full_size, "tta=none", "logger=none")
    script = """
        mount -t tmpfs -o size=$1 tmpfs /dev/shm || exit 99
        test $1 = 8m || cat /dev/zero > /dev/shm/full 2>/dev/null
        timeout 200 "${@:2}"
    """
    command = ["unshare", "--mount", "bash", "-c", script, "bash", size, *train]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) to mount a file system with")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert done.returncode == status, done.stderr
    if status:
        assert "data.num_workers: " in done.stderr
        assert "data.num_workers=0" in done.stderr


def test_missing_data_leave_no_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnmc.train", "trainer.accelerator=cpu"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: data.root")
    assert list(tmp_path.iterdir()) == []

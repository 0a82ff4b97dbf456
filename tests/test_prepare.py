"""``python -m cnmc.prepare`` as a user runs it, on odd files and folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import ROOT
from .data.trees import write_bmp, write_release

CROP = "data.crop=32"


def arguments(root: Path, work_dir: Path, *more: str) -> list[str]:
    return [f"data.root={root}", f"data.work_dir={work_dir}", CROP, *more]


def prepare(*command: str | bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cnmc.prepare", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_files_that_training_cannot_use_are_named(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data", "paper")
    folder = root / "fold_0" / "all"
    image = Image.fromarray(np.zeros((48, 48, 3), dtype=np.uint8))
    image.convert("CMYK").save(folder / "UID_1_9_1_all.bmp", "TIFF")
    image.save(folder / "UID_1_9_2_all.bmp", "GIF", save_all=True, append_images=[image])
    image.save(folder / "UID_1_9_3_all.bmp", "WEBP")
    image.save(folder / "UID_1_9_4_all.bmp", "EPS")
    Image.fromarray(np.zeros((48, 48), dtype=np.uint16)).save(folder / "UID_1_9_5_all.bmp", "PNG")
    os.mkfifo(folder / "UID_1_9_6_all.bmp")
    done = prepare(*arguments(root, tmp_path / "work"))
    assert done.returncode == 1
    for number in range(1, 7):
        assert f"UID_1_9_{number}_all.bmp" in done.stdout
    assert "Traceback" not in done.stderr
    done = prepare(*arguments(root, tmp_path / "work", "data.skip_unreadable=true"))
    assert done.returncode == 0, done.stderr
    assert len(np.load(next((tmp_path / "work").glob("images-*[0-9a-f].npy")))) == 11


def test_changed_pixels_are_built_again(tmp_path: Path) -> None:
    command = arguments(write_release(tmp_path / "data", "paper"), tmp_path / "work")
    assert prepare(*command).returncode == 0
    (path,) = (p for p in (tmp_path / "work").glob("images-*.npy") if ".crc32" not in p.name)
    expected = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(200)
        file.write(bytes(3000))
    done = prepare(*command)
    assert done.returncode == 0
    assert path.name in done.stdout + done.stderr
    assert path.read_bytes() == expected


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data", "paper")
    work_dir = tmp_path / "work"
    stray = root / os.fsdecode(b"notes \xfc")
    stray.mkdir()
    (stray / "x.txt").write_text("no cell")
    assert prepare(*arguments(root, work_dir)).returncode == 0
    write_bmp(stray / "1.bmp", np.zeros((48, 48, 3), dtype=np.uint8))
    done = prepare(*arguments(root, work_dir))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert r"\xfc" in done.stderr


def test_a_complete_work_dir_may_be_read_only(tmp_path: Path) -> None:
    root, work_dir = write_release(tmp_path / "data", "paper"), tmp_path / "work"
    command = arguments(root, work_dir)
    assert prepare(*command).returncode == 0
    script = """
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99
        touch "$1/x" 2>/dev/null && exit 99
        exec "${@:2}"
    """
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) to mount a folder read-only with")
    inside = ["unshare", "--mount", "bash", "-c", script, "bash", str(work_dir)]

    def read_only(*more: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "cnmc.prepare", *command, *more]
        return subprocess.run(
            [*inside, *program], cwd=ROOT, capture_output=True, text=True, check=False
        )

    done = read_only()
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"a folder cannot be mounted read-only here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    # Another size is not there yet.
    done = read_only("data.resize=20")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "data.work_dir" in done.stderr

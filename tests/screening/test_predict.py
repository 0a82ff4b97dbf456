"""The whole command with exported networks: resume, refusals, ensembles, submission, page."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnmc.screening.screen as screen_module
from cnmc.config import PredictConfig
from cnmc.errors import CnmcError
from cnmc.inference.runtime import open_predictor
from cnmc.predict import predict
from tests.inference.networks import cells
from tests.screening.conftest import SIZE, variant

FORBIDDEN = (
    "torch",
    "pandas",
    "scipy",
    "matplotlib",
    "pytorch_lightning",
    "albumentations",
    "wandb",
)


def run(tmp_path: Path, **keys: Any) -> int:
    values: dict[str, Any] = {"input": str(tmp_path / "cells"), "output": str(tmp_path / "out")}
    values |= {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    return predict(PredictConfig(**values))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logits_of(onnx: Path) -> np.ndarray[Any, Any]:
    return open_predictor(onnx).predict(cells(12, SIZE)).astype(float)


def test_a_folder_is_screened_without_the_packages_of_training(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    code = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Forbid())
from cnmc.app import run_app
from cnmc.predict import main
run_app(main)
"""
    arguments = [f"checkpoint={onnx}", f"input={folder}", f"output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out" / "predictions.csv")
    assert [row["file"] for row in found] == [f"{number}.bmp" for number in range(1, 13)]
    mean = logits_of(onnx).mean(axis=1)
    assert np.abs([float(row["mean_logit"]) for row in found] - mean).max() < 1e-5
    probabilities = 1 / (1 + np.exp(-mean / 2))
    assert np.abs([float(row["probability"]) for row in found] - probabilities).max() < 1e-5
    assert [row["label"] for row in found] == ["ALL" if p >= 0.4 else "HEM" for p in probabilities]
    assert "exported network" in (tmp_path / "out" / "screening.html").read_text()


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    (folder / "3.bmp").write_bytes(b"")
    (folder / "a.bmp").mkdir()
    (folder / "b.bmp").symlink_to("nowhere.bmp")
    os.mkfifo(folder / "c.bmp")
    (folder / "cell.svs").write_bytes(b"x")
    (folder / "labels.csv").write_text("x")
    (folder / ".hidden.bmp").write_bytes(b"x")
    assert run(tmp_path, checkpoint=onnx) == 3
    skipped = {row["file"]: row["reason"] for row in rows(tmp_path / "out" / "skipped.csv")}
    assert skipped == {
        "3.bmp": "empty file",
        "a.bmp": "a folder, not an image",
        "b.bmp": "a link that leads nowhere",
        "c.bmp": "not a regular file",
        "cell.svs": "not BMP, PNG, JPEG or TIFF by its name",
    }
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 11
    page = (tmp_path / "out" / "screening.html").read_text()
    assert all(reason in page for reason in skipped.values())


def test_a_folder_without_an_image_is_refused(tmp_path: Path, onnx: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "notes.txt").write_text("x")
    with pytest.raises(CnmcError, match=r"cells: no image there"):
        run(tmp_path, checkpoint=onnx)
    with pytest.raises(CnmcError, match=r"nothing: there is no such file"):
        run(tmp_path, checkpoint=onnx, input="nothing")


def test_a_stopped_one_goes_on_and_a_finished_one_computes_nothing(
    tmp_path: Path, folder: Path, onnx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, checkpoint=onnx)
    whole = (tmp_path / "out" / "predictions.csv").read_bytes()
    journal = tmp_path / "out" / "journal.jsonl"
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    # Killed while it wrote the sixth cell, and a line spoilt by the disk.
    journal.write_bytes(b"".join(lines[:3]) + b"{\n" + b"".join(lines[4:6]) + lines[6][:40])
    capsys.readouterr()
    run(tmp_path, checkpoint=onnx)
    assert "12 cells, 8 of them new" in capsys.readouterr().out
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole
    run(tmp_path, checkpoint=onnx)
    assert "nothing is computed again" in capsys.readouterr().out
    # Another threshold is another decision about the same logits.
    run(tmp_path, checkpoint=onnx, threshold="paper")
    assert "nothing is computed again" in capsys.readouterr().out
    # What is replaced is seen again, whatever its name, size and time; what is renamed is not.
    times = (folder / "1.bmp").stat()
    (folder / "1.bmp").write_bytes((folder / "2.bmp").read_bytes()[:-3] + b"abc")
    os.utime(folder / "1.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "5.bmp").rename(folder / "50.bmp")
    run(tmp_path, checkpoint=onnx)
    assert "12 cells, 1 of them new" in capsys.readouterr().out


def test_a_killed_process_loses_one_batch_at_most(
    tmp_path: Path, folder: Path, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict_batch = screen_module._predict

    def die_at_second(items: Any, networks: Any) -> Any:
        seen.append(len(items))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return predict_batch(items, networks)

    monkeypatch.setattr(screen_module, "_MIN_BATCH", 4)
    monkeypatch.setattr(screen_module, "_predict", die_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(folder.parent, checkpoint=onnx, num_threads=1)
    assert not (tmp_path / "out" / "predictions.csv").exists()
    run(folder.parent, checkpoint=onnx, num_threads=1)
    assert sum(seen[2:]) == 8


def test_a_folder_of_another_network_is_refused(
    tmp_path: Path, folder: Path, onnx: Path, other_onnx: Path
) -> None:
    run(folder.parent, checkpoint=onnx)
    with pytest.raises(CnmcError, match=r"journal\.jsonl.*overwrite=true.*output=DIR"):
        run(folder.parent, checkpoint=other_onnx)
    run(folder.parent, checkpoint=other_onnx, overwrite=True)
    header = json.loads((tmp_path / "out" / "journal.jsonl").read_text().splitlines()[0])
    assert len(header["networks"]) == 1
    (tmp_path / "out" / "journal.jsonl").write_text("my own notes\n")
    with pytest.raises(CnmcError, match="none of cnmc, or damaged"):
        run(folder.parent, checkpoint=onnx)


def test_an_ensemble_averages_log_odds(
    tmp_path: Path, folder: Path, onnx: Path, other_onnx: Path
) -> None:
    run(folder.parent, checkpoint=[str(onnx), str(other_onnx)])
    odds = (logits_of(onnx).mean(axis=1) / 2 + logits_of(other_onnx).mean(axis=1) / 0.5) / 2
    found = rows(tmp_path / "out" / "predictions.csv")
    probabilities = 1 / (1 + np.exp(-odds))
    assert np.abs([float(row["probability"]) for row in found] - probabilities).max() < 1e-5
    # Thresholds 0.4 and 0.8 have the odds 2/3 and 4.
    mean_odds = np.sqrt(2 / 3 * 4)
    threshold = mean_odds / (1 + mean_odds)
    assert [row["label"] == "ALL" for row in found] == list(probabilities >= threshold)
    assert {row["views"] for row in found} == {"16"}


def test_networks_of_other_crops_and_the_same_one_twice_are_refused(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    larger = variant(onnx, tmp_path / "larger.onnx", crop=40, resize=SIZE)
    with pytest.raises(CnmcError, match=r"crop 32.*crop 40.*must take the same"):
        run(folder.parent, checkpoint=[str(onnx), str(larger)])
    with pytest.raises(CnmcError, match="the same network twice"):
        run(folder.parent, checkpoint=[str(onnx), str(onnx)])
    with pytest.raises(CnmcError, match="expected a checkpoint"):
        run(folder.parent)
    with pytest.raises(CnmcError, match=r"threshold=sensitivity:0\.95x"):
        run(folder.parent, checkpoint=onnx, threshold="sensitivity:0.95x")


def test_the_submission_goes_by_numbers(tmp_path: Path, folder: Path, onnx: Path) -> None:
    assert run(folder.parent, checkpoint=onnx, format="challenge") == 0
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert archive.namelist() == ["isbi_valid.predict"]
        lines = archive.read("isbi_valid.predict").decode().splitlines()
    expected = [int(p >= 0.4) for p in 1 / (1 + np.exp(-logits_of(onnx).mean(axis=1) / 2))]
    assert list(map(int, lines)) == expected
    assert 0 < sum(expected) < 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "7.bmp").unlink(), r"missing: 7\.bmp"),
        (lambda f: (f / "7.bmp").rename(f / "999999999.bmp"), r"missing: 7\.bmp"),
        (lambda f: (f / "7.bmp").rename(f / "07.bmp"), r"other names: 07\.bmp"),
        (lambda f: (f / "7.bmp").rename(f / "x.png"), r"other names: x\.png"),
        (lambda f: (f / "8.BMP").write_bytes((f / "7.bmp").read_bytes()), r"there twice: 8\.bmp"),
        (lambda f: (f / "7.bmp").write_bytes(b""), r"left out: 7\.bmp \(empty file\)"),
        (lambda f: (f / "x.dat").write_bytes(b""), r"left out: x\.dat"),
    ],
)
def test_no_submission_is_made_of_other_files(
    tmp_path: Path, folder: Path, onnx: Path, change: Any, message: str
) -> None:
    change(folder)
    with pytest.raises(CnmcError, match=message):
        run(tmp_path, checkpoint=onnx, format="challenge")
    assert not (tmp_path / "out" / "submission.zip").exists()


def test_names_do_no_harm(tmp_path: Path, folder: Path, onnx: Path) -> None:
    names = ["<script>alert(1)<", "=HYPERLINK(1)", "+1", "-1", "@x", "\"'&ü漢", "a\nb", "x" * 200]
    for name in names:
        (folder / f"{name}.bmp").write_bytes((folder / "1.bmp").read_bytes())
    with open(os.fsencode(folder) + b"/\xff.bmp", "wb") as file:  # noqa: PTH123 - bytes
        file.write((folder / "1.bmp").read_bytes())
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    assert run(tmp_path, checkpoint=onnx) == 0
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;.bmp" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    found = [row["file"] for row in rows(tmp_path / "out" / "predictions.csv")]
    assert not [name for name in found if name.startswith(("=", "+", "-", "@"))]
    assert {"'=HYPERLINK(1).bmp", "'+1.bmp", "'-1.bmp", "'@x.bmp", "\\xff.bmp"} <= set(found)
    assert len(found) == 12 + len(names) + 1


def test_the_page_of_many_cells_stays_small(tmp_path: Path, onnx: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        noise = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"UID_{number % 3}_1_{number}_all.bmp")
    run(tmp_path, checkpoint=onnx, cells=20)
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert page.count("<li><img") == 20
    assert "background not black: 60 of 60 cells" in page
    subjects = rows(tmp_path / "out" / "subjects.csv")
    assert [row["subject"] for row in subjects] == ["0", "1", "2"]
    for row in subjects:
        assert float(row["low"]) <= float(row["mean_probability"]) <= float(row["high"])

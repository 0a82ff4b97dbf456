"""The whole command with exported networks: resume, refusals, ensembles, submission, page."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnmc.deploy.screen as screen_module
from cnmc.config import PredictConfig
from cnmc.deploy.journal import Entry, Journal
from cnmc.deploy.networks import open_network
from cnmc.deploy.outputs import output_lock
from cnmc.errors import CnmcError
from cnmc.predict import predict
from tests.conftest import ROOT
from tests.deploy.conftest import SIZE, variant
from tests.deploy.networks import cells

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
    return open_network(onnx).logits(cells(12, SIZE)).astype(float)


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
import runpy
sys.argv[0] = "predict"
runpy.run_module("cnmc.predict", run_name="__main__")
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
    for name in ("labels.csv", "notes.txt", "paper.pdf"):
        (folder / name).write_text("x")
    (folder / ".hidden.bmp").write_bytes(b"x")
    assert run(tmp_path, checkpoint=onnx) == 3
    skipped = {row["file"]: row["reason"] for row in rows(tmp_path / "out" / "skipped.csv")}
    assert skipped == {
        "3.bmp": "empty file",
        "a.bmp": "folder, not an image",
        "b.bmp": "broken link",
        "c.bmp": "not a regular file",
        "cell.svs": "name of no BMP, PNG, JPEG or TIFF",
        "labels.csv": "name of no BMP, PNG, JPEG or TIFF",
        "notes.txt": "name of no BMP, PNG, JPEG or TIFF",
        "paper.pdf": "name of no BMP, PNG, JPEG or TIFF",
    }
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 11
    page = (tmp_path / "out" / "screening.html").read_text()
    assert all(reason in page for reason in skipped.values())


@pytest.mark.parametrize("output", ["cells", "cells/out", "linked/out"])
def test_what_it_writes_itself_is_no_file_that_was_left_out(
    tmp_path: Path, folder: Path, onnx: Path, output: str
) -> None:
    (tmp_path / "linked").symlink_to(folder)
    keys = {"checkpoint": onnx, "output": tmp_path / output, "format": "challenge"}
    # A challenge's files have no folder before their names.
    assert run(tmp_path, **keys) == 0
    (tmp_path / output / "screening.html").touch()
    assert run(tmp_path, **keys) == 0
    (tmp_path / output / "own.csv").write_text("x")
    assert run(tmp_path, **keys | {"format": "report"}) == 3
    found = rows(tmp_path / output / "skipped.csv")
    assert [Path(row["file"]).name for row in found] == ["own.csv"]


@pytest.mark.parametrize(("name", "content"), [("notes.txt", b"x"), ("1.bmp", b"no image")])
def test_where_every_file_is_left_out_the_list_is_told(
    tmp_path: Path, onnx: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / name).write_bytes(content)
    assert run(tmp_path, checkpoint=onnx) == 3
    assert [row["file"] for row in rows(tmp_path / "out" / "skipped.csv")] == [name]
    assert rows(tmp_path / "out" / "predictions.csv") == []
    assert rows(tmp_path / "out" / "subjects.csv") == []
    page = (tmp_path / "out" / "screening.html").read_text()
    assert "no cell could be read" in page
    assert name in page
    told = capsys.readouterr().out
    assert told.startswith(f"no cell could be screened\nleft out: 1, see {tmp_path}")


def test_an_input_that_holds_nothing_is_refused(
    tmp_path: Path, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(CnmcError, match=r"cells: no image there"):
        run(tmp_path, checkpoint=onnx)
    with pytest.raises(CnmcError, match=r"nothing: no such file"):
        run(tmp_path, checkpoint=onnx, input="nothing")

    def refused(path: str) -> Any:
        # Rights are none of root's business, who may run the tests.
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(CnmcError, match=r"^input=.*cells: cannot be read \(Permission denied\)$"):
        run(tmp_path, checkpoint=onnx)


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


def _changed(row: dict[str, Any], **values: Any) -> bytes:
    return json.dumps(row | values).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"{",
        lambda _: b"\xff" * 40,
        lambda _: b"[" * 100_000,
        lambda _: b"null",
        lambda _: b"[1, 2]",
        lambda row: json.dumps(row).encode()[:-40],
        lambda row: _changed(row, logits=[[99.0] * 8]),
        lambda row: _changed(row, logits=[row["logits"][0][:-1]]),
        lambda row: _changed(row, logits=row["logits"] * 2),
        lambda row: _changed(row, logits=[[math.nan] * 8]),
        lambda row: _changed(row, logits="none"),
        lambda row: _changed(row, warnings=["<b>mine</b>"]),
        lambda row: _changed(row, warnings=None),
        lambda row: _changed(row, file="0" * 32),
        lambda row: _changed(row, file=[1]),
        lambda row: _changed(row, check=""),
        lambda row: _changed({key: row[key] for key in ("file", "warnings", "check")}),
        lambda row: _changed(row, more=1),
    ],
)
def test_a_line_of_the_journal_that_was_changed_is_computed_again(
    tmp_path: Path, folder: Path, onnx: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder.parent, checkpoint=onnx, cells=0)
    tables = [tmp_path / "out" / name for name in ("predictions.csv", "subjects.csv")]
    before = [path.read_bytes() for path in tables]
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    lines[3] = damage(json.loads(lines[3]))
    journal.write_bytes(b"\n".join(lines) + b"\n")
    capsys.readouterr()
    assert run(folder.parent, checkpoint=onnx, cells=0) == 0
    assert "12 cells, 1 of them new" in capsys.readouterr().out
    assert [path.read_bytes() for path in tables] == before


def test_a_line_of_another_screening_is_computed_again(
    tmp_path: Path, folder: Path, onnx: Path, other_onnx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, network in (("out", onnx), ("other", other_onnx)):
        run(folder.parent, checkpoint=network, output=tmp_path / name, cells=0)
    journals = [tmp_path / name / "journal.jsonl" for name in ("out", "other")]
    lines, others = (path.read_bytes().splitlines(keepends=True) for path in journals)
    journals[0].write_bytes(b"".join([*lines[:5], *others[5:]]))
    capsys.readouterr()
    run(folder.parent, checkpoint=onnx, cells=0)
    assert "12 cells, 8 of them new" in capsys.readouterr().out


@pytest.mark.parametrize(
    "first", [b"my own notes\n", b"\n", b"[]\n", b"{}", b"\xff\n", b"[" * 99_999]
)
def test_a_journal_of_somebody_else_is_refused(
    tmp_path: Path, folder: Path, onnx: Path, first: bytes
) -> None:
    journal = tmp_path / "out" / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_bytes(first)
    with pytest.raises(CnmcError, match=r"journal\.jsonl.*overwrite=true.*output=DIR"):
        run(folder.parent, checkpoint=onnx)
    assert journal.read_bytes() == first
    assert run(folder.parent, checkpoint=onnx, overwrite=True, cells=0) == 0


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


def test_how_far_the_views_of_a_cell_agree_is_told(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    run(folder.parent, checkpoint=onnx)
    found = rows(tmp_path / "out" / "predictions.csv")
    views = 1 / (1 + np.exp(-logits_of(onnx) / 2))
    spread = np.array([float(row["spread"]) for row in found])
    assert np.abs(spread - views.std(axis=1)).max() < 1e-5
    against = [
        sum((view >= 0.4) != (row["label"] == "ALL") for view in cell)
        for row, cell in zip(found, views, strict=True)
    ]
    assert [int(row["views_against"]) for row in found] == against
    near = [abs(math.log(1.5 * p / (1 - p))) < math.log(2) for p in _floats(found, "probability")]
    doubtful = [n or a >= 2 for n, a in zip(near, against, strict=True)]
    assert [row["doubtful"] == "yes" for row in found] == doubtful
    assert 0 < sum(doubtful) < 12


def _floats(found: list[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in found]


def test_networks_of_other_crops_and_the_same_one_twice_are_refused(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    larger = variant(onnx, tmp_path / "larger.onnx", crop=40, resize=SIZE)
    with pytest.raises(CnmcError, match=r"crop 32.*crop 40.*must take the same"):
        run(folder.parent, checkpoint=[str(onnx), str(larger)])
    with pytest.raises(CnmcError, match="the same network"):
        run(folder.parent, checkpoint=[str(onnx), str(onnx)])
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
        (lambda f: (f / "8.BMP").write_bytes((f / "7.bmp").read_bytes()), r"twice: 8\.bmp"),
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


RESULTS = {"predictions.csv", "subjects.csv", "skipped.csv", "screening.html"}


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".screening.lock"}


def test_a_submission_never_stands_beside_results_that_are_not_its_own(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    out = tmp_path / "out"

    def submitted() -> None:
        run(tmp_path, checkpoint=onnx, format="challenge")
        assert visible(out) == RESULTS | {"journal.jsonl", "submission.zip"}

    submitted()
    run(tmp_path, checkpoint=onnx)
    assert visible(out) == RESULTS | {"journal.jsonl"}
    submitted()
    (folder / "12.bmp").rename(tmp_path / "12.bmp")
    (folder / "13.bmp").write_bytes(b"x")
    # By their names, before anything is read.
    with pytest.raises(CnmcError, match=r"missing: 12\.bmp"):
        run(tmp_path, checkpoint=onnx, format="challenge")
    assert visible(out) == RESULTS | {"journal.jsonl"}
    (folder / "13.bmp").unlink()
    submitted()
    (folder / "12.bmp").write_bytes(b"x")
    # By what is in them.
    with pytest.raises(CnmcError, match=r"left out: 12\.bmp \(not an image"):
        run(tmp_path, checkpoint=onnx, format="challenge")
    assert visible(out) == RESULTS | {"journal.jsonl"}
    assert [row["file"] for row in rows(out / "skipped.csv")] == ["12.bmp"]


def test_what_is_stopped_leaves_the_former_results_of_its_own_networks_alone(
    tmp_path: Path,
    folder: Path,
    onnx: Path,
    other_onnx: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def contents() -> dict[str, bytes]:
        return {name: (tmp_path / "out" / name).read_bytes() for name in RESULTS}

    run(folder.parent, checkpoint=onnx, format="challenge")
    before = contents()
    (folder / "1.bmp").write_bytes((folder / "2.bmp").read_bytes())
    monkeypatch.setattr("cnmc.predict.write_page", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder.parent, checkpoint=onnx)
    assert contents() == before
    assert visible(tmp_path / "out") == RESULTS | {"journal.jsonl", "submission.zip"}
    # As kill -9 leaves it.
    (tmp_path / "out" / ".new").mkdir()
    (tmp_path / "out" / ".new" / "submission.zip").touch()
    monkeypatch.setattr("cnmc.predict.screen", stop)
    with pytest.raises(CnmcError, match=r"overwrite=true"):
        run(folder.parent, checkpoint=other_onnx)
    assert contents() == before
    with pytest.raises(KeyboardInterrupt):
        run(folder.parent, checkpoint=other_onnx, overwrite=True)
    assert visible(tmp_path / "out") == {"journal.jsonl", ".new"}
    monkeypatch.undo()
    run(folder.parent, checkpoint=other_onnx)
    assert visible(tmp_path / "out") == RESULTS | {"journal.jsonl"}


@pytest.mark.parametrize("name", ["predictions.csv", "journal.jsonl", "screening.html", ".new"])
def test_what_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, folder: Path, onnx: Path, name: str
) -> None:
    run(folder.parent, checkpoint=onnx)
    path = tmp_path / "out" / name
    if path.exists():
        path.unlink()
    if name == ".new":
        path.touch()
    else:
        path.mkdir()
    with pytest.raises(CnmcError, match=rf"^output=.*out: cannot be written \(.*{name}.*another"):
        run(folder.parent, checkpoint=onnx)


def test_a_full_disk_is_told_in_one_line_and_what_was_done_is_kept(
    tmp_path: Path, folder: Path, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Journal.add
    added: list[int] = []

    def add(self: Journal, entries: Mapping[str, Entry]) -> None:
        if added:
            with (tmp_path / "out" / "journal.jsonl").open("a") as file:
                file.write('{"file": "half a li')
            raise OSError(errno.ENOSPC, "No space left on device")
        added.append(len(entries))
        whole(self, entries)

    monkeypatch.setattr(Journal, "add", add)
    with pytest.raises(
        CnmcError, match=r"^output=.*cannot be written \(.*No space left.*make room"
    ):
        run(folder.parent, checkpoint=onnx, num_threads=1)
    monkeypatch.undo()
    assert screen_module._MIN_BATCH <= sum(added) < 12
    run(folder.parent, checkpoint=onnx)
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 12


def predict_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnmc.predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_exit_status_tells_what_happened(tmp_path: Path, folder: Path, onnx: Path) -> None:
    arguments = [f"checkpoint={onnx}", f"input={folder}", f"output={tmp_path / 'out'}"]
    (folder / "x.bmp").write_bytes(b"x")
    done = predict_process(*arguments, "num_threads=1")
    assert done.returncode == 3, done.stderr
    assert "left out: 1, see " in done.stdout
    assert "Traceback" not in done.stderr
    with output_lock(tmp_path / "out"):
        done = predict_process(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: output={tmp_path / 'out'}: ")
    assert done.stderr.count("\n") == 1
    done = predict_process("-m", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: -m: ")
    assert done.stderr.count("\n") == 1


def test_names_do_no_harm(tmp_path: Path, folder: Path, onnx: Path) -> None:
    names = ["<script>alert(1)<", "=HYPERLINK(1)", "+1", "-1", "@x", "\"'&ü漢", "a\nb", "x" * 200]
    for name in names:
        (folder / f"{name}.bmp").write_bytes((folder / "1.bmp").read_bytes())
    with open(os.fsencode(folder) + b"/\xff.bmp", "wb") as file:  # noqa: PTH123 - bytes
        file.write((folder / "1.bmp").read_bytes())
    (folder / r"\xff.bmp").write_bytes((folder / "1.bmp").read_bytes())
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    assert run(tmp_path, checkpoint=onnx) == 0
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;.bmp" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    found = [row["file"] for row in rows(tmp_path / "out" / "predictions.csv")]
    assert not [name for name in found if name.startswith(("=", "+", "-", "@"))]
    assert {"'=HYPERLINK(1).bmp", "'+1.bmp", "'-1.bmp", "'@x.bmp", r"\xff.bmp"} <= set(found)
    assert r"\\xff.bmp" in found
    assert len(set(found)) == len(found) == 12 + len(names) + 2


def test_the_page_of_many_cells_stays_small(tmp_path: Path, onnx: Path) -> None:
    folder = tmp_path / "cells"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        noise = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"UID_{number % 3}_1_{number}_all.bmp")
    run(tmp_path, checkpoint=onnx, cells=20)
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert page.count("<li><img") == 20 + 16
    assert "background not black: 60 of 60 cells" in page
    subjects = rows(tmp_path / "out" / "subjects.csv")
    assert [row["subject"] for row in subjects] == ["0", "1", "2"]
    for row in subjects:
        assert float(row["low"]) <= float(row["mean_probability"]) <= float(row["high"])

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

import cnmc.deploy.screen as screen_module
from cnmc.config import PredictConfig
from cnmc.deploy.networks import open_network
from cnmc.deploy.outputs import output_lock
from cnmc.errors import CnmcError
from cnmc.predict import predict
from tests.conftest import ROOT
from tests.deploy.conftest import SIZE, variant
from tests.deploy.networks import cells

FORBIDDEN = ["torch", "pandas", "scipy", "matplotlib", "lightning", "albumentations", "wandb"]
RESULTS = {"predictions.csv", "subjects.csv", "skipped.csv", "screening.html"}


def run(tmp_path: Path, **keys: Any) -> int:
    values: dict[str, Any] = {"input": str(tmp_path / "cells"), "output": str(tmp_path / "out")}
    values |= {key: str(value) if isinstance(value, Path) else value for key, value in keys.items()}
    return predict(PredictConfig(**values))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(tmp_path: Path, name: str) -> list[str]:
    return [row[name] for row in rows(tmp_path / "out" / "predictions.csv")]


def floats(tmp_path: Path, name: str) -> Any:
    return np.array([float(value) for value in column(tmp_path, name)])


def logits_of(onnx: Path) -> Any:
    return open_network(onnx).logits(cells(12, SIZE)).astype(float)


def probs_of(log_odds: Any) -> Any:
    return 1 / (1 + np.exp(-log_odds))


def visible(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.iterdir() if path.name != ".screening.lock")
    return {path.name: path.read_bytes() for path in files}


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
    assert column(tmp_path, "file") == [f"{number}.bmp" for number in range(1, 13)]
    mean = logits_of(onnx).mean(axis=1)
    assert np.abs(floats(tmp_path, "mean_logit") - mean).max() < 1e-5
    probs = probs_of(mean / 2)
    assert np.abs(floats(tmp_path, "probability") - probs).max() < 1e-5
    assert column(tmp_path, "label") == ["ALL" if prob >= 0.4 else "HEM" for prob in probs]
    assert "exported network" in (tmp_path / "out" / "screening.html").read_text()


def test_unreadable_files_are_listed_with_reasons(tmp_path: Path, folder: Path, onnx: Path) -> None:
    (folder / "3.bmp").write_bytes(b"")
    (folder / "a.bmp").mkdir()
    (folder / "b.bmp").symlink_to("nowhere.bmp")
    os.mkfifo(folder / "c.bmp")
    Image.fromarray(cells(1, SIZE - 1)[0]).save(folder / "d.bmp")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.bmp").write_bytes(b"x")
    assert run(tmp_path, checkpoint=onnx) == 3
    skipped = {row["file"]: row["reason"] for row in rows(tmp_path / "out" / "skipped.csv")}
    assert skipped.keys() == {"3.bmp", "a.bmp", "b.bmp", "c.bmp", "d.bmp", "linked", "notes.txt"}
    assert len(set(skipped.values())) == 7
    assert str(SIZE - 1) in skipped["d.bmp"]
    assert len(column(tmp_path, "file")) == 11
    page = (tmp_path / "out" / "screening.html").read_text()
    assert all(reason in page for reason in skipped.values())


@pytest.mark.parametrize("output", ["cells", "cells/out", "linked/out"])
def test_the_files_of_a_screening_are_no_input(
    tmp_path: Path, folder: Path, onnx: Path, output: str
) -> None:
    (tmp_path / "linked").symlink_to(folder)
    keys = {"checkpoint": onnx, "output": tmp_path / output, "format": "challenge"}
    # A challenge's files have no folder before their names.
    assert run(tmp_path, **keys) == 0
    assert run(tmp_path, **keys) == 0
    (tmp_path / output / "own.csv").write_text("x")
    assert run(tmp_path, **keys | {"format": "report"}) == 3
    found = rows(tmp_path / output / "skipped.csv")
    assert [Path(row["file"]).name for row in found] == ["own.csv"]


@pytest.mark.parametrize(("name", "content"), [("notes.txt", b"x"), ("1.bmp", b"no image")])
def test_a_folder_without_a_readable_image_gives_empty_tables(
    tmp_path: Path, onnx: Path, name: str, content: bytes
) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / name).write_bytes(content)
    assert run(tmp_path, checkpoint=onnx) == 3
    assert [row["file"] for row in rows(tmp_path / "out" / "skipped.csv")] == [name]
    assert rows(tmp_path / "out" / "predictions.csv") == []
    assert rows(tmp_path / "out" / "subjects.csv") == []
    assert name in (tmp_path / "out" / "screening.html").read_text()


def test_an_empty_or_missing_input_is_refused(
    tmp_path: Path, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(CnmcError, match=r"^input=.*cells: "):
        run(tmp_path, checkpoint=onnx)
    with pytest.raises(CnmcError, match=r"^input=.*nothing: "):
        run(tmp_path, checkpoint=onnx, input="nothing")

    def refused(path: str) -> Any:
        # The rights of a folder do not bind root, who may run the tests.
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(CnmcError, match=r"^input=.*cells: .*Permission denied"):
        run(tmp_path, checkpoint=onnx)


def test_a_stopped_screening_continues_and_a_finished_one_computes_nothing(
    tmp_path: Path, folder: Path, onnx: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, checkpoint=onnx)
    whole = (tmp_path / "out" / "predictions.csv").read_bytes()
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    # Killed while it wrote the sixth cell, and a line damaged by the disk.
    journal.write_bytes(b"".join(lines[:3]) + b"{\n" + b"".join(lines[4:6]) + lines[6][:40])
    capsys.readouterr()
    run(tmp_path, checkpoint=onnx)
    assert " 8 of them new" in capsys.readouterr().out
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole
    for threshold in ("checkpoint", "paper"):  # both decide about the same logits
        run(tmp_path, checkpoint=onnx, threshold=threshold)
        assert " of them new" not in capsys.readouterr().out
    # A replaced file is computed, whatever its name, size and time; a renamed one is not.
    times = (folder / "1.bmp").stat()
    (folder / "1.bmp").write_bytes((folder / "2.bmp").read_bytes()[:-3] + b"abc")
    os.utime(folder / "1.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "5.bmp").rename(folder / "50.bmp")
    run(tmp_path, checkpoint=onnx)
    assert " 1 of them new" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"\xff" * 40,
        lambda _: b"[" * 100_000,
        lambda line: line[:-6] + b'beef"}',
        lambda line: json.dumps(json.loads(line) | {"logits": [[99.0] * 8]}).encode(),
        lambda line: json.dumps(json.loads(line) | {"file": "0" * 32}).encode(),
    ],
)
def test_a_changed_line_of_the_journal_is_computed_again(
    tmp_path: Path, folder: Path, onnx: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder.parent, checkpoint=onnx, cells=0)
    before = {name: visible(tmp_path / "out")[name] for name in RESULTS}
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    lines[3] = damage(lines[3])
    journal.write_bytes(b"\n".join(lines) + b"\n")
    capsys.readouterr()
    assert run(folder.parent, checkpoint=onnx, cells=0) == 0
    assert " 1 of them new" in capsys.readouterr().out
    assert {name: visible(tmp_path / "out")[name] for name in RESULTS} == before


@pytest.mark.parametrize("first", [b"my own notes\n", b"{}", b"\xff\n"])
def test_a_foreign_journal_is_refused(
    tmp_path: Path, folder: Path, onnx: Path, first: bytes
) -> None:
    journal = tmp_path / "out" / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_bytes(first)
    with pytest.raises(CnmcError, match=r"journal\.jsonl.*overwrite=true.*output=DIR"):
        run(folder.parent, checkpoint=onnx)
    assert journal.read_bytes() == first
    assert run(folder.parent, checkpoint=onnx, overwrite=True, cells=0) == 0


def test_an_interrupted_screening_loses_one_batch_at_most(
    tmp_path: Path, folder: Path, onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    predict_batch = screen_module._predict

    def die_at_second(batch: Any, networks: Any) -> Any:
        seen.append(len(batch))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return predict_batch(batch, networks)

    monkeypatch.setattr(screen_module, "_MIN_BATCH", 4)
    monkeypatch.setattr(screen_module, "_predict", die_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(folder.parent, checkpoint=onnx, num_threads=1)
    assert not (tmp_path / "out" / "predictions.csv").exists()
    run(folder.parent, checkpoint=onnx, num_threads=1)
    assert sum(seen[2:]) == 8


def test_an_ensemble_averages_log_odds(
    tmp_path: Path, folder: Path, onnx: Path, other_onnx: Path
) -> None:
    run(folder.parent, checkpoint=[str(onnx), str(other_onnx)])
    probs = probs_of(
        (logits_of(onnx).mean(axis=1) / 2 + logits_of(other_onnx).mean(axis=1) * 2) / 2
    )
    assert np.abs(floats(tmp_path, "probability") - probs).max() < 1e-5
    # Thresholds 0.4 and 0.8 have the odds 2/3 and 4.
    mean_odds = np.sqrt(2 / 3 * 4)
    threshold = mean_odds / (1 + mean_odds)
    assert [label == "ALL" for label in column(tmp_path, "label")] == list(probs >= threshold)
    assert set(column(tmp_path, "views")) == {"16"}


def test_networks_that_do_not_fit_together_are_refused(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    larger = variant(onnx, tmp_path / "larger.onnx", crop=40, resize=SIZE)
    with pytest.raises(CnmcError, match=r"^checkpoint: .*larger\.onnx"):
        run(folder.parent, checkpoint=[str(onnx), str(larger)])
    with pytest.raises(CnmcError, match=r"network\.onnx and .*network\.onnx"):
        run(folder.parent, checkpoint=[str(onnx), str(onnx)])
    with pytest.raises(CnmcError, match=r"^threshold=sensitivity:0\.95x"):
        run(folder.parent, checkpoint=onnx, threshold="sensitivity:0.95x")


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (lambda f: (f / "7.bmp").unlink(), r"7\.bmp"),
        (lambda f: (f / "7.bmp").rename(f / "999999999.bmp"), r"7\.bmp"),
        (lambda f: (f / "7.bmp").rename(f / "07.bmp"), r"07\.bmp"),
        (lambda f: (f / "7.bmp").rename(f / "x.png"), r"x\.png"),
        (lambda f: (f / "8.BMP").write_bytes((f / "7.bmp").read_bytes()), r"13\.bmp"),
        (lambda f: (f / "7.bmp").write_bytes(b""), r"7\.bmp"),
        (lambda f: (f / "x.dat").write_bytes(b""), r"x\.dat"),
    ],
)
def test_other_files_give_no_submission(
    tmp_path: Path, folder: Path, onnx: Path, change: Any, file: str
) -> None:
    change(folder)
    with pytest.raises(CnmcError, match=rf"^format=challenge: .*{file}"):
        run(tmp_path, checkpoint=onnx, format="challenge")
    assert not (tmp_path / "out" / "submission.zip").exists()


def test_a_submission_belongs_to_the_results_beside_it(
    tmp_path: Path, folder: Path, onnx: Path
) -> None:
    out = tmp_path / "out"
    assert run(tmp_path, checkpoint=onnx, format="challenge") == 0
    before = visible(out)
    assert before.keys() == RESULTS | {"journal.jsonl", "submission.zip"}
    with zipfile.ZipFile(out / "submission.zip") as archive:
        lines = archive.read("isbi_valid.predict").decode().splitlines()
    expected = probs_of(logits_of(onnx).mean(axis=1) / 2) >= 0.4
    assert [line == "1" for line in lines] == expected.tolist()
    assert 0 < expected.sum() < 12
    # Refused by its name, before anything is read.
    (folder / "12.bmp").rename(folder / "13.bmp")
    with pytest.raises(CnmcError, match=r"12\.bmp"):
        run(tmp_path, checkpoint=onnx, format="challenge")
    assert visible(out) == before
    # Refused by its content.
    (folder / "13.bmp").unlink()
    (folder / "12.bmp").write_bytes(b"x")
    with pytest.raises(CnmcError, match=r"12\.bmp"):
        run(tmp_path, checkpoint=onnx, format="challenge")
    assert visible(out).keys() == RESULTS | {"journal.jsonl"}
    assert [row["file"] for row in rows(out / "skipped.csv")] == ["12.bmp"]


def test_results_of_other_networks_are_replaced_only_with_overwrite(
    tmp_path: Path,
    folder: Path,
    onnx: Path,
    other_onnx: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    run(folder.parent, checkpoint=onnx, format="challenge")
    before = visible(out)
    monkeypatch.setattr("cnmc.predict.screening_page", stop)
    with pytest.raises(KeyboardInterrupt):
        run(folder.parent, checkpoint=onnx)
    with pytest.raises(CnmcError, match=r"journal\.jsonl.*overwrite=true.*output=DIR"):
        run(folder.parent, checkpoint=other_onnx)
    assert visible(out) == before
    with pytest.raises(KeyboardInterrupt):
        run(folder.parent, checkpoint=other_onnx, overwrite=True)
    assert visible(out).keys() == {"journal.jsonl"}
    monkeypatch.undo()
    run(folder.parent, checkpoint=other_onnx)
    assert visible(out).keys() == RESULTS | {"journal.jsonl"}


@pytest.mark.parametrize("name", ["predictions.csv", "journal.jsonl", "submission.zip"])
def test_an_output_that_cannot_be_written_is_named(
    tmp_path: Path, folder: Path, onnx: Path, name: str
) -> None:
    run(folder.parent, checkpoint=onnx)
    (tmp_path / "out" / name).unlink(missing_ok=True)
    (tmp_path / "out" / name).mkdir()
    with pytest.raises(CnmcError, match=rf"^output=.*out: .*{name}"):
        run(folder.parent, checkpoint=onnx)


def predict_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnmc.predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_exit_statuses(tmp_path: Path, folder: Path, onnx: Path) -> None:
    arguments = [f"checkpoint={onnx}", f"input={folder}", f"output={tmp_path / 'out'}"]
    (folder / "x.bmp").write_bytes(b"x")
    done = predict_process(*arguments, "num_threads=1")
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "out" / "skipped.csv") in done.stdout
    assert "Traceback" not in done.stderr
    with output_lock(tmp_path / "out"):
        done = predict_process(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: output={tmp_path / 'out'}: ")
    assert done.stderr.count("\n") == 1


def test_names_do_no_harm(tmp_path: Path, folder: Path, onnx: Path) -> None:
    names = ["<script>alert(1)<", "=HYPERLINK(1)", "+1", "-1", "@x", "\"'&ü漢", "a\nb", "x" * 200]
    for name in [*names, r"\xff"]:
        (folder / f"{name}.bmp").write_bytes((folder / "1.bmp").read_bytes())
    with open(os.fsencode(folder) + b"/\xff.bmp", "wb") as file:  # noqa: PTH123 - bytes
        file.write((folder / "1.bmp").read_bytes())
    assert run(tmp_path, checkpoint=onnx) == 0
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;.bmp" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    found = column(tmp_path, "file")
    assert not [name for name in found if name.startswith(("=", "+", "-", "@"))]
    assert {"'=HYPERLINK(1).bmp", "'+1.bmp", "'-1.bmp", "'@x.bmp"} <= set(found)
    assert {r"\xff.bmp", r"\\xff.bmp"} <= set(found)
    assert len(set(found)) == len(found) == 12 + len(names) + 2

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

import cnmc.data.manifest as module
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.errors import CnmcError

from .trees import (
    FINAL,
    PRELIM,
    TRAIN,
    Layout,
    by_id,
    pixels,
    write_bmp,
    write_labels,
    write_release,
)


def load(root: Path, work_dir: Path) -> Manifest:
    return load_manifest(root, work_dir, num_workers=2)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which files are read, by folder and name."""
    names: list[str] = []
    original = module._read

    def read(path: Path) -> object:
        names.append(f"{path.parent.name}/{path.name}")
        return original(path)

    monkeypatch.setattr(module, "_read", read)
    return names


@pytest.mark.parametrize("layout", ["archive", "mirror", "paper"])
def test_every_layout_gives_the_same_cells(tmp_path: Path, layout: Layout) -> None:
    reference = load(write_release(tmp_path / "reference"), tmp_path / "work")
    manifest = load(write_release(tmp_path / layout / "nested", layout).parent, tmp_path / "work")
    pd.testing.assert_frame_equal(
        manifest.cells.drop(columns=["path", "mtime_ns"]),
        reference.cells.drop(columns=["path", "mtime_ns"]),
    )
    assert manifest.fingerprint == reference.fingerprint
    assert not any(finding.names for finding in manifest.findings)


def test_rows(tmp_path: Path) -> None:
    cells = load(write_release(tmp_path / "data"), tmp_path / "work").cells
    assert len(cells) == len(TRAIN) + len(PRELIM) + len(FINAL)
    assert cells["cell_id"].to_list()[-3:] == ["final/1", "final/2", "final/10"]
    assert cells.loc[cells["part"] == "final", "label"].isna().all()
    rows = by_id(cells)
    path = tmp_path / "data/C-NMC_training_data/fold_1/hem/UID_h3_10_1_hem.bmp"
    assert rows["train/UID_h3_10_1_hem"] == {
        "cell_id": "train/UID_h3_10_1_hem",
        "path": path.relative_to(tmp_path / "data").as_posix(),
        "part": "train",
        "fold": "fold_1",
        "subject": "H3",
        "label": 0,
        "original_name": "UID_h3_10_1_hem.bmp",
        "size_bytes": path.stat().st_size,
        "mtime_ns": path.stat().st_mtime_ns,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "width": 48,
        "height": 48,
        "error": "",
    }
    for original, name, label in PRELIM:
        row = rows[f"prelim/{name.removesuffix('.bmp')}"]
        assert (row["original_name"], row["label"]) == (original, label)


def test_only_changed_files_are_read_again(tmp_path: Path, reads: list[str]) -> None:
    root = write_release(tmp_path / "data", "paper")
    first = load(root, tmp_path / "work")
    assert len(reads) == len(first.cells)
    reads.clear()
    again = load(root, tmp_path / "work")
    assert reads == []
    pd.testing.assert_frame_equal(again.cells, first.cells)
    assert again.fingerprint == first.fingerprint

    write_bmp(root / "phase2/2.bmp", pixels(999))
    os.utime(root / "phase2/2.bmp", ns=(1, 1))
    write_bmp(root / "phase3/11.bmp", pixels(998))
    changed = load(root, tmp_path / "work")
    assert sorted(reads) == ["phase2/2.bmp", "phase3/11.bmp"]
    assert changed.fingerprint != first.fingerprint
    reads.clear()
    load(root, tmp_path / "work")
    assert reads == []


def test_a_changed_label_changes_the_fingerprint_without_reading(
    tmp_path: Path, reads: list[str]
) -> None:
    root = write_release(tmp_path / "data", "paper")
    first = load(root, tmp_path / "work")
    reads.clear()
    write_labels(root / "phase2.csv", [("UID_H7_1_1_hem.bmp", "2.bmp", 0), *PRELIM[2:]])
    changed = load(root, tmp_path / "work")
    assert reads == []
    assert changed.fingerprint != first.fingerprint
    rows = by_id(changed.cells)
    assert (rows["prelim/2"]["subject"], rows["prelim/2"]["label"]) == ("H7", 0)
    assert pd.isna(rows["prelim/10"]["label"])


def test_a_damaged_kept_manifest_is_made_again(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data")
    first = load(root, tmp_path / "work")
    (kept,) = (tmp_path / "work").glob("manifest-*.csv")
    kept.write_text("cell_id,path\nx,y\n")
    pd.testing.assert_frame_equal(load(root, tmp_path / "work").cells, first.cells)
    assert kept.read_text().startswith("cell_id,path,part")


def test_two_data_sets_in_one_working_folder_do_not_mix(tmp_path: Path) -> None:
    roots = [write_release(tmp_path / name, "paper") for name in ("a", "b")]
    write_bmp(roots[1] / "phase3/1.bmp", pixels(999))
    for root in roots:
        os.utime(root / "phase3/1.bmp", ns=(5, 5))
    hashes = [by_id(load(root, tmp_path / "work").cells)["final/1"]["sha256"] for root in roots]
    assert hashes[0] != hashes[1]


def test_an_unreadable_image_is_kept_with_the_reason(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data", "paper")
    (root / "phase3/2.bmp").write_bytes(b"not an image")
    row = by_id(load(root, tmp_path / "work").cells)["final/2"]
    assert row["error"]
    assert (row["width"], row["height"]) == (0, 0)
    assert by_id(load(root, tmp_path / "work").cells)["final/2"] == row


def test_a_partial_release_is_accepted(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data", "paper")
    shutil.rmtree(root / "phase2")
    shutil.rmtree(root / "phase3")
    shutil.rmtree(root / "fold_0")
    manifest = load(root, tmp_path / "work")
    assert set(manifest.cells["part"]) == {"train"}
    named = {finding.check: list(finding.names) for finding in manifest.findings}
    assert named["label_without_image"] == ["1", "2", "3", "10"]


def test_links_are_followed_and_shadow_files_are_not_cells(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    complete = write_release(tmp_path / "elsewhere", "paper")
    (root / "phase2").symlink_to(complete / "phase2")
    (root / "phase2" / "loop").symlink_to(root)
    (root / "phase2.csv").symlink_to(complete / "phase2.csv")
    write_bmp(root / "__MACOSX/phase2/4.bmp", pixels(0))
    write_bmp(root / "phase2/._1.bmp", pixels(0))
    cells = load(root, tmp_path / "work").cells
    assert cells["cell_id"].to_list() == ["prelim/1", "prelim/2", "prelim/3", "prelim/10"]
    assert cells["label"].to_list() == [0, 1, 1, 0]


@pytest.mark.parametrize("make", [False, True])
def test_no_data_names_the_key_and_the_ways_out(tmp_path: Path, make: bool) -> None:
    root = tmp_path / "nothing"
    if make:
        write_bmp(root / "holiday/1.bmp", pixels(0))
    with pytest.raises(CnmcError, match=r"data\.root=.*nothing"):
        load(root, tmp_path / "work")


def test_two_label_files_must_agree(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data", "paper")
    write_labels(root / "copy/phase2.csv", PRELIM[::-1])
    load(root, tmp_path / "work")
    write_labels(root / "copy/phase2.csv", [("UID_H7_1_1_hem.bmp", "2.bmp", 0)])
    with pytest.raises(CnmcError, match=r"copy/phase2\.csv, line 2"):
        load(root, tmp_path / "work")


def test_more_files_than_allowed_are_not_read(tmp_path: Path, reads: list[str]) -> None:
    root, work = write_release(tmp_path / "data"), tmp_path / "work"
    num_cells = len(TRAIN) + len(PRELIM) + len(FINAL)
    with pytest.raises(CnmcError, match=rf"{num_cells} of {num_cells} .* cnmc\.prepare"):
        load_manifest(root, work, num_workers=1, max_reads=num_cells - 1)
    assert not reads
    assert not work.exists()
    load_manifest(root, work, num_workers=1, max_reads=num_cells)
    assert not work.exists()
    load(root, work)
    load_manifest(root, work, num_workers=1, max_reads=0)

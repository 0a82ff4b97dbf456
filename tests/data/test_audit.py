from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cnmc.data.audit import Finding, audit, usable_cells
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.errors import CnmcError

from .trees import PRELIM, pixels, real_training_cells, write_bmp, write_labels, write_release


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_release(tmp_path / "data", "paper")


def load(root: Path) -> Manifest:
    return load_manifest(root, root.parent / "work", num_workers=1, show_progress=False)


def findings(root: Path, *, crop: int = 32, skip_unreadable: bool = False) -> dict[str, Finding]:
    """Audit a tree; sizes are left out, since no small tree has those of the release."""
    found = audit(load(root), crop=crop, skip_unreadable=skip_unreadable)
    for finding in found:
        assert "\n" not in finding.message
    by_check = {finding.check: finding for finding in found if finding.check != "size"}
    assert len(by_check) == sum(finding.check != "size" for finding in found)
    return by_check


def test_a_complete_tree_has_no_findings(root: Path) -> None:
    assert findings(root) == {}
    assert len(usable_cells(load(root), crop=48, skip_unreadable=False)) == 14


def test_sizes_of_the_release_are_expected(root: Path) -> None:
    for seed, path in enumerate(sorted(root.rglob("*.bmp"))):
        write_bmp(path, pixels(seed, 450, 450))
    write_bmp(root / "phase3/1.bmp", pixels(1, 600, 600))
    assert [
        f for f in audit(load(root), crop=300, skip_unreadable=False) if f.check == "size"
    ] == []
    write_bmp(root / "phase2/1.bmp", pixels(2, 600, 600))
    write_bmp(root / "phase2/2.bmp", pixels(3, 600, 600))
    write_bmp(root / "phase2/3.bmp", pixels(4, 450, 451))
    found = [f for f in audit(load(root), crop=300, skip_unreadable=False) if f.check == "size"]
    assert [f.level for f in found] == ["warning", "warning"]
    assert "phase2/3.bmp" in found[0].message
    assert "phase2/1.bmp, phase2/2.bmp" in found[1].message
    assert "2 images of the prelim part measure 600 x 600" in found[1].message


@pytest.mark.parametrize("skip", [False, True])
def test_unreadable_and_small_images(root: Path, skip: bool) -> None:
    broken = root / "fold_0/all/UID_1_1_1_all.bmp"
    broken.write_bytes(broken.read_bytes()[:500])
    write_bmp(root / "phase2/3.bmp", pixels(5, 48, 31))
    found = findings(root, skip_unreadable=skip)
    assert set(found) == {"unreadable", "too_small"}
    assert {f.level for f in found.values()} == {"warning" if skip else "error"}
    assert "fold_0/all/UID_1_1_1_all.bmp (" in found["unreadable"].message
    assert "truncated" in found["unreadable"].message
    assert "phase2/3.bmp (31 x 48)" in found["too_small"].message
    if skip:
        left = usable_cells(load(root), crop=32, skip_unreadable=True)["cell_id"]
        assert len(left) == 12
        assert not left.isin(["train/UID_1_1_1_all", "prelim/3"]).any()
    else:
        with pytest.raises(CnmcError, match=r"cannot be read.*data\.skip_unreadable=true"):
            usable_cells(load(root), crop=32, skip_unreadable=False)


def test_nothing_usable_is_an_error_even_when_skipping(root: Path) -> None:
    with pytest.raises(CnmcError, match=r"none of its 14 images .* data\.crop=49"):
        usable_cells(load(root), crop=49, skip_unreadable=True)


def test_long_lists_are_cut(root: Path) -> None:
    found = findings(root, crop=49)["too_small"]
    assert "14 images are smaller" in found.message
    assert "and 9 more" in found.message
    assert found.message.count(".bmp") == 5


def test_labels_without_images_and_images_without_labels(root: Path) -> None:
    write_labels(root / "phase2.csv", [*PRELIM[1:], ("UID_7_1_2_all.bmp", "77.bmp", 1)])
    found = findings(root)
    assert set(found) == {"label_without_image", "image_without_label"}
    assert {f.level for f in found.values()} == {"warning"}
    assert "1 label in phase2.csv without an image: 77.bmp" in found["label_without_image"].message
    assert "phase2/10.bmp" in found["image_without_label"].message


def test_no_label_file(root: Path) -> None:
    (root / "phase2.csv").unlink()
    found = findings(root)
    assert set(found) == {"image_without_label"}
    assert "there is no label file" in found["image_without_label"].message


def test_conflicting_classes(root: Path) -> None:
    shutil.move(root / "fold_1/all/UID_2_1_1_all.bmp", root / "fold_1/hem/UID_2_1_1_all.bmp")
    write_bmp(root / "fold_2/all/UID_H5_1_1_all.bmp", pixels(50))
    write_labels(root / "phase2.csv", [("UID_7_1_1_all.bmp", "2.bmp", 0), PRELIM[0], *PRELIM[2:]])
    found = findings(root)
    assert set(found) == {"class_conflict"}
    conflict = found["class_conflict"]
    assert conflict.level == "error"
    assert "UID_2_1_1_all.bmp (folder HEM, name ALL, subject ALL)" in conflict.message
    assert "UID_H5_1_1_all.bmp (folder ALL, name ALL, subject HEM)" in conflict.message
    assert "phase2/2.bmp (label HEM, name ALL, subject ALL)" in conflict.message
    with pytest.raises(CnmcError, match="conflicting class"):
        usable_cells(load(root), crop=32, skip_unreadable=True)


def test_identical_images(root: Path) -> None:
    write_bmp(root / "fold_0/all/UID_1_9_1_all.bmp", pixels(0))  # of UID_1_1_1_all
    write_bmp(root / "fold_1/all/UID_2_9_1_all.bmp", pixels(0))
    found = findings(root)
    assert set(found) == {"duplicate"}
    assert found["duplicate"].level == "warning"
    assert "3 pairs of byte-identical images, 2 of them across subjects, 2 across folds" in (
        found["duplicate"].message
    )


def test_an_image_in_both_parts_is_a_leak(root: Path) -> None:
    write_bmp(root / "phase2/2.bmp", pixels(0))
    found = findings(root)
    assert set(found) == {"duplicate", "leak"}
    assert found["leak"].level == "warning"
    assert "train/UID_1_1_1_all = prelim/2" in found["leak"].message


def test_identical_images_of_the_final_part_are_no_leak(root: Path) -> None:
    write_bmp(root / "phase3/2.bmp", pixels(0))
    assert set(findings(root)) == {"duplicate"}


def test_identical_images_of_two_classes_are_an_error(root: Path) -> None:
    write_bmp(root / "fold_0/hem/UID_H1_1_1_hem.bmp", pixels(0))
    found = findings(root)
    assert found["duplicate_label"].level == "error"
    assert "train/UID_1_1_1_all = train/UID_H1_1_1_hem" in found["duplicate_label"].message
    assert audit(load(root), crop=32, skip_unreadable=False)[0].check == "duplicate_label"
    with pytest.raises(CnmcError, match="different labels"):
        usable_cells(load(root), crop=32, skip_unreadable=False)


def test_two_empty_files_are_not_identical_images(root: Path) -> None:
    for name in ("1", "2"):
        (root / f"phase3/{name}.bmp").write_bytes(b"")
    assert set(findings(root)) == {"unreadable"}


def test_a_subject_in_both_parts(root: Path) -> None:
    write_bmp(root / "fold_0/all/UID_7_9_1_all.bmp", pixels(50))
    found = findings(root)
    assert set(found) == {"shared_subject"}
    assert ": 7;" in found["shared_subject"].message


def test_files_of_no_part_are_named(root: Path) -> None:
    write_bmp(root / "figures/overview.bmp", pixels(0))
    found = findings(root)
    assert set(found) == {"ignored"}
    assert "1 BMP file belongs to no part" in found["ignored"].message
    assert "figures/overview.bmp" in found["ignored"].message


@pytest.mark.real
def test_the_real_pairs_of_identical_files(real_train_files: Path, root: Path) -> None:
    cells = real_training_cells(real_train_files).assign(error="", width=450, height=450)
    found = audit(replace(load(root), cells=cells), crop=300, skip_unreadable=False)
    assert [(f.level, f.check) for f in found] == [("warning", "duplicate")]
    assert "104 pairs of byte-identical images, 99 of them across subjects, 94 across folds" in (
        found[0].message
    )

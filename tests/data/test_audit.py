from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cnmc.config.groups import DataConfig
from cnmc.data.audit import audit, usable_cells
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.sources import Finding
from cnmc.errors import CnmcError

from .trees import PRELIM, pixels, real_training_cells, write_bmp, write_labels, write_release


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_release(tmp_path / "data", "paper")


def load(root: Path) -> Manifest:
    return load_manifest(root, root.parent / "work", num_workers=1)


def findings(root: Path, *, crop: int = 32, skip_unreadable: bool = False) -> dict[str, Finding]:
    found = audit(load(root), crop=crop, skip_unreadable=skip_unreadable)
    return {finding.check: finding for finding in found}


def usable(root: Path, crop: int, *, skip: bool) -> pd.DataFrame:
    data = DataConfig(str(root), str(root.parent), crop=crop, skip_unreadable=skip)
    return usable_cells(load(root), data)


def test_a_complete_tree_has_no_findings(root: Path) -> None:
    assert findings(root) == {}
    assert len(usable(root, 48, skip=False)) == 11


@pytest.mark.parametrize("skip", [False, True])
def test_unreadable_and_small_images(root: Path, skip: bool) -> None:
    broken = root / "fold_0/all/UID_1_1_1_all.bmp"
    broken.write_bytes(broken.read_bytes()[:500])
    write_bmp(root / "phase2/3.bmp", pixels(5, 48, 31))
    found = findings(root, skip_unreadable=skip)
    assert set(found) == {"unreadable", "too_small"}
    assert {f.level for f in found.values()} == {"warning" if skip else "error"}
    assert found["unreadable"].names[0].startswith("fold_0/all/UID_1_1_1_all.bmp (")
    assert list(found["too_small"].names) == ["phase2/3.bmp (31 x 48)"]
    if skip:
        left = usable(root, 32, skip=True)["cell_id"]
        assert len(left) == 9
        assert not left.isin(["train/UID_1_1_1_all", "prelim/3"]).any()
    else:
        with pytest.raises(CnmcError, match=r"data\.skip_unreadable=true"):
            usable(root, 32, skip=False)


def test_nothing_usable_is_an_error_even_when_skipping(root: Path) -> None:
    with pytest.raises(CnmcError, match=r"14 .* data\.crop=49"):
        usable(root, 49, skip=True)


def test_long_lists_are_cut(root: Path) -> None:
    message = findings(root, crop=49)["too_small"].message
    assert "(14)" in message
    assert message.count(".bmp") == 5


def test_labels_without_images_and_images_without_labels(root: Path) -> None:
    write_labels(root / "phase2.csv", [*PRELIM[1:], ("UID_7_1_2_all.bmp", "77.bmp", 1)])
    assert {f.check: (f.level, list(f.names)) for f in findings(root).values()} == {
        "label_without_image": ("warning", ["77"]),
        "image_without_label": ("warning", ["phase2/10.bmp"]),
    }
    (root / "phase2.csv").unlink()
    assert len(findings(root)["image_without_label"].names) == len(PRELIM)


def test_conflicting_classes(root: Path) -> None:
    shutil.move(root / "fold_1/all/UID_2_1_1_all.bmp", root / "fold_1/hem/UID_2_1_1_all.bmp")
    write_bmp(root / "fold_2/all/UID_H5_1_1_all.bmp", pixels(50))
    write_labels(root / "phase2.csv", [("UID_7_1_1_all.bmp", "2.bmp", 0), PRELIM[0], *PRELIM[2:]])
    found = findings(root)
    assert set(found) == {"class_conflict"}
    assert found["class_conflict"].level == "error"
    for name, claims in zip(
        found["class_conflict"].names,
        [("folder HEM", "name ALL"), ("folder ALL", "subject HEM"), ("label HEM", "name ALL")],
        strict=True,
    ):
        assert all(claim in name for claim in claims)
    with pytest.raises(CnmcError, match=r"UID_2_1_1_all\.bmp"):
        usable(root, 32, skip=True)


def test_identical_images(root: Path) -> None:
    write_bmp(root / "fold_0/all/UID_1_9_1_all.bmp", pixels(0))  # of UID_1_1_1_all
    write_bmp(root / "fold_1/all/UID_2_9_1_all.bmp", pixels(0))
    write_bmp(root / "phase3/2.bmp", pixels(0))
    found = findings(root)
    assert set(found) == {"duplicate"}
    assert found["duplicate"].level == "warning"
    assert len(found["duplicate"].names) == 6
    assert "2 across subjects, 2 across folds" in found["duplicate"].message


def test_an_image_in_both_parts_is_a_leak(root: Path) -> None:
    write_bmp(root / "phase2/2.bmp", pixels(0))
    found = findings(root)
    assert set(found) == {"duplicate", "leak"}
    assert found["leak"].level == "warning"
    assert list(found["leak"].names) == ["train/UID_1_1_1_all = prelim/2"]


def test_identical_images_of_two_classes_are_an_error(root: Path) -> None:
    write_bmp(root / "fold_0/hem/UID_H1_1_1_hem.bmp", pixels(0))
    first = audit(load(root), crop=32, skip_unreadable=False)[0]
    assert (first.level, first.check) == ("error", "duplicate_label")
    assert list(first.names) == ["train/UID_1_1_1_all = train/UID_H1_1_1_hem"]


def test_a_subject_in_both_parts(root: Path) -> None:
    write_bmp(root / "fold_0/all/UID_7_9_1_all.bmp", pixels(50))
    assert {f.check: list(f.names) for f in findings(root).values()} == {"shared_subject": ["7"]}


def test_files_of_no_part_are_named(root: Path) -> None:
    write_bmp(root / "figures/overview.bmp", pixels(0))
    assert list(findings(root)["ignored"].names) == ["figures/overview.bmp"]


@pytest.mark.real
def test_the_real_pairs_of_identical_files(real_train_files: Path, root: Path) -> None:
    cells = real_training_cells(real_train_files).assign(error="", width=450, height=450)
    (found,) = audit(replace(load(root), cells=cells), crop=300, skip_unreadable=False)
    assert (found.level, found.check, len(found.names)) == ("warning", "duplicate", 104)
    assert "99 across subjects, 94 across folds" in found.message

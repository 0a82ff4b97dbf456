from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cnmc.data.names import parse_uid
from cnmc.data.sources.cnmc import classify, read_labels
from cnmc.errors import CnmcError

from .trees import by_id, real_training_cells, write_labels


def cells_of(*paths: str, root_name: str = "") -> pd.DataFrame:
    return classify(paths, {}, root_name=root_name)[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("UID_11_10_1_all.bmp", ("11", 1)),
        ("UID_H10_130_2_hem.bmp", ("H10", 0)),
        ("UID_h3_10_1_hem", ("H3", 0)),
        ("1.bmp", None),
        ("UID_11_10_1_mono.bmp", None),
        ("xUID_1_1_1_all", None),
    ],
)
def test_uid(name: str, expected: tuple[str, int] | None) -> None:
    assert parse_uid(name) == expected


@pytest.mark.parametrize(
    ("path", "part", "fold"),
    [
        ("C-NMC_training_data/fold_2/all/UID_1_1_1_all.bmp", "train", "fold_2"),
        ("a/b/C-NMC_Leukemia/training_data/fold_0/x/hem/UID_1_1_1_hem.bmp", "train", "fold_0"),
        ("fold_1/all/UID_1_1_1_all.bmp", "train", "fold_1"),
        ("UID_1_1_1_all.bmp", "train", ""),
        ("C-NMC_test_prelim_phase_data/C-NMC_test_prelim_phase_data/5.bmp", "prelim", ""),
        ("training_data/validation_data/5.BMP", "prelim", ""),
        ("phase2/deeper/5.bmp", "prelim", ""),
        ("testing_data/C-NMC_test_final_phase_data/5.bmp", "final", ""),
        ("phase3/5.bmp", "final", ""),
    ],
)
def test_part_and_fold(path: str, part: str, fold: str) -> None:
    cells = cells_of(path)
    assert cells[["path", "part", "fold"]].to_numpy().tolist() == [[path, part, fold]]


def test_the_root_may_be_a_folder_of_the_release() -> None:
    inside = cells_of("all/UID_1_1_1_all.bmp", root_name="fold_1")
    assert inside[["part", "fold"]].to_numpy().tolist() == [["train", "fold_1"]]
    assert cells_of("7.bmp", root_name="phase2")["cell_id"].to_list() == ["prelim/7"]


def test_images_of_no_part_are_ignored_and_named() -> None:
    paths = ["fold_0/all/overview.bmp", "other/7.bmp"]
    cells, findings = classify(paths, {})
    assert cells.empty
    assert {f.check: list(f.names) for f in findings if f.names} == {"ignored": paths}


def test_names_in_the_final_part_give_no_label() -> None:
    cells = cells_of("phase3/UID_1_1_1_all.bmp")
    assert cells["label"].isna().all()
    assert cells["subject"].to_list() == [""]


def test_cells_are_sorted_by_part_and_number() -> None:
    paths = ["phase3/1.bmp", "phase2/10.bmp", "phase2/9.bmp", "fold_0/all/UID_1_1_1_all.bmp"]
    expected = ["train/UID_1_1_1_all", "prelim/9", "prelim/10", "final/1"]
    assert cells_of(*paths)["cell_id"].to_list() == expected
    assert cells_of(*paths[::-1])["cell_id"].to_list() == expected


def test_the_same_cell_twice_is_refused_with_both_paths() -> None:
    with pytest.raises(CnmcError, match=r"a/fold_0\S* and b/fold_0\S*"):
        cells_of("a/fold_0/all/UID_1_1_1_all.bmp", "b/fold_0/all/UID_1_1_1_all.bmp")


def test_labels_are_joined_by_name_not_by_row(tmp_path: Path) -> None:
    rows = [("UID_H9_1_1_hem.bmp", "10.bmp", 0), ("UID_7_2_1_all.bmp", "2.bmp", 1)]
    path = write_labels(tmp_path / "phase2.csv", rows)
    # Editors add a byte order mark.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    labels = read_labels([path])
    paths = ["phase2/2.bmp", "phase2/10.BMP", "phase2/11.bmp", "phase3/2.bmp"]
    cells, findings = classify(paths, labels)
    rows_of = by_id(cells)
    assert (rows_of["prelim/2"]["subject"], rows_of["prelim/2"]["label"]) == ("7", 1)
    assert (rows_of["prelim/10"]["subject"], rows_of["prelim/10"]["label"]) == ("H9", 0)
    assert rows_of["prelim/10"]["original_name"] == "UID_H9_1_1_hem.bmp"
    assert pd.isna(rows_of["prelim/11"]["label"])
    assert pd.isna(rows_of["final/2"]["label"])
    named = {finding.check: list(finding.names) for finding in findings if finding.names}
    assert named == {"image_without_label": ["phase2/11.bmp"]}
    named = {finding.check: list(finding.names) for finding in classify(paths[1:], labels)[1]}
    assert named["label_without_image"] == ["2"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name,label\n1.bmp,1\n", "Patient_ID.*new_names.*labels"),
        ("", r"phase2\.csv"),
        ("Patient_ID,new_names,labels\nUID_1_1_1_all.bmp,1.bmp,yes\n", "line 2"),
        ("Patient_ID,new_names,labels\nsomebody,1.bmp,1\n", "line 2"),
        ("Patient_ID,new_names,labels\nUID_1_1_1_all.bmp\n", "line 2"),
        (
            "Patient_ID,new_names,labels\nUID_1_1_1_all.bmp,1.bmp,1\nUID_1_1_2_all.bmp,1.bmp,1\n",
            "line 3",
        ),
    ],
)
def test_an_unusable_label_file_is_refused(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "phase2.csv"
    path.write_text(text)
    with pytest.raises(CnmcError, match=where) as caught:
        read_labels([path])
    assert str(path) in str(caught.value)


@pytest.mark.real
def test_the_real_names(real_train_files: Path) -> None:
    cells = real_training_cells(real_train_files)
    by_class = cells.groupby("label")
    assert by_class.size().to_dict() == {0: 3389, 1: 7272}
    assert by_class["subject"].nunique().to_dict() == {0: 26, 1: 47}
    assert (cells["subject"] == "H3").sum() == 36
    assert cells.groupby("fold")["label"].sum().to_list() == [2397, 2418, 2457]


@pytest.mark.real
def test_the_real_label_file(real_prelim_labels: Path) -> None:
    names = [f"C-NMC_test_prelim_phase_data/{number}.bmp" for number in range(1867, 0, -1)]
    cells, findings = classify(names, read_labels([real_prelim_labels]))
    assert not any(finding.names for finding in findings)
    by_class = cells.groupby("label")
    assert by_class.size().to_dict() == {0: 648, 1: 1219}
    assert by_class["subject"].nunique().to_dict() == {0: 15, 1: 13}
    assert by_id(cells)["prelim/2"]["original_name"] == "UID_57_22_2_all.bmp"

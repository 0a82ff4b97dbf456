from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cnmc.data.names import folder_label, parse_uid
from cnmc.data.sources.cnmc import classify, read_labels
from cnmc.errors import CnmcError
from cnmc.files import natural_key

from .trees import by_id, real_training_cells, write_labels


@pytest.mark.parametrize(
    ("name", "subject", "label"),
    [
        ("UID_11_10_1_all.bmp", "11", 1),
        ("UID_H10_130_2_hem.bmp", "H10", 0),
        ("UID_h3_10_1_hem.bmp", "H3", 0),
        ("UID_h3_10_1_hem", "H3", 0),
    ],
)
def test_uid(name: str, subject: str, label: int) -> None:
    assert parse_uid(name) == (subject, label)


@pytest.mark.parametrize(
    "name", ["1.bmp", "UID_11_10_1.bmp", "UID_11_10_1_mono.bmp", "xUID_1_1_1_all"]
)
def test_other_names_are_not_parsed(name: str) -> None:
    assert parse_uid(name) is None


@pytest.mark.parametrize(
    ("path", "part", "fold"),
    [
        ("C-NMC_training_data/fold_2/all/UID_1_1_1_all.bmp", "train", "fold_2"),
        ("a/b/C-NMC_Leukemia/training_data/fold_0/x/hem/UID_1_1_1_all.bmp", "train", "fold_0"),
        ("fold_1/all/UID_1_1_1_all.bmp", "train", "fold_1"),
        ("UID_1_1_1_all.bmp", "train", ""),
        ("C-NMC_test_prelim_phase_data/C-NMC_test_prelim_phase_data/5.bmp", "prelim", ""),
        ("validation_data/5.BMP", "prelim", ""),
        ("phase2/deeper/5.bmp", "prelim", ""),
        ("C-NMC_test_final_phase_data/5.bmp", "final", ""),
        ("testing_data/C-NMC_test_final_phase_data/5.bmp", "final", ""),
        ("phase3/5.bmp", "final", ""),
    ],
)
def test_part_and_fold(path: str, part: str, fold: str) -> None:
    scan = classify([path])
    assert scan.cells[["part", "fold"]].to_numpy().tolist() == [[part, fold]]
    assert scan.cells.loc[0, "path"] == path


def test_the_root_may_be_a_folder_of_the_release() -> None:
    inside = classify(["all/UID_1_1_1_all.bmp"], root_name="fold_1").cells
    assert inside[["part", "fold"]].to_numpy().tolist() == [["train", "fold_1"]]
    assert classify(["7.bmp"], root_name="phase2").cells["cell_id"].to_list() == ["prelim/7"]


def test_images_of_no_part_are_ignored_and_named() -> None:
    found = classify(["other/7.bmp", "fold_0/all/overview.bmp"])
    assert found.cells.empty
    assert found.ignored == ("fold_0/all/overview.bmp", "other/7.bmp")


def test_names_in_the_final_part_give_no_label() -> None:
    cells = classify(["phase3/UID_1_1_1_all.bmp"]).cells
    assert cells["label"].isna().all()
    assert cells["subject"].to_list() == [""]


def test_cells_are_sorted_by_part_and_number() -> None:
    paths = ["phase3/1.bmp", "phase2/10.bmp", "phase2/9.bmp", "fold_0/all/UID_1_1_1_all.bmp"]
    expected = ["train/UID_1_1_1_all", "prelim/9", "prelim/10", "final/1"]
    assert classify(paths).cells["cell_id"].to_list() == expected
    assert classify(paths[::-1]).cells["cell_id"].to_list() == expected
    assert sorted(["H10", "H2", "3"], key=natural_key) == ["3", "H2", "H10"]


def test_the_same_cell_twice_is_refused_with_both_paths() -> None:
    paths = ["a/fold_0/all/UID_1_1_1_all.bmp", "b/fold_0/all/UID_1_1_1_all.bmp"]
    with pytest.raises(CnmcError, match=r"a/fold_0\S* and b/fold_0\S*"):
        classify(paths)


def test_folder_label() -> None:
    assert folder_label("fold_0/ALL/x.bmp") == 1
    assert folder_label("all/hem/x.bmp") == 0
    assert folder_label("phase2/x.bmp") is None


def test_labels_are_joined_by_name_not_by_row(tmp_path: Path) -> None:
    rows = [("UID_H9_1_1_hem.bmp", "10.bmp", 0), ("UID_7_2_1_all.bmp", "2.bmp", 1)]
    labels = read_labels(write_labels(tmp_path / "phase2.csv", rows))
    paths = ["phase2/2.bmp", "phase2/10.BMP", "phase2/11.bmp", "phase3/2.bmp"]
    found = classify(paths, labels)
    rows_of = by_id(found.cells)
    assert (rows_of["prelim/2"]["subject"], rows_of["prelim/2"]["label"]) == ("7", 1)
    assert (rows_of["prelim/10"]["subject"], rows_of["prelim/10"]["label"]) == ("H9", 0)
    assert rows_of["prelim/10"]["original_name"] == "UID_H9_1_1_hem.bmp"
    assert pd.isna(rows_of["prelim/11"]["label"])
    assert pd.isna(rows_of["final/2"]["label"])
    assert found.labels_without_image == ()
    assert classify(paths[1:], labels).labels_without_image == ("2.bmp",)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name,label\n1.bmp,1\n", "Patient_ID, new_names, labels"),
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
        read_labels(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_in_the_label_file_does_no_harm(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "phase2.csv")
    before = read_labels(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    pd.testing.assert_frame_equal(read_labels(path), before)


@pytest.mark.real
def test_the_real_names(real_train_files: Path) -> None:
    cells = real_training_cells(real_train_files)
    by_class = cells.groupby("label")
    assert by_class.size().to_dict() == {0: 3389, 1: 7272}
    assert by_class["subject"].nunique().to_dict() == {0: 26, 1: 47}
    assert (cells["subject"] == "H3").sum() == 36
    assert cells.groupby("fold")["label"].sum().to_dict() == {
        "fold_0": 2397,
        "fold_1": 2418,
        "fold_2": 2457,
    }


@pytest.mark.real
def test_the_real_label_file(real_prelim_labels: Path) -> None:
    labels = read_labels(real_prelim_labels)
    names = [f"C-NMC_test_prelim_phase_data/{number}.bmp" for number in range(1867, 0, -1)]
    found = classify(names, labels)
    cells = found.cells
    by_class = cells.groupby("label")
    assert found.labels_without_image == ()
    assert by_class.size().to_dict() == {0: 648, 1: 1219}
    assert by_class["subject"].nunique().to_dict() == {0: 15, 1: 13}
    second = by_id(cells)["prelim/2"]
    assert (second["subject"], second["label"]) == ("57", 1)
    assert second["original_name"] == "UID_57_22_2_all.bmp"

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cnmc.data.composition import TABLE1, composition, format_composition
from cnmc.data.manifest import load_manifest

from .trees import real_training_cells, table, write_release


def test_counts(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data")
    cells = load_manifest(root, tmp_path / "work", num_workers=1, show_progress=False).cells
    assert composition(cells).to_numpy().tolist() == [
        [3, 3, 4, 3, 0],
        [2, 2, 2, 2, 0],
        [0, 0, 0, 0, 3],
    ]


def test_a_subject_of_both_classes_counts_in_both() -> None:
    counts = composition(table([("1", 1, 2), ("1", 0, 3)]))
    assert counts.to_numpy()[0].tolist() == [1, 1, 2, 3, 0]


def test_layout() -> None:
    counts = composition(table([("1", 1, 1234), ("H1", 0, 7)]))
    lines = format_composition(counts).splitlines()
    assert {len(line) for line in lines[:5]} == {80}
    assert " ".join(lines[2].split()) == "Train 1 47 1 26 1,234 7,272 7 3,389 0 -"
    assert " ".join(lines[4].split()) == "Final test 0 9 0 8 0 ? 0 ? 0 2,586"
    assert all(len(line) <= 80 for line in lines)


def test_missing_numbers_are_listed() -> None:
    text = format_composition(composition(table([("1", 1, 1234), ("H1", 0, 3390)])))
    text = " ".join(text.split())
    assert "Train: missing 46 ALL subjects, 25 HEM subjects, 6,038 ALL cells." in text
    assert "Train: beyond Table 1 1 HEM cells." in text
    assert "Prelim. test: missing as a whole." in text
    assert "Final test: missing as a whole." in text


def test_images_without_labels_are_listed() -> None:
    cells = table([], [("", 1, 3)])
    cells["label"] = pd.Series([pd.NA] * 3, dtype="Int8")
    assert "Prelim. test: labels missing." in format_composition(composition(cells))


def test_the_complete_release() -> None:
    text = format_composition(TABLE1.fillna(0))
    assert text.splitlines()[-3:] == [
        "Train: complete.",
        "Prelim. test: complete.",
        "Final test: complete.",
    ]


@pytest.mark.real
def test_the_real_names_fill_table_1(real_train_files: Path) -> None:
    counts = composition(real_training_cells(real_train_files))
    pd.testing.assert_frame_equal(counts.loc[["train"]], TABLE1.loc[["train"]])
    assert "Train: complete." in format_composition(counts)


@pytest.mark.real
def test_the_real_cells(real_data_root: Path, tmp_path: Path) -> None:
    manifest = load_manifest(real_data_root, tmp_path, num_workers=2, show_progress=False)
    assert composition(manifest.cells).to_numpy()[0].tolist() == [6, 2, 828, 790, 0]
    assert (manifest.cells[["width", "height"]] == 450).all(axis=None)
    assert (manifest.cells["error"] == "").all()

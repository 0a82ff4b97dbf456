from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cnmc.data.audit import TABLE1, composition, format_composition
from cnmc.data.manifest import load_manifest

from .trees import real_training_cells, table, write_release


def test_counts(tmp_path: Path) -> None:
    root = write_release(tmp_path / "data")
    cells = load_manifest(root, tmp_path / "work", num_workers=1).cells
    assert composition(cells).to_numpy().tolist() == [
        [3, 3, 4, 3, 0],
        [2, 2, 2, 2, 0],
        [0, 0, 0, 0, 3],
    ]


def test_a_subject_of_both_classes_counts_in_both() -> None:
    counts = composition(table([("1", 1, 2), ("1", 0, 3)]))
    assert counts.to_numpy()[0].tolist() == [1, 1, 2, 3, 0]


def test_layout() -> None:
    lines = format_composition(composition(table([("1", 1, 1234), ("H1", 0, 7)]))).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "1,234 / 7,272" in lines[3]
    assert "0 / 2,586" in lines[5]


@pytest.mark.real
def test_the_real_names_fill_table_1(real_train_files: Path) -> None:
    counts = composition(real_training_cells(real_train_files))
    pd.testing.assert_frame_equal(counts.loc[["train"]], TABLE1.loc[["train"]])


@pytest.mark.real
def test_the_real_cells(real_data_root: Path, tmp_path: Path) -> None:
    manifest = load_manifest(real_data_root, tmp_path, num_workers=2)
    assert composition(manifest.cells).to_numpy()[0].tolist() == [6, 2, 828, 790, 0]
    assert (manifest.cells[["width", "height"]] == 450).all(axis=None)
    assert (manifest.cells["error"] == "").all()

"""Finding the cells of the runs, and showing some of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from cnmc.analysis.loading import read_study
from cnmc.analysis.results import Study
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.reporting import findings as findings_module
from cnmc.reporting.document import Figure, Table
from cnmc.reporting.findings import Findings
from cnmc.reporting.pictures import _examples, figure1, hardest_cells, table1
from tests.data.trees import write_bmp, write_release
from tests.studies import Subjects, write_run


def load(root: Path, work_dir: Path) -> Manifest:
    return load_manifest(root, work_dir, num_workers=1)


@pytest.fixture
def release(tmp_path: Path) -> Manifest:
    """A small release, whose manifest is kept in ``work``."""
    return load(write_release(tmp_path / "data"), tmp_path / "work")


def findings_of(manifest: Manifest | str, study: Study | None = None) -> Findings:
    findings = Findings(cast("Study", study))
    # The cells are cached properties.
    vars(findings).update(cells=manifest, _config={"crop": 40})
    return findings


def cells_of_runs(tmp_path: Path, fingerprint: str, work_dir: str, data: Path) -> Manifest | str:
    """Return the cells that a report finds for a run with this fingerprint."""
    config = {"data": {"root": None, "work_dir": str(tmp_path / work_dir)}}
    shutil.rmtree(tmp_path.with_name("runs"), ignore_errors=True)
    runs = tmp_path.with_name("runs")
    write_run(runs, "proposal", 0, num_epochs=1, manifest_fingerprint=fingerprint, config=config)
    return Findings(read_study(runs), data).cells


def test_the_cells_are_found_without_reading_or_writing(
    release: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(findings_module, "MAX_READS", 0)
    found = cells_of_runs(tmp_path, release.fingerprint, "work", release.root)
    assert isinstance(found, Manifest)
    assert found.fingerprint == release.fingerprint
    assert isinstance(cells_of_runs(tmp_path, release.fingerprint, "none", release.root), str)
    assert sorted(tmp_path.rglob("*")) == before


def test_other_and_missing_cells_are_named(release: Manifest, tmp_path: Path) -> None:
    other = cells_of_runs(tmp_path, "e" * 64, "work", release.root)
    assert isinstance(other, str)
    assert release.fingerprint[:12] in other
    assert "e" * 12 in other
    gone = cells_of_runs(tmp_path, release.fingerprint, "work", tmp_path / "gone")
    assert isinstance(gone, str)
    assert str(tmp_path / "gone") in gone
    assert "\n" not in gone


def test_table1_is_beside_the_papers(release: Manifest) -> None:
    table = table1(findings_of(release))
    assert isinstance(table, Table)
    assert table.formatted().to_numpy().tolist() == [
        ["Train", "3 / 47", "3 / 26", "4 / 7,272", "3 / 3,389", "0 / 0"],
        ["Prelim. test", "2 / 13", "2 / 15", "2 / 1,219", "2 / 648", "0 / 0"],
        ["Final test", "? / 9", "? / 8", "? / ?", "? / ?", "3 / 2,586"],
    ]
    assert table1(findings_of("gone")) == "Table 1 and Figure 1 are not shown: gone"


def test_the_examples_are_of_median_and_extreme_area(tmp_path: Path) -> None:
    for radius in (20, 5, 10, 15, 25):
        for name, shift in (("all", 0), ("hem", 1)):
            image = np.zeros((90, 90, 3), np.uint8)
            cv2.circle(image, (45, 45), radius + shift, (60, 20, 80), -1)
            write_bmp(tmp_path / "data/fold_0" / name / f"UID_{radius}_1_1_{name}.bmp", image)
    examples = _examples(load(tmp_path / "data", tmp_path / "work"))
    stems = [Path(path).stem for _, path, _ in examples]
    assert stems == ["UID_15_1_1_all", "UID_15_1_1_hem", "UID_5_1_1_all", "UID_25_1_1_hem"]


def test_figure1_shows_what_there_is(release: Manifest) -> None:
    figure = figure1(findings_of(release))
    assert isinstance(figure, Figure)
    assert figure.svg.count("<image") == 4
    assert "doi:10.7937" in figure.note
    part = release.cells["part"]
    assert figure1(findings_of(replace(release, cells=release.cells[part != "train"]))) == ""
    shutil.rmtree(release.root)
    assert figure1(findings_of(release)) == ""


def test_the_cells_that_most_runs_get_wrong_are_shown(release: Manifest, tmp_path: Path) -> None:
    subjects = Subjects({"53": 4}, {"H25": 4})
    write_run(tmp_path / "runs", "proposal", 0, signal=-9.0, subjects=subjects)
    study = read_study(tmp_path / "runs")
    wrong = study.reference.cells["cell_id"].to_list()
    cells = release.cells.head(6).assign(cell_id=wrong[:6])
    sheet = hardest_cells(findings_of(replace(release, cells=cells), study))
    assert isinstance(sheet, Figure)
    assert sheet.svg.count("<image") == 6
    assert isinstance(hardest_cells(findings_of("gone", study)), str)

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pandas as pd
import pytest

import cnmc.data.manifest as manifest_module
from cnmc.config import SyntheticConfig
from cnmc.data.images import Pixels
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.sources.synthetic import generate
from cnmc.errors import CnmcError
from cnmc.reporting import cells as cells_module
from cnmc.reporting.cells import Absent, find_data, table1
from cnmc.reporting.document import Figure
from cnmc.reporting.examples import choose_examples, measure
from cnmc.reporting.pictures import error_sheet, figure1
from tests.data.trees import by_id, write_bmp, write_release

SIDE = 90


def disc(
    radius: int = 25, *, cut: int = 0, pale: int = 0, color: tuple[int, int, int] = (60, 20, 80)
) -> Pixels:
    """Draw a cell; a cut takes rows off its top, a pale spot is left-over background."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    middle = SIDE // 2
    cv2.circle(image, (middle, middle), radius, color, -1)
    if cut:
        image[: middle - radius + cut] = 0
    if pale:
        cv2.circle(image, (middle + radius, middle), pale, (110, 90, 100), -1)
    return image


def load(root: Path, work_dir: Path) -> Manifest:
    return load_manifest(root, work_dir, num_workers=1, show_progress=False)


def write_cells(root: Path, cells: dict[str, Pixels]) -> Manifest:
    for stem, image in cells.items():
        write_bmp(root / "fold_0" / stem.rsplit("_", 1)[1] / f"{stem}.bmp", image)
    return load(root, root.with_name("work"))


def hardest_of(manifest: Manifest) -> pd.DataFrame:
    cells = manifest.cells[manifest.cells["label"].notna()]
    return pd.DataFrame(
        {
            "cell_id": cells["cell_id"],
            "subject": cells["subject"],
            "label": cells["label"].astype(int),
            "wrong_share": np.linspace(1.0, 0.5, len(cells)),
            "mean_probability": np.linspace(0.1, 0.9, len(cells)),
        }
    )


def assert_well_made(figure: Figure | None, num_images: int) -> Figure:
    assert figure is not None
    root = ET.fromstring(figure.svg)  # noqa: S314
    images = list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert len(images) == num_images
    assert figure.png.startswith(b"\x89PNG")
    assert figure.alt
    return figure


@pytest.fixture
def release(tmp_path: Path) -> Manifest:
    """A small release of noise, whose manifest is kept in ``work``."""
    return load(write_release(tmp_path / "data"), tmp_path / "work")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("generated")
    composition = SyntheticConfig(
        image_size=96,
        train_subjects_all=3,
        train_subjects_hem=3,
        train_cells_all=30,
        train_cells_hem=30,
        prelim_subjects_all=1,
        prelim_subjects_hem=1,
        prelim_cells_all=3,
        prelim_cells_hem=3,
        final_subjects_all=1,
        final_subjects_hem=1,
        final_cells_all=1,
        final_cells_hem=1,
    )
    generate(folder / "data", composition, num_workers=1, show_progress=False)
    return load(folder / "data", folder / "work")


@pytest.fixture(scope="module")
def full_sheet(generated: Manifest) -> Figure:
    return assert_well_made(error_sheet(generated, hardest_of(generated), crop=64), num_images=24)


# Finding the data


def test_data_of_the_runs_is_found_without_reading_it_again(
    release: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(manifest_module, "_read", None)
    found = find_data(release.root, tmp_path / "work", release.fingerprint)
    assert isinstance(found, Manifest)
    assert found.fingerprint == release.fingerprint
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_absent_folder_is_told(tmp_path: Path) -> None:
    found = find_data(tmp_path / "none", tmp_path / "work", "0" * 64)
    assert found == Absent(f"data.root={tmp_path / 'none'}: no such folder here")
    assert not any(tmp_path.iterdir())


def test_other_data_is_told_with_both_fingerprints(release: Manifest, tmp_path: Path) -> None:
    found = find_data(release.root, tmp_path / "work", "0123456789abcdef")
    assert isinstance(found, Absent)
    assert release.fingerprint[:12] in found.reason
    assert "theirs is 0123456789ab" in found.reason


def test_a_work_dir_that_is_gone_is_not_made(release: Manifest, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "work")
    found = find_data(release.root, tmp_path / "work", release.fingerprint)
    assert isinstance(found, Manifest)
    assert not (tmp_path / "work").exists()


def test_a_work_dir_that_cannot_be_written_is_no_hindrance(
    release: Manifest, tmp_path: Path
) -> None:
    write_bmp(release.root / "fold_0" / "all" / "UID_9_1_1_all.bmp", disc())
    changed = load(release.root, tmp_path / "other").fingerprint
    below_a_file = tmp_path / "file" / "work"
    below_a_file.parent.write_bytes(b"")
    with pytest.raises(CnmcError):
        load(release.root, below_a_file)
    assert isinstance(find_data(release.root, below_a_file, changed), Manifest)


def test_a_deleted_image_makes_it_other_data(release: Manifest, tmp_path: Path) -> None:
    (release.root / release.cells["path"].iloc[0]).unlink()
    found = find_data(release.root, tmp_path / "work", release.fingerprint)
    assert isinstance(found, Absent)
    assert "other cells" in found.reason


def test_broken_data_is_told_in_one_line(release: Manifest, tmp_path: Path) -> None:
    (release.root / release.found.label_file).write_text("a,b\n1,2\n")
    found = find_data(release.root, tmp_path / "work", release.fingerprint)
    assert isinstance(found, Absent)
    assert "Patient_ID" in found.reason
    assert "\n" not in found.reason
    (tmp_path / "empty").mkdir()
    assert isinstance(find_data(tmp_path / "empty", tmp_path, ""), Absent)
    assert isinstance(find_data(Path("a\0b"), tmp_path, ""), Absent)


def test_a_report_does_not_read_a_whole_release(
    release: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells_module, "MAX_READS", len(release.cells) - 1)
    found = find_data(release.root, tmp_path / "none", release.fingerprint)
    assert isinstance(found, Absent)
    assert "python -m cnmc.prepare" in found.reason
    assert isinstance(find_data(release.root, tmp_path / "work", release.fingerprint), Manifest)


# Table 1


def test_table1_stands_beside_the_papers(release: Manifest) -> None:
    table = table1(release)
    assert table.shown() == [
        ["Train", "3 / 47", "3 / 26", "4 / 7,272", "3 / 3,389", "0 / 0"],
        ["Prelim. test", "2 / 13", "2 / 15", "2 / 1,219", "2 / 648", "0 / 0"],
        ["Final test", "? / 9", "? / 8", "? / ?", "? / ?", "3 / 2,586"],
    ]
    assert table.frame["part"].to_list() == ["train", "prelim", "final"]
    assert table.frame["cells_all"].to_list() == [4, 2, 0]
    assert table.frame["published_cells_all"].to_list()[:2] == [7272, 1219]
    assert pd.isna(table.frame["published_cells_all"].iloc[2])


# Figure 1


def test_measures() -> None:
    whole, cut, pale = measure(disc()), measure(disc(cut=20)), measure(disc(pale=12))
    assert whole is not None
    assert cut is not None
    assert pale is not None
    assert whole.area == pytest.approx(np.pi * 25**2 / SIDE**2, rel=0.05)
    assert whole.solidity > 0.97
    assert whole.straight < 0.3
    assert whole.pale == 0.0
    assert cut.straight == pytest.approx(
        48 / np.sqrt(4 * (disc(cut=20) > 0)[..., 0].sum() / np.pi), rel=0.1
    )
    assert pale.pale > 0.1
    assert measure(np.zeros((9, 9, 3), np.uint8)) is None
    single = np.zeros((301, 301, 3), np.uint8)
    single[1, 1] = 1
    assert measure(single) is not None


def test_the_rules_find_what_they_are_for(tmp_path: Path) -> None:
    cells = {f"UID_{n}_1_1_all": disc(20 + n) for n in range(1, 10)}
    cells |= {f"UID_H{n}_1_1_hem": disc(15 + n) for n in range(1, 10)}
    cells |= {"UID_20_1_1_all": disc(25, cut=15), "UID_H20_1_1_hem": disc(20, pale=12)}
    cells |= {"UID_21_1_1_all": np.zeros((SIDE, SIDE, 3), np.uint8)}
    examples = choose_examples(write_cells(tmp_path / "data", cells))
    assert [example.panel for example in examples] == list("abcd")
    assert [example.words[1] for example in examples] == [
        "typical",
        "typical",
        "part cut off",
        "superfluous background",
    ]
    assert [Path(example.path).stem for example in examples[2:]] == [
        "UID_20_1_1_all",
        "UID_H20_1_1_hem",
    ]


def test_what_is_not_to_be_seen_is_not_claimed(tmp_path: Path) -> None:
    cells = {f"UID_{n}_1_1_all": disc(28 + n) for n in range(1, 10)}
    cells |= {f"UID_H{n}_1_1_hem": disc(28 + n) for n in range(1, 10)}
    examples = choose_examples(write_cells(tmp_path / "data", cells))
    assert examples[3].words == ("normal cell", "most pale pixels")


def test_figure1_says_its_rules_and_files(generated: Manifest) -> None:
    figure = assert_well_made(figure1(generated, crop=64), num_images=4)
    assert figure.note.count(".bmp") == 4
    assert "Chosen by rules" in figure.note
    assert "64 x 64" in figure.note
    assert figure.note.endswith("Cells: generated, none is of a person.")
    assert "doi:10.7937" not in figure.note
    assert "<text" not in figure.svg


def test_the_same_data_give_the_same_bytes(generated: Manifest) -> None:
    assert figure1(generated, crop=64) == figure1(generated, crop=64)
    hardest = hardest_of(generated).head(3)
    assert error_sheet(generated, hardest, crop=64) == error_sheet(generated, hardest, crop=64)


def test_one_class_only(tmp_path: Path) -> None:
    manifest = write_cells(tmp_path / "data", {f"UID_{n}_1_1_all": disc(20 + n) for n in range(5)})
    figure = assert_well_made(figure1(manifest, crop=64), num_images=2)
    assert "No cell in the training part for (b), (d)." in figure.note
    assert "doi:10.7937" in figure.note


def test_a_single_cell(tmp_path: Path) -> None:
    manifest = write_cells(tmp_path / "data", {"UID_1_1_1_all": disc()})
    assert_well_made(figure1(manifest, crop=SIDE), num_images=1)


def test_no_training_part(release: Manifest) -> None:
    cells = release.cells
    without = replace(release, cells=cells[cells["part"] != "train"])
    assert figure1(without, crop=40) is None


def test_images_that_were_deleted_meanwhile(release: Manifest) -> None:
    shutil.rmtree(release.root)
    assert figure1(release, crop=40) is None
    assert error_sheet(release, hardest_of(release), crop=40) is None


# The cells that most runs get wrong


def test_error_sheet(generated: Manifest, full_sheet: Figure) -> None:
    first = generated.cells["cell_id"].iloc[0]
    assert f"first: {first} (ALL, 100 % wrong)" in full_sheet.alt
    assert "left out" not in full_sheet.note
    assert len(full_sheet.svg) < 700_000


def test_fewer_cells_than_the_grid(generated: Manifest, full_sheet: Figure) -> None:
    few = assert_well_made(error_sheet(generated, hardest_of(generated).head(7), crop=64), 7)
    assert height(few) < 0.6 * height(full_sheet)
    assert error_sheet(generated, hardest_of(generated).head(0), crop=64) is None


def height(figure: Figure) -> int:
    return int.from_bytes(figure.png[20:24], "big")


def test_missing_images_are_left_out_and_counted(release: Manifest) -> None:
    hardest = hardest_of(release).head(5)
    hardest.loc[hardest.index[0], "cell_id"] = "train/unknown"
    paths = by_id(release.cells)
    (release.root / paths[hardest["cell_id"].iloc[1]]["path"]).unlink()
    (release.root / paths[hardest["cell_id"].iloc[2]]["path"]).write_bytes(b"BM")
    figure = assert_well_made(error_sheet(release, hardest, crop=40), len(hardest) - 3)
    assert "3 cells are left out" in figure.note
    figure = assert_well_made(error_sheet(release, hardest.iloc[2:], crop=40), len(hardest) - 3)
    assert "1 cell is left out" in figure.note


def test_a_crop_beyond_the_image_shows_it_all(release: Manifest) -> None:
    assert_well_made(error_sheet(release, hardest_of(release).head(1), crop=300), num_images=1)
    figure = assert_well_made(figure1(release, crop=300), num_images=4)
    assert "Dashed" not in figure.note


@pytest.mark.parametrize(
    "name", ["$x^2$", r"$\frac{", "a<b>&'\"--", "x" * 200, "\x01\n\t", "H\u00e9"]
)
def test_odd_names_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    manifest = write_cells(tmp_path / "data", {"UID_1_1_1_all": disc()})
    cells = manifest.cells.copy()
    cells["cell_id"] = f"train/{name}"
    hardest = hardest_of(manifest).assign(cell_id=f"train/{name}", subject=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_well_made(error_sheet(replace(manifest, cells=cells), hardest, crop=64), 1)


def test_what_is_not_known_is_drawn_as_such(tmp_path: Path) -> None:
    manifest = write_cells(tmp_path / "data", {"UID_1_1_1_all": disc()})
    hardest = hardest_of(manifest).assign(
        subject="",
        label=pd.array([None], dtype="Int8"),
        wrong_share=np.nan,
        mean_probability=np.nan,
    )
    figure = assert_well_made(error_sheet(manifest, hardest, crop=64), num_images=1)
    assert "(?, ? % wrong)" in figure.alt


def test_importing_needs_no_torch_and_no_pyplot() -> None:
    code = (
        "import sys, cnmc.reporting.pictures; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib.pyplot')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
def test_real_cells(real_data_root: Path, tmp_path: Path) -> None:
    files = sorted(real_data_root.rglob("UID_3[02]_*_all.bmp"))[:60]
    files += sorted(real_data_root.rglob("UID_H10_*_hem.bmp"))[:60]
    cut = next(real_data_root.rglob("UID_32_9_1_all.bmp"))
    for file in {*files, cut}:
        target = tmp_path / "data" / file.relative_to(real_data_root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)
    manifest = load(tmp_path / "data", tmp_path / "work")
    figure = assert_well_made(figure1(manifest, crop=300), num_images=4)
    assert "(c) UID_32_9_1_all.bmp" in figure.note
    assert "doi:10.7937/tcia.2019.dc64i46r" in figure.note
    assert len(figure.svg) < 700_000
    sheet = assert_well_made(error_sheet(manifest, hardest_of(manifest), crop=300), num_images=24)
    assert len(sheet.svg) < 700_000

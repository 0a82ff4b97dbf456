from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from cnmc.config.groups import SyntheticConfig
from cnmc.data.names import parse_uid
from cnmc.data.sources import synthetic
from cnmc.data.sources.synthetic import MARKER, generate
from cnmc.data.sources.synthetic_cells import draw_cell
from cnmc.errors import CnmcError

SMALL = SyntheticConfig(
    seed=3,
    image_size=60,
    train_subjects_all=5,
    train_subjects_hem=4,
    train_cells_all=30,
    train_cells_hem=17,
    prelim_subjects_all=3,
    prelim_subjects_hem=2,
    prelim_cells_all=8,
    prelim_cells_hem=5,
    final_subjects_all=1,
    final_subjects_hem=2,
    final_cells_all=3,
    final_cells_hem=4,
)
PRELIM = "C-NMC_test_prelim_phase_data"
FINAL = "C-NMC_test_final_phase_data"


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def uid(name: str) -> tuple[str, int]:
    parsed = parse_uid(name)
    assert parsed is not None, name
    return parsed.subject, parsed.label


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "cells"
    generate(root, SMALL, num_workers=1, show_progress=False)
    return root


def test_training_part_has_the_composition_and_names_of_the_release(root: Path) -> None:
    cells: Counter[int] = Counter()
    folds: dict[str, set[str]] = {}
    for path in (root / "C-NMC_training_data").rglob("*.bmp"):
        fold, folder, name = path.relative_to(root / "C-NMC_training_data").parts
        subject, label = uid(name)
        assert folder == ("all" if label else "hem")
        assert subject.startswith("H") != bool(label)
        cells[label] += 1
        folds.setdefault(subject, set()).add(fold)
    assert cells == {1: 30, 0: 17}
    assert Counter(subject[0] == "H" for subject in folds) == {False: 5, True: 4}
    assert all(len(in_folds) == 1 for in_folds in folds.values())
    assert set.union(*folds.values()) == {"fold_0", "fold_1", "fold_2"}


def test_label_file_names_every_preliminary_image_once(root: Path) -> None:
    text = (root / f"{PRELIM}_labels.csv").read_bytes().decode()
    assert text.count("\n") == text.count("\r\n") == 14
    header, *rows = [line.split(",") for line in text.splitlines()]
    assert header == ["Patient_ID", "new_names", "labels"]
    assert [row[1] for row in rows] == [f"{number}.bmp" for number in range(1, 14)]
    assert {path.name for path in (root / PRELIM / PRELIM).iterdir()} == {row[1] for row in rows}
    assert all(uid(row[0])[1] == int(row[2]) for row in rows)
    assert Counter(row[2] for row in rows) == {"1": 8, "0": 5}
    # In no order of class, as released: a join by row number must not happen to work.
    assert [row[2] for row in rows] != sorted((row[2] for row in rows), reverse=True)
    training = {uid(path.name)[0] for path in (root / "C-NMC_training_data").rglob("*.bmp")}
    subjects = {uid(row[0])[0] for row in rows}
    assert len(subjects) == 5
    assert training.isdisjoint(subjects)


def test_final_part_is_larger_and_unlabelled(root: Path) -> None:
    names = {path.name for path in (root / FINAL / FINAL).iterdir()}
    assert names == {f"{number}.bmp" for number in range(1, 8)}
    image = cv2.imread(str(root / FINAL / FINAL / "1.bmp"))
    assert image is not None
    assert image.shape == (80, 80, 3)
    # Red and blue are not exchanged.
    blue, green, red = image[image.any(axis=2)].mean(axis=0)
    assert blue > red > green


def test_files_depend_on_neither_workers_nor_the_number_of_other_cells(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "two").mkdir()
    generate(tmp_path / "two", SMALL, num_workers=2, show_progress=False)
    assert contents(tmp_path / "two") == contents(root)
    fewer = replace(SMALL, prelim_cells_hem=2, final_cells_all=1)
    generate(tmp_path / "fewer", fewer, show_progress=False)
    training = {n: data for n, data in contents(root).items() if n.startswith("C-NMC_training")}
    assert training.items() <= contents(tmp_path / "fewer").items()


def test_part_without_cells_is_left_out(tmp_path: Path) -> None:
    keys = ("subjects_all", "subjects_hem", "cells_all", "cells_hem")
    nothing: dict[str, Any] = {f"{part}_{k}": 0 for part in ("prelim", "final") for k in keys}
    generate(tmp_path / "cells", replace(SMALL, **nothing), show_progress=False)
    assert {p.name for p in (tmp_path / "cells").iterdir()} == {"C-NMC_training_data", MARKER}


def test_table_1_is_planned_exactly() -> None:
    cells = synthetic._plan(SyntheticConfig())
    expected = {(0, 1): 7272, (0, 0): 3389, (1, 1): 1219, (1, 0): 648, (2, 1): 1761, (2, 0): 825}
    assert Counter(key[:2] for key, _, _ in cells) == expected
    subjects = Counter(key[:2] for key in {key[:3] for key, _, _ in cells})
    assert subjects == {(0, 1): 47, (0, 0): 26, (1, 1): 13, (1, 0): 15, (2, 1): 9, (2, 0): 8}
    assert len({path for _, _, path in cells}) == len(cells) == 10_661 + 1_867 + 2_586
    by_fold = Counter(path.split("/")[1] for key, _, path in cells if key[0] == 0)
    assert all(3200 < count < 3900 for count in by_fold.values())


def test_other_composition_is_refused_with_the_keys(root: Path) -> None:
    before = contents(root)
    generate(root, SMALL, show_progress=False)
    with pytest.raises(CnmcError, match=r"seed=3, .*prelim_cells_all=8;") as error:
        generate(root, replace(SMALL, seed=9, prelim_cells_all=7), show_progress=False)
    assert "train_cells_all" not in str(error.value)
    assert contents(root) == before


def test_folder_with_anything_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt" / "cells"):
        with pytest.raises(CnmcError, match=rf"data\.root={path}:"):
            generate(path, SMALL, show_progress=False)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "draw_cell", stop)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "cells", SMALL, num_workers=1, show_progress=False)
    assert {path.name for path in tmp_path.iterdir()} <= {"cells.lock"}


def test_of_two_at_once_one_generates(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def counted(*args: Any) -> Any:
        drawn.append(1)
        return draw_cell(*args)

    def run() -> None:
        generate(tmp_path / "cells", SMALL, num_workers=1, show_progress=False)

    monkeypatch.setattr(synthetic, "draw_cell", counted)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 67
    assert contents(tmp_path / "cells") == contents(root)

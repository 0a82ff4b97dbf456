from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from cnmc.config import SyntheticConfig
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
    labels: dict[str, int] = {}
    for path in (root / "C-NMC_training_data").rglob("*.bmp"):
        fold, folder, name = path.relative_to(root / "C-NMC_training_data").parts
        subject, label = uid(name)
        assert folder == ("all" if label else "hem")
        assert fold in {"fold_0", "fold_1", "fold_2"}
        assert subject.startswith("H") != bool(label)
        assert subject.removeprefix("H").isdigit()
        cells[label] += 1
        folds.setdefault(subject, set()).add(fold)
        labels[subject] = label
    assert cells == {1: 30, 0: 17}
    assert Counter(labels.values()) == {1: 5, 0: 4}
    assert all(len(in_folds) == 1 for in_folds in folds.values())
    assert set.union(*folds.values()) == {"fold_0", "fold_1", "fold_2"}


def test_label_file_names_every_preliminary_image_once(root: Path) -> None:
    text = (root / f"{PRELIM}_labels.csv").read_bytes().decode()
    assert text.endswith("\r\n")
    assert text.count("\n") == text.count("\r\n") == 14
    header, *rows = [line.split(",") for line in text.splitlines()]
    assert header == ["Patient_ID", "new_names", "labels"]
    names = {path.name for path in (root / PRELIM / PRELIM).iterdir()}
    assert [row[1] for row in rows] == [f"{number}.bmp" for number in range(1, 14)]
    assert names == {row[1] for row in rows}
    assert all(uid(row[0])[1] == int(row[2]) for row in rows)
    assert Counter(row[2] for row in rows) == {"1": 8, "0": 5}
    assert len({uid(row[0])[0] for row in rows}) == 5
    # In no order of class, as released: a join by row number must not happen to work.
    assert [row[2] for row in rows] != sorted((row[2] for row in rows), reverse=True)


def test_parts_share_no_subject(root: Path) -> None:
    training = {uid(p.name)[0] for p in (root / "C-NMC_training_data").rglob("*.bmp")}
    lines = (root / f"{PRELIM}_labels.csv").read_text().splitlines()[1:]
    assert training.isdisjoint({uid(line.split(",")[0])[0] for line in lines})


def test_final_part_is_larger_and_unlabelled(root: Path) -> None:
    names = {path.name for path in (root / FINAL / FINAL).iterdir()}
    assert names == {f"{number}.bmp" for number in range(1, 8)}
    image = cv2.imread(str(root / FINAL / FINAL / "1.bmp"))
    assert image is not None
    assert image.shape == (80, 80, 3)
    assert not list(root.glob("*final*.csv"))


def test_no_two_images_are_equal(root: Path) -> None:
    images = [data for name, data in contents(root).items() if name.endswith(".bmp")]
    assert len(images) == 67
    assert len(set(images)) == 67


def test_red_and_blue_are_not_exchanged(root: Path) -> None:
    image = cv2.imread(str(next((root / "C-NMC_training_data").rglob("*.bmp"))))
    assert image is not None
    blue, green, red = image[image.any(axis=2)].mean(axis=0)
    assert blue > red > green


def test_files_depend_on_neither_workers_nor_the_number_of_other_cells(
    root: Path, tmp_path: Path
) -> None:
    generate(tmp_path / "two", SMALL, num_workers=2, show_progress=False)
    assert contents(tmp_path / "two") == contents(root)
    fewer = replace(SMALL, prelim_cells_hem=2, final_cells_all=1)
    generate(tmp_path / "fewer", fewer, show_progress=False)
    training = {n: data for n, data in contents(root).items() if n.startswith("C-NMC_training")}
    assert training.items() <= contents(tmp_path / "fewer").items()


def test_other_seed_other_files(root: Path, tmp_path: Path) -> None:
    generate(tmp_path / "cells", replace(SMALL, seed=4), show_progress=False)
    before = {data for name, data in contents(root).items() if name.endswith(".bmp")}
    assert before.isdisjoint(contents(tmp_path / "cells").values())


def test_part_without_cells_is_left_out(tmp_path: Path) -> None:
    keys = ("subjects_all", "subjects_hem", "cells_all", "cells_hem")
    nothing: dict[str, Any] = {f"{part}_{k}": 0 for part in ("prelim", "final") for k in keys}
    generate(tmp_path / "cells", replace(SMALL, **nothing), show_progress=False)
    assert {p.name for p in (tmp_path / "cells").iterdir()} == {"C-NMC_training_data", MARKER}


def test_table_1_is_planned_exactly() -> None:
    cells = synthetic._plan(SyntheticConfig())
    assert Counter((cell.part, cell.label) for cell in cells) == {
        (0, 1): 7272,
        (0, 0): 3389,
        (1, 1): 1219,
        (1, 0): 648,
        (2, 1): 1761,
        (2, 0): 825,
    }
    subjects = Counter(
        (part, label) for part, label, _ in {(c.part, c.label, c.subject) for c in cells}
    )
    assert subjects == {(0, 1): 47, (0, 0): 26, (1, 1): 13, (1, 0): 15, (2, 1): 9, (2, 0): 8}
    assert len({cell.path for cell in cells}) == len(cells) == 10_661 + 1_867 + 2_586
    by_fold = Counter(cell.path.split("/")[1] for cell in cells if cell.part == 0)
    assert all(3200 < count < 3900 for count in by_fold.values())


def test_same_composition_again_changes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(synthetic, "draw_cell", refuse)
    before = contents(root)
    generate(root, SMALL, show_progress=False)
    assert contents(root) == before


def test_other_composition_is_refused_with_the_keys(root: Path) -> None:
    before = contents(root)
    with pytest.raises(CnmcError) as error:
        generate(root, replace(SMALL, seed=9, prelim_cells_all=7), show_progress=False)
    message = str(error.value)
    assert str(root) in message
    assert "data.synthetic.seed=9 (there 3)" in message
    assert "data.synthetic.prelim_cells_all=7 (there 8)" in message
    assert "train_cells_all" not in message
    assert "\n" not in message
    assert contents(root) == before


def test_folder_with_anything_else_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CnmcError, match="not empty"):
        generate(tmp_path, SMALL, show_progress=False)
    assert contents(tmp_path) == {"notes.txt": b"mine"}
    with pytest.raises(CnmcError, match=r"notes\.txt"):
        generate(tmp_path / "notes.txt", SMALL, show_progress=False)


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_damaged_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(CnmcError, match=MARKER):
        generate(tmp_path, SMALL, show_progress=False)


def test_description_is_the_composition(root: Path) -> None:
    description = json.loads((root / MARKER).read_text())
    assert description.pop("generator") == synthetic.GENERATOR
    assert SyntheticConfig(**description) == SMALL


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    generate(tmp_path / "cells", SMALL, show_progress=False)
    assert (tmp_path / "cells" / MARKER).exists()


def test_interruption_leaves_nothing_and_can_be_repeated(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = 0

    def stop_at_the_fifth(*args: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 5:
            raise KeyboardInterrupt
        return draw_cell(*args)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "draw_cell", stop_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "cells", SMALL, num_workers=1, show_progress=False)
    assert {path.name for path in tmp_path.iterdir()} <= {"cells.lock"}
    # A process that is killed cannot clean up; its remains must not get into the next data set.
    (tmp_path / ".cells.partial").mkdir()
    (tmp_path / ".cells.partial" / "half.bmp").write_bytes(b"BM")
    generate(tmp_path / "cells", SMALL, show_progress=False)
    assert contents(tmp_path / "cells") == contents(root)


def test_of_two_at_once_one_generates(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def counted(*args: Any) -> Any:
        drawn.append(1)
        return draw_cell(*args)

    monkeypatch.setattr(synthetic, "draw_cell", counted)
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        generate(tmp_path / "cells", SMALL, num_workers=1, show_progress=False)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 67
    assert contents(tmp_path / "cells") == contents(root)


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CnmcError, match=r"data\.root=.*file/cells"):
        generate(tmp_path / "file" / "cells", SMALL, show_progress=False)

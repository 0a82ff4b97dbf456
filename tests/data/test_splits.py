from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnmc.config import SplitConfig
from cnmc.data.grouping import groups
from cnmc.data.splits import Split, load_split, make_split
from cnmc.errors import CnmcError

from .trees import real_training_cells, table

TRAIN = [
    ("1", 1, 5),
    ("2", 1, 4),
    ("3", 1, 3),
    ("4", 1, 2),
    ("H1", 0, 3),
    ("H2", 0, 2),
    ("H3", 0, 1),
]
PRELIM = [("7", 1, 2), ("H9", 0, 1)]
KINDS = ("official", "nested", "subject_kfold", "subject_holdout")


def config(kind: str, **keys: object) -> SplitConfig:
    defaults: dict[str, object] = {"num_folds": 3, "val_fraction": 0.3}
    return SplitConfig(kind, **(defaults | keys))  # type: ignore[arg-type]


def roles_by_subject(split: Split) -> dict[str, set[str]]:
    return {str(s): set(roles) for s, roles in split.cells.groupby("subject")["role"]}


def subjects_with(split: Split, role: str) -> set[str]:
    return set(split.cells.loc[split.cells["role"] == role, "subject"])


def test_official() -> None:
    split = make_split(table(TRAIN, PRELIM), config("official"))
    assert split.protocol == "paper"
    assert subjects_with(split, "train") == {subject for subject, _, _ in TRAIN}
    assert subjects_with(split, "val") == {"7", "H9"}
    assert set(split.cells["role"]) == {"train", "val"}


def test_nested() -> None:
    split = make_split(table(TRAIN, PRELIM), config("nested"))
    assert split.protocol == "honest"
    assert subjects_with(split, "test") == {"7", "H9"}
    assert subjects_with(split, "val") | subjects_with(split, "train") == {s for s, _, _ in TRAIN}


def test_folds_part_the_training_cells() -> None:
    cells = table(TRAIN, PRELIM)
    folds = [make_split(cells, config("subject_kfold", fold=fold)) for fold in range(3)]
    held = [subjects_with(split, "val") for split in folds]
    assert sorted(subject for fold in held for subject in fold) == sorted(s for s, _, _ in TRAIN)
    for split in folds:
        assert split.protocol == "paper"
        assert set(split.cells["cell_id"]) == set(cells.loc[cells["part"] == "train", "cell_id"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9)), min_size=6, max_size=20),
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=6),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
)
def test_every_group_has_one_role_and_every_role_both_classes(
    sizes: list[tuple[int, int]], joined: list[tuple[int, int]], kind: str, seed: int
) -> None:
    names = [f"{'' if label else 'H'}{i}" for i, (label, _) in enumerate(sizes)]
    train = [(name, label, size) for name, (label, size) in zip(names, sizes, strict=True)]
    # Images that two subjects of a class share.
    copies = [
        (f"train/UID_{names[a]}_{sizes[a][0]}_0_x", f"train/UID_{names[b]}_{sizes[b][0]}_0_x")
        for a, b in joined
        if max(a, b) < len(sizes) and sizes[a][0] == sizes[b][0]
    ]
    prelim = [("P", 1, 2), ("HP", 0, 1)]
    cells = table(train, prelim, copies=copies)
    independent = groups(cells[cells["part"] == "train"])
    labels = cells.set_index("cell_id")["label"]
    numbers = [independent[labels[independent.index] == label].nunique() for label in (0, 1)]
    needed = {"official": 1, "subject_kfold": 3}.get(kind, 2)
    if min(numbers) < needed:
        with pytest.raises(CnmcError):
            make_split(cells, config(kind, seed=seed))
        return
    split = make_split(cells, config(kind, seed=seed))
    assert split.cells["cell_id"].is_unique
    takes_part = cells if kind in {"official", "nested"} else cells[cells["part"] == "train"]
    assert set(split.cells["cell_id"]) == set(takes_part["cell_id"])
    roles = split.cells.set_index("cell_id")["role"]
    of_cell = groups(cells)[roles.index]
    assert len(set(zip(of_cell, roles, strict=True))) == len(set(of_cell))
    for role in set(roles):
        assert set(labels[roles.index[roles == role]]) == {0, 1}


def test_golden_assignment() -> None:
    """Splits of published studies must not change with the program."""
    cells = table(TRAIN, PRELIM)
    nested = make_split(cells, config("nested", seed=3))
    assert (subjects_with(nested, "val"), nested.fingerprint[:12]) == GOLDEN_NESTED
    fold = make_split(cells, config("subject_kfold", seed=3, fold=1))
    assert (subjects_with(fold, "val"), fold.fingerprint[:12]) == GOLDEN_FOLD


GOLDEN_NESTED = ({"3", "4", "H2"}, "fdb274d78d7b")
GOLDEN_FOLD = ({"2", "H3"}, "0e21717e08b5")


def test_a_listed_holdout_in_any_case() -> None:
    split = make_split(table(TRAIN), config("subject_holdout", subjects=["h1", " 3", "2"]))
    assert subjects_with(split, "val") == {"H1", "2", "3"}
    assert subjects_with(split, "train") == {"1", "4", "H2", "H3"}


def test_cells_without_label_take_no_part() -> None:
    cells = table(TRAIN, [*PRELIM, ("", 1, 2)])
    cells.loc[cells["subject"] == "", "label"] = pd.NA
    assert len(make_split(cells, config("official")).cells) == len(cells) - 2


@pytest.mark.parametrize("kind", ["official", "nested"])
def test_without_the_preliminary_part(kind: str) -> None:
    with pytest.raises(CnmcError, match=rf"split\.kind={kind}: .*prelim"):
        make_split(table(TRAIN), config(kind))


@pytest.mark.parametrize("kind", ["official", "nested"])
@pytest.mark.parametrize("shared", ["image", "subject"])
def test_an_overlap_of_the_parts_is_refused(kind: str, shared: str) -> None:
    cells = (
        table(TRAIN, PRELIM, copies=[("train/UID_3_1_0_x", "prelim/UID_7_1_0_x")])
        if shared == "image"
        else table(TRAIN, [*PRELIM, ("3", 1, 1)])
    )
    name = r"3\+7" if shared == "image" else "3"
    with pytest.raises(CnmcError, match=rf"split\.kind={kind}: .*: {name}$"):
        make_split(cells, config(kind))


def test_too_few_subjects_for_the_folds() -> None:
    cells = table(TRAIN, copies=[("train/UID_H1_0_0_x", "train/UID_H2_0_0_x")])
    with pytest.raises(CnmcError, match=r"split\.num_folds=3: .*2 HEM and 4 ALL"):
        make_split(cells, config("subject_kfold"))
    with pytest.raises(CnmcError, match=r"split\.num_folds=5: .*1 HEM and 4 ALL"):
        make_split(table([*TRAIN[:4], ("H1", 0, 9)]), config("subject_kfold", num_folds=5))


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (["1", "H1", "77", "X"], r"77, X; .*1, 2, 3, 4, H1, H2, H3"),
        (["1", "7"], "7; "),
        (["1", "2"], r".*: HEM in val"),
        (["1", "H1", "H2", "H3"], r".*: HEM in train"),
        (["3", "H1"], r".*: 3\+4"),
    ],
)
def test_impossible_lists(subjects: list[str], message: str) -> None:
    cells = table(TRAIN, PRELIM, copies=[("train/UID_3_1_1_x", "train/UID_4_1_0_x")])
    with pytest.raises(CnmcError, match=rf"^split\.subjects\S*: {message}"):
        make_split(cells, config("subject_holdout", subjects=subjects))


# Saved splits


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_split_is_read_again(tmp_path: Path, kind: str) -> None:
    cells = table(TRAIN, PRELIM)
    made = load_split("abc", cells, config(kind), tmp_path)
    assert made.path is not None
    assert made.path.parent == tmp_path / "splits"
    assert made.path.name.startswith(f"{kind}-")
    written = made.path.stat().st_mtime_ns
    again = load_split("abc", cells, config(kind), tmp_path)
    assert made.path.stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(again.cells, made.cells)
    assert again.fingerprint == made.fingerprint == make_split(cells, config(kind)).fingerprint
    facts = json.loads(made.path.with_suffix(".json").read_text())
    assert facts["protocol"] == made.protocol
    assert facts["manifest"] == "abc"
    assert len(list((tmp_path / "splits").iterdir())) == 2


def test_files_differ_where_splits_do(tmp_path: Path) -> None:
    cells = table(TRAIN, PRELIM)

    def path(kind: str, manifest: str = "abc", **keys: object) -> Path | None:
        return load_split(manifest, cells, config(kind, **keys), tmp_path).path

    assert path("official", manifest="other") != path("official")
    assert len({path("nested"), path("nested", seed=1), path("nested", val_fraction=0.4)}) == 3
    assert len({path("subject_kfold", fold=fold) for fold in range(3)}) == 3
    assert path("subject_holdout", subjects=["H1", "2"]) != path("subject_holdout")


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    cells = table(TRAIN, PRELIM)
    path = load_split("abc", cells, config("nested"), tmp_path).path
    assert path is not None
    text = path.read_text()
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    with pytest.raises(CnmcError, match=r"nested-\w+\.csv"):
        load_split("abc", cells, config("nested"), tmp_path)
    path.write_text(text)
    load_split("abc", cells, config("nested"), tmp_path)


def own(path: Path, rows: list[tuple[str, str, str]]) -> SplitConfig:
    pd.DataFrame(rows, columns=pd.Index(["cell_id", "subject", "role"])).to_csv(path, index=False)
    return config("official", path=str(path))


OWN = [
    ("train/UID_1_1_0_x", "1", "train"),
    ("train/UID_H1_0_0_x", "H1", "train"),
    ("train/UID_2_1_0_x", "2", "val"),
    ("train/UID_H2_0_0_x", "H2", "val"),
    ("train/UID_3_1_0_x", "3", "test"),
    ("train/UID_H3_0_0_x", "H3", "test"),
]


def test_a_split_file_of_the_user(tmp_path: Path) -> None:
    cells = table(TRAIN)
    split = load_split("abc", cells, own(tmp_path / "own.csv", OWN), tmp_path / "work")
    assert (split.protocol, split.path) == ("honest", tmp_path / "own.csv")
    assert len(split.cells) == 6
    reordered = load_split("abc", cells, own(tmp_path / "b.csv", OWN[::-1]), tmp_path / "work")
    assert reordered.fingerprint == split.fingerprint
    fewer = load_split("abc", cells, own(tmp_path / "own.csv", OWN[:4]), tmp_path / "work")
    assert fewer.protocol == "paper"
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*OWN, OWN[0]], "train/UID_1_1_0_x"),
        ([*OWN, ("train/UID_9_1_0_x", "9", "train")], "train/UID_9_1_0_x"),
        ([*OWN, ("train/UID_1_1_1_x", "2", "train")], "train/UID_1_1_1_x"),
        ([*OWN, ("train/UID_1_1_1_x", "1", "dev")], "dev"),
        ([*OWN, ("train/UID_2_1_1_x", "2", "train")], "2"),
        ([*OWN, ("train/UID_4_1_0_x", "4", "val")], r"1\+4"),
        (OWN[:5], "HEM in test"),
        (OWN[:2], "HEM in val, ALL in val"),
        (OWN[2:], "HEM in train, ALL in train"),
    ],
)
def test_an_unsound_split_is_refused(
    tmp_path: Path, rows: list[tuple[str, str, str]], message: str
) -> None:
    cells = table(TRAIN, copies=[("train/UID_1_1_2_x", "train/UID_4_1_1_x")])
    with pytest.raises(CnmcError, match=rf"split\.path=.*own\.csv: .*: {message}$"):
        load_split("abc", cells, own(tmp_path / "own.csv", rows), tmp_path)


@pytest.mark.parametrize("text", ["", "cell,role\na,b\n"])
def test_a_split_file_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(CnmcError, match=r"own\.csv: .*cell_id,subject,role"):
        load_split(
            "abc", table(TRAIN), config("official", path=str(tmp_path / "own.csv")), tmp_path
        )


@pytest.mark.real
def test_splits_of_the_real_names(real_train_files: Path) -> None:
    cells = real_training_cells(real_train_files)
    held = [make_split(cells, SplitConfig("subject_kfold", fold=fold)) for fold in range(5)]
    subjects = [subject for split in held for subject in subjects_with(split, "val")]
    assert len(subjects) == len(set(subjects)) == 73
    for joined in ({"H2", "H4", "H5", "H6"}, {"H3", "H10"}, {"20", "21"}, {"51", "75", "78"}):
        assert sum(joined <= subjects_with(split, "val") for split in held) == 1
    with pytest.raises(CnmcError, match=r"H3\+H10"):
        make_split(cells, SplitConfig("subject_holdout", subjects=["H10", "1"]))

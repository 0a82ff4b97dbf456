"""Small trees of generated BMP files in the layouts of the release, and tables without files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cnmc.data.images import Pixels
from cnmc.data.sources.cnmc import classify

SIDE = 48

Layout = Literal["archive", "mirror", "paper"]
FOLDERS: dict[Layout, dict[str, str]] = {
    "archive": {
        "train": "C-NMC_training_data",
        "prelim": "C-NMC_test_prelim_phase_data/C-NMC_test_prelim_phase_data",
        "final": "C-NMC_test_final_phase_data",
        "labels": "C-NMC_test_prelim_phase_data_labels.csv",
    },
    "mirror": {
        "train": "C-NMC_Leukemia/training_data",
        "prelim": "C-NMC_Leukemia/validation_data/C-NMC_test_prelim_phase_data",
        "final": "C-NMC_Leukemia/testing_data/C-NMC_test_final_phase_data",
        "labels": "C-NMC_Leukemia/validation_data/C-NMC_test_prelim_phase_data_labels.csv",
    },
    "paper": {"train": ".", "prelim": "phase2", "final": "phase3", "labels": "phase2.csv"},
}

TRAIN = (
    ("fold_0", "UID_1_1_1_all"),
    ("fold_0", "UID_1_2_1_all"),
    ("fold_0", "UID_H1_1_1_hem"),
    ("fold_1", "UID_2_1_1_all"),
    ("fold_1", "UID_h3_10_1_hem"),
    ("fold_2", "UID_3_1_1_all"),
    ("fold_2", "UID_H2_1_1_hem"),
)
# As in the release, the order of the rows is neither that of the names nor that of the classes.
PRELIM = (
    ("UID_H9_1_1_hem.bmp", "10.bmp", 0),
    ("UID_7_1_1_all.bmp", "2.bmp", 1),
    ("UID_H8_1_1_hem.bmp", "1.bmp", 0),
    ("UID_8_1_1_all.bmp", "3.bmp", 1),
)
FINAL = ("1", "2", "10")


def pixels(seed: int, height: int = SIDE, width: int = SIDE) -> Pixels:
    """Return noise: no two seeds look alike, and any shift or change of channels shows."""
    noise: NDArray[np.int64] = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return noise.astype(np.uint8)


def write_bmp(path: Path, image: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format="BMP")
    return path


def write_labels(path: Path, rows: Sequence[tuple[str, str, int]] = PRELIM) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["Patient_ID,new_names,labels", *(f"{a},{b},{c}" for a, b, c in rows)]
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return path


def write_release(root: Path, layout: Layout = "archive") -> Path:
    """Write a small release of three parts: the same cells in every layout."""
    folders = FOLDERS[layout]
    for seed, (fold, stem) in enumerate(TRAIN):
        folder = root / folders["train"] / fold / stem.rsplit("_", 1)[1]
        write_bmp(folder / f"{stem}.bmp", pixels(seed))
    for seed, (_, name, _) in enumerate(PRELIM, 100):
        write_bmp(root / folders["prelim"] / name, pixels(seed))
    for seed, stem in enumerate(FINAL, 200):
        write_bmp(root / folders["final"] / f"{stem}.bmp", pixels(seed))
    write_labels(root / folders["labels"])
    return root


def by_id(cells: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return rows as dictionaries, by cell."""
    rows: list[dict[str, Any]] = [dict(row) for row in cells.to_dict("records")]  # type: ignore[arg-type]
    return {row["cell_id"]: row for row in rows}


def table(
    train: Sequence[tuple[str, int, int]],
    prelim: Sequence[tuple[str, int, int]] = (),
    *,
    copies: Sequence[tuple[str, str]] = (),
) -> pd.DataFrame:
    """Make rows of a manifest without files, from subjects, labels and numbers of cells.

    Of each pair of ``copies`` the second cell gets the bytes of the first.
    """
    rows = [
        (f"{part}/UID_{subject}_{label}_{i}_x", part, subject, label)
        for part, subjects in (("train", train), ("prelim", prelim))
        for subject, label, number in subjects
        for i in range(number)
    ]
    cells = pd.DataFrame(rows, columns=pd.Index(["cell_id", "part", "subject", "label"]))
    cells["label"] = cells["label"].astype("Int8")
    cells["sha256"] = [f"hash of {name}" for name in cells["cell_id"]]
    by_id = cells.set_index("cell_id")["sha256"]
    for first, second in copies:
        cells.loc[cells["cell_id"] == second, "sha256"] = by_id[first]
    return cells


def real_training_cells(train_files: Path) -> pd.DataFrame:
    """Return the names and hashes of all training files of the release, without their pixels."""
    listed = pd.read_csv(train_files)
    listed["path"] = [
        f"C-NMC_training_data/{fold}/{name}/{file}"
        for fold, name, file in zip(listed["fold"], listed["class"], listed["file"], strict=True)
    ]
    cells, _ = classify(listed["path"].to_list(), {})
    return cells.merge(listed[["path", "sha256"]], on="path", validate="one_to_one")

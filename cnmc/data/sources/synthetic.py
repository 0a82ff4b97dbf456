"""Generate a data set in the layout of the release, for users who do not have the release.

Names and folders are those of the archive of C-NMC 2019: three folds of training cells, the
preliminary part with its label file, and the final part on its larger canvas and without labels.
:mod:`cnmc.data.sources.synthetic_cells` draws the cells.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from filelock import FileLock

from cnmc.config import SyntheticConfig
from cnmc.data.names import LABELS, PARTS
from cnmc.data.parallel import map_threads
from cnmc.data.sources.cnmc import LABEL_COLUMNS
from cnmc.data.sources.synthetic_cells import RELEASE_SIZE, draw_cell, subject_traits
from cnmc.errors import CnmcError

MARKER = "synthetic.json"
"""File in the root that marks the data set as generated and holds its composition."""
GENERATOR = 1
"""Raise it when the same composition gives other files than before."""

NUM_FOLDS = 3
FINAL_SIZE = 600
"""Side of an image of the final part of the release; its cells are as large as the others."""

_PRELIM = "C-NMC_test_prelim_phase_data"
_FINAL = "C-NMC_test_final_phase_data"
# First word of the seed of each kind of random draw; 1 is taken by the traits of subjects.
_COUNTS, _ORDER, _CELL = 2, 3, 4
# The numbers of cells of the subjects of the release are about log-normal with this deviation.
_COUNT_SD = 0.9
_CELLS_PER_IMAGE = 4


class _Cell(NamedTuple):
    """One image; its pixels depend on the seed of the data set and on the first four fields."""

    part: int
    label: int
    subject: int
    """Number of the subject within its part and class, from 0."""
    number: int
    """Number of the cell within its subject, from 0."""
    subject_name: str
    uid: str
    path: str = ""


def generate(
    root: Path,
    composition: SyntheticConfig,
    *,
    num_workers: int = 2,
    show_progress: bool = True,
) -> None:
    """Write a generated data set, unless it exists already.

    A cell depends only on the seed, its part, class, subject and number. The folder appears when
    it is complete; if two processes generate the same folder, the second waits for the first.

    Raises:
        CnmcError: The folder is not empty and was not generated with the same composition, or it
            cannot be written.
    """
    root = root.resolve()
    if _is_generated(root, composition):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(root.name + ".lock")):
            if not _is_generated(root, composition):
                _write(root, composition, num_workers, show_progress)
    except OSError as error:
        raise CnmcError(
            f"data.root={root}: cannot write the generated data set ({error.strerror or error}); "
            "expected a folder with free space that you may write to, give data.root=DIR"
        ) from error


def _is_generated(root: Path, composition: SyntheticConfig) -> bool:
    """Return whether the data set exists; refuse a folder that holds anything else."""
    marker = root / MARKER
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not marker.exists():
        raise CnmcError(
            f"data.root={root}: not empty and not generated (it has no {MARKER}); cells are "
            "generated only in a new or empty folder, give another data.root=DIR"
        )
    try:
        found = dict(json.loads(marker.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CnmcError(f"{marker}: not readable ({error}); delete the folder") from error
    wanted = _description(composition)
    differing = [
        f"data.synthetic.{key}={wanted.get(key)} (there {found.get(key)})"
        for key in wanted | found
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        raise CnmcError(
            f"data.root={root}: generated with another composition: {', '.join(differing)}; "
            "give another data.root=DIR, or delete the folder"
        )
    return True


def _description(composition: SyntheticConfig) -> dict[str, int]:
    return {"generator": GENERATOR, **asdict(composition)}


def _write(root: Path, composition: SyntheticConfig, num_workers: int, show_progress: bool) -> None:
    cells = _plan(composition)
    # The lock is held, so a partial folder was left by a process that was killed.
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for folder in {Path(cell.path).parent for cell in cells} | {Path()}:
            (partial / folder).mkdir(parents=True, exist_ok=True)
        map_threads(
            lambda cell: _write_cell(partial, cell, composition),
            cells,
            num_workers=num_workers,
            description="Generating cells",
            show_progress=show_progress,
        )
        labels = [
            f"{cell.uid},{Path(cell.path).name},{cell.label}"
            for cell in cells
            if PARTS[cell.part] == "prelim"
        ]
        if labels:
            # The released file ends its lines in CR LF.
            text = "".join(f"{line}\r\n" for line in (",".join(LABEL_COLUMNS), *labels))
            (partial / f"{_PRELIM}_labels.csv").write_bytes(text.encode())
        marker = json.dumps(_description(composition), indent=2) + "\n"
        (partial / MARKER).write_text(marker, encoding="utf-8")
        if root.exists():
            root.rmdir()
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_cell(folder: Path, cell: _Cell, composition: SyntheticConfig) -> None:
    seed, size = composition.seed, composition.image_size
    canvas = round(size * FINAL_SIZE / RELEASE_SIZE) if PARTS[cell.part] == "final" else size
    rng = np.random.default_rng([_CELL, seed, *cell[:4]])
    traits = subject_traits(seed, cell.part, cell.label, cell.subject)
    image = draw_cell(rng, cell.label, traits, size, canvas)
    encoded = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    (folder / cell.path).write_bytes(encoded.tobytes())


def _plan(composition: SyntheticConfig) -> list[_Cell]:
    """List every image; those of the preliminary part are in the order of the label file."""
    cells: list[_Cell] = []
    for part, part_name in enumerate(PARTS):
        members = [cell for name in LABELS for cell in _members(composition, part, name)]
        folds = _folds(members) if part_name == "train" else {}
        # The release numbers the images of its test parts in no order of subject or class.
        order = np.random.default_rng([_ORDER, composition.seed, part]).permutation(len(members))
        for position, chosen in enumerate(order, start=1):
            cell = members[chosen]
            if part_name == "train":
                folder = "all" if cell.label else "hem"
                fold = folds[cell.subject_name]
                path = f"C-NMC_training_data/fold_{fold}/{folder}/{cell.uid}"
            else:
                folder = _PRELIM if part_name == "prelim" else _FINAL
                path = f"{folder}/{folder}/{position}.bmp"
            cells.append(cell._replace(path=path))
    return cells


def _members(composition: SyntheticConfig, part: int, class_name: str) -> Iterator[_Cell]:
    """Yield the cells of one part and class; subjects are numbered through all parts."""
    subjects = [getattr(composition, f"{name}_subjects_{class_name}") for name in PARTS]
    num_cells = getattr(composition, f"{PARTS[part]}_cells_{class_name}")
    label = LABELS[class_name]
    rng = np.random.default_rng([_COUNTS, composition.seed, part, label])
    for index, count in enumerate(_cell_counts(rng, num_cells, subjects[part])):
        subject = f"{'' if label else 'H'}{1 + sum(subjects[:part]) + index}"
        number = image = 0
        while number < count:
            image += 1
            in_image = min(count - number, 1 + int(rng.poisson(_CELLS_PER_IMAGE - 1)))
            for cell in range(1, in_image + 1):
                uid = f"UID_{subject}_{image}_{cell}_{class_name}.bmp"
                yield _Cell(part, label, index, number, subject, uid)
                number += 1


def _cell_counts(rng: np.random.Generator, num_cells: int, num_subjects: int) -> list[int]:
    """Divide cells unevenly among subjects, at least one for each."""
    if num_subjects == 0:
        return []
    weights = rng.lognormal(0.0, _COUNT_SD, num_subjects)
    shares = (num_cells - num_subjects) * weights / weights.sum()
    counts = np.floor(shares).astype(int)
    # The cells that rounding left over go to the subjects that lost most by it.
    losers = np.argsort(counts - shares, kind="stable")[: num_cells - num_subjects - counts.sum()]
    counts[losers] += 1
    return [int(count) + 1 for count in counts]


def _folds(members: list[_Cell]) -> dict[str, int]:
    """Return the fold of every subject: about equally many cells of each class in each fold."""
    folds: dict[str, int] = {}
    for label in LABELS.values():
        sizes: dict[str, int] = {}
        for cell in members:
            if cell.label == label:
                sizes[cell.subject_name] = sizes.get(cell.subject_name, 0) + 1
        filled = [0] * NUM_FOLDS
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            folds[name] = filled.index(min(filled))
            filled[folds[name]] += sizes[name]
    return folds

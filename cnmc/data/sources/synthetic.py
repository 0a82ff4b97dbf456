"""Generate a data set in the layout of the release, for users who do not have the release.

It has three folds of training cells, the preliminary part with its label file, and the final part
on its larger canvas and without labels. A cell depends only on the seed, its part, class, subject
and number.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
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

_FOLDERS = {"prelim": "C-NMC_test_prelim_phase_data", "final": "C-NMC_test_final_phase_data"}
# First word of the seed of each kind of random draw; 1 is taken by the traits of subjects.
_COUNTS, _ORDER, _CELL = 2, 3, 4


class _Cell(NamedTuple):
    """One image; its pixels depend on the seed of the data set and on the first four fields."""

    part: int
    label: int
    subject: int
    number: int
    subject_name: str
    uid: str
    path: str = ""


def generate(
    root: Path, composition: SyntheticConfig, *, num_workers: int = 2, show_progress: bool = True
) -> None:
    """Write a generated data set, unless it exists already; only a complete one appears.

    Raises:
        CnmcError: The folder is not empty and was not generated with the same composition, or it
            cannot be written.
    """
    root = root.resolve()
    if _exists(root, composition):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # Runs of a study may start together: the second waits for the first.
        with FileLock(f"{root}.lock"):
            if not _exists(root, composition):
                partial = root.with_name(f".{root.name}.partial")
                # A process that was killed may have left a part.
                shutil.rmtree(partial, ignore_errors=True)
                try:
                    _write(partial, composition, num_workers, show_progress)
                    partial.replace(root)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CnmcError(
            f"data.root={root}: cannot write the generated data set ({error.strerror or error}); "
            "expected a folder with free space that you may write to, give data.root=DIR"
        ) from error


def _exists(root: Path, composition: SyntheticConfig) -> bool:
    marker = root / MARKER
    if not marker.exists():
        if root.exists() and (root.is_file() or any(root.iterdir())):
            raise CnmcError(
                f"data.root={root}: not empty and not generated (it has no {MARKER}); cells are "
                "generated only in a new or empty folder, give another data.root=DIR"
            )
        return False
    found, wanted = json.loads(marker.read_text(encoding="utf-8")), _description(composition)
    if differing := [key for key in wanted if wanted[key] != found.get(key)]:
        keys = ", ".join(
            f"data.synthetic.{k}={wanted[k]} (there {found.get(k)})" for k in differing
        )
        raise CnmcError(
            f"data.root={root}: generated with another composition: {keys}; give another "
            "data.root=DIR, or delete the folder"
        )
    return True


def _description(composition: SyntheticConfig) -> dict[str, int]:
    return {"generator": GENERATOR, **asdict(composition)}


def _write(root: Path, composition: SyntheticConfig, num_workers: int, show_progress: bool) -> None:
    cells = _plan(composition)
    for folder in {Path(cell.path).parent for cell in cells} | {Path()}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    map_threads(
        lambda cell: _write_cell(root, cell, composition),
        cells,
        num_workers=num_workers,
        description="Generating cells",
        show_progress=show_progress,
    )
    prelim = [cell for cell in cells if PARTS[cell.part] == "prelim"]
    rows = [f"{cell.uid},{Path(cell.path).name},{cell.label}" for cell in prelim]
    if rows:
        # The released file ends its lines in CR LF.
        text = "".join(f"{row}\r\n" for row in [",".join(LABEL_COLUMNS), *rows])
        (root / f"{_FOLDERS['prelim']}_labels.csv").write_bytes(text.encode())
    marker = json.dumps(_description(composition), indent=2) + "\n"
    (root / MARKER).write_text(marker, encoding="utf-8")


def _write_cell(folder: Path, cell: _Cell, composition: SyntheticConfig) -> None:
    seed, size = composition.seed, composition.image_size
    canvas = round(size * FINAL_SIZE / RELEASE_SIZE) if PARTS[cell.part] == "final" else size
    rng = np.random.default_rng([_CELL, seed, *cell[:4]])
    traits = subject_traits(seed, *cell[:3])
    image = draw_cell(rng, cell.label, traits, size, canvas)
    encoded = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    (folder / cell.path).write_bytes(encoded.tobytes())


def _plan(composition: SyntheticConfig) -> list[_Cell]:
    """List every image; those of the preliminary part are in the order of the label file."""
    cells: list[_Cell] = []
    for part, part_name in enumerate(PARTS):
        members = [cell for name in LABELS for cell in _members(composition, part, name)]
        folds = _folds(members)
        # The release numbers the images of its test parts in no order of subject or class.
        order = np.random.default_rng([_ORDER, composition.seed, part]).permutation(len(members))
        for position, cell in enumerate((members[chosen] for chosen in order), start=1):
            if part_name == "train":
                folder = "all" if cell.label else "hem"
                path = f"C-NMC_training_data/fold_{folds[cell.subject_name]}/{folder}/{cell.uid}"
            else:
                path = f"{_FOLDERS[part_name]}/{_FOLDERS[part_name]}/{position}.bmp"
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
            for cell in range(1, 1 + min(count - number, 1 + int(rng.poisson(3)))):
                uid = f"UID_{subject}_{image}_{cell}_{class_name}.bmp"
                yield _Cell(part, label, index, number, subject, uid)
                number += 1


def _cell_counts(rng: np.random.Generator, num_cells: int, num_subjects: int) -> list[int]:
    """Divide cells unevenly among subjects, at least one for each, as in the release."""
    weights = rng.lognormal(0.0, 0.9, num_subjects)
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
        filled = [0] * NUM_FOLDS
        sizes = Counter(cell.subject_name for cell in members if cell.label == label)
        for name, size in sizes.most_common():
            folds[name] = filled.index(min(filled))
            filled[folds[name]] += size
    return folds

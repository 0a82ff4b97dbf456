"""Generates a data set in the layout of the release, for those who do not have the release.

The files are named and laid out as in the archive of C-NMC 2019, up to the composition of the
paper's Table 1: three folds of training cells, the preliminary part with its label file, the final
part on its larger canvas and without labels. How a cell is drawn is in
:mod:`cnmc.data.sources.synthetic_cells`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console

from cnmc.config import SyntheticConfig
from cnmc.data.names import LABELS, PARTS, Part
from cnmc.data.parallel import map_threads
from cnmc.data.sources.cnmc import LABEL_COLUMNS
from cnmc.data.sources.synthetic_cells import RELEASE_SIZE, draw_cell, subject_traits
from cnmc.errors import CnmcError

MARKER = "synthetic.json"
"""File in the root that says how the data set was generated; written last."""
GENERATOR = 1
"""Raised whenever the same composition would give other files than before."""

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


@dataclass(frozen=True)
class _Cell:
    """One image to be written."""

    path: str
    part: int
    label: int
    subject: int
    """Number of the subject within its part and class, from 0."""
    number: int
    """Number of the cell within its subject, from 0."""


@dataclass(frozen=True)
class _Subject:
    """A subject and the ``<image>_<cell>`` of its cells."""

    name: str
    index: int
    cells: tuple[str, ...]


def generate(
    root: Path,
    composition: SyntheticConfig,
    *,
    num_workers: int = 2,
    show_progress: bool = True,
) -> None:
    """Write a generated data set, or leave it as it is where it exists already.

    A cell depends on the seed, its part, class, subject and number, and on nothing else: neither on
    the number of workers nor on how many other cells there are. The folder appears when it is
    complete; of two processes that ask for the same folder one generates and the other waits.

    Args:
        root: Folder of the data set; it must not exist, be empty, or hold a data set that was
            generated with the same composition.
        composition: Seed, size of the images, subjects and cells by part and class.
        num_workers: Number of threads.
        show_progress: On a terminal a progress bar, elsewhere now and then a line.

    Raises:
        CnmcError: The folder holds something else, or cannot be written.
    """
    root = root.resolve()
    if _is_generated(root, composition):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root.with_name(root.name + ".lock"))
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            console = Console(stderr=True, quiet=not show_progress)
            console.print(f"waiting for another process that generates {root}", highlight=False)
            lock.acquire()
        try:
            if not _is_generated(root, composition):
                _generate_locked(root, composition, num_workers, show_progress)
        finally:
            lock.release()
    except OSError as error:
        raise CnmcError(
            f"data.root={root}: cannot write the generated data set ({error.strerror or error}); "
            "expected a folder with free space that you may write to, give data.root=DIR"
        ) from error


def _is_generated(root: Path, composition: SyntheticConfig) -> bool:
    """Return whether the data set is there; refuse a folder that holds anything else."""
    way_out = "give another data.root=DIR, or delete the folder"
    if not root.exists():
        return False
    if not root.is_dir():
        raise CnmcError(f"data.root={root}: a file; expected a folder to generate cells in")
    marker = root / MARKER
    if not marker.exists():
        if any(root.iterdir()):
            raise CnmcError(
                f"data.root={root}: not empty and not generated (it has no {MARKER}); cells are "
                "generated only in a new or empty folder: give another data.root=DIR"
            )
        return False
    try:
        found: dict[str, Any] = dict(json.loads(marker.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CnmcError(f"{marker}: not readable ({error}); {way_out}") from error
    wanted = _description(composition)
    differing = [
        f"data.synthetic.{key}={wanted.get(key)} (there {found.get(key)})"
        for key in wanted | found
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        raise CnmcError(
            f"data.root={root}: generated with another composition: {', '.join(differing)}; "
            f"{way_out}"
        )
    return True


def _description(composition: SyntheticConfig) -> dict[str, int]:
    return {"generator": GENERATOR, **asdict(composition)}


def _generate_locked(
    root: Path, composition: SyntheticConfig, num_workers: int, show_progress: bool
) -> None:
    cells, labels = _plan(composition)
    sizes = _canvas_sizes(composition)
    # A row of a BMP is padded to four bytes, and 54 bytes stand before the first.
    needed = sum(54 + (sizes[cell.part] * 3 + 3) // 4 * 4 * sizes[cell.part] for cell in cells)
    if (free := shutil.disk_usage(root.parent).free) < needed:
        raise CnmcError(
            f"data.root={root}: the generated data set takes {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free; give data.root=DIR on another disk, or fewer or "
            "smaller cells (data.synthetic.*)"
        )
    # Only the owner of the lock writes here: what is found was left by a process that was killed.
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    num_threads = cv2.getNumThreads()
    # The workers are threads already; OpenCV's own would only wait for one another.
    cv2.setNumThreads(1)
    try:
        for folder in {Path(cell.path).parent for cell in cells}:
            (partial / folder).mkdir(parents=True, exist_ok=True)
        map_threads(
            lambda cell: _write_cell(partial, cell, composition, sizes[cell.part]),
            cells,
            num_workers=num_workers,
            description="generating cells",
            show_progress=show_progress,
        )
        if labels:
            # The released file ends its lines in CR LF.
            text = "".join(f"{line}\r\n" for line in (",".join(LABEL_COLUMNS), *labels))
            (partial / f"{_PRELIM}_labels.csv").write_bytes(text.encode())
        partial.mkdir(parents=True, exist_ok=True)
        marker = json.dumps(_description(composition), indent=2) + "\n"
        (partial / MARKER).write_text(marker, encoding="utf-8")
        if root.exists():
            root.rmdir()
        partial.rename(root)
    finally:
        cv2.setNumThreads(num_threads)
        shutil.rmtree(partial, ignore_errors=True)


def _canvas_sizes(composition: SyntheticConfig) -> tuple[int, int, int]:
    """Side of the images of each part."""
    size = composition.image_size
    return size, size, round(size * FINAL_SIZE / RELEASE_SIZE)


def _write_cell(folder: Path, cell: _Cell, composition: SyntheticConfig, canvas_size: int) -> None:
    seed = composition.seed
    rng = np.random.default_rng([_CELL, seed, cell.part, cell.label, cell.subject, cell.number])
    traits = subject_traits(seed, cell.part, cell.label, cell.subject)
    image = draw_cell(rng, cell.label, traits, composition.image_size, canvas_size)
    encoded = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    (folder / cell.path).write_bytes(encoded.tobytes())


def _plan(composition: SyntheticConfig) -> tuple[list[_Cell], list[str]]:
    """List every image to be written, and the lines of the label file."""
    cells: list[_Cell] = []
    labels: list[str] = []
    for part, part_name in enumerate(PARTS):
        members = [
            (subject, number, class_name)
            for class_name in LABELS
            for subject in _subjects(composition, part_name, class_name)
            for number in range(len(subject.cells))
        ]
        folds = _folds(members) if part_name == "train" else {}
        # The release numbers the images of its test parts in no order of subject or class.
        order = np.random.default_rng([_ORDER, composition.seed, part]).permutation(len(members))
        for position, chosen in enumerate(order, start=1):
            subject, number, class_name = members[chosen]
            uid = f"UID_{subject.name}_{subject.cells[number]}_{class_name}.bmp"
            if part_name == "train":
                path = f"C-NMC_training_data/fold_{folds[subject.name]}/{class_name}/{uid}"
            elif part_name == "prelim":
                path = f"{_PRELIM}/{_PRELIM}/{position}.bmp"
                labels.append(f"{uid},{position}.bmp,{LABELS[class_name]}")
            else:
                path = f"{_FINAL}/{_FINAL}/{position}.bmp"
            cells.append(_Cell(path, part, LABELS[class_name], subject.index, number))
    return cells, labels


def _subjects(composition: SyntheticConfig, part_name: Part, class_name: str) -> Iterator[_Subject]:
    """Subjects of one part and class, numbered through all parts as none stands in two."""
    part = PARTS.index(part_name)
    first = 1 + sum(getattr(composition, f"{p}_subjects_{class_name}") for p in PARTS[:part])
    num_subjects: int = getattr(composition, f"{part_name}_subjects_{class_name}")
    num_cells: int = getattr(composition, f"{part_name}_cells_{class_name}")
    rng = np.random.default_rng([_COUNTS, composition.seed, part, LABELS[class_name]])
    for index, count in enumerate(_cell_counts(rng, num_cells, num_subjects)):
        names: list[str] = []
        image = 0
        while len(names) < count:
            image += 1
            in_image = min(count - len(names), 1 + int(rng.poisson(_CELLS_PER_IMAGE - 1)))
            names.extend(f"{image}_{cell}" for cell in range(1, in_image + 1))
        prefix = "H" if class_name == "hem" else ""
        yield _Subject(f"{prefix}{first + index}", index, tuple(names))


def _cell_counts(rng: np.random.Generator, num_cells: int, num_subjects: int) -> list[int]:
    """Divide cells unevenly among subjects, at least one for each."""
    if num_subjects == 0:
        return []
    weights = rng.lognormal(0.0, _COUNT_SD, num_subjects)
    shares = (num_cells - num_subjects) * weights / weights.sum()
    counts = np.floor(shares).astype(int)
    # What rounding down left over goes to those who lost most by it.
    losers = np.argsort(counts - shares, kind="stable")[: num_cells - num_subjects - counts.sum()]
    counts[losers] += 1
    return [int(count) + 1 for count in counts]


def _folds(members: list[tuple[_Subject, int, str]]) -> dict[str, int]:
    """Fold of every training subject, by name: about the same number of cells in each fold."""
    folds: dict[str, int] = {}
    for class_name in LABELS:
        sizes = {
            s.name: len(s.cells) for s, _, member_class in members if member_class == class_name
        }
        filled = [0] * NUM_FOLDS
        for name in sorted(sizes, key=lambda name: -sizes[name]):
            fold = filled.index(min(filled))
            folds[name] = fold
            filled[fold] += sizes[name]
    return folds

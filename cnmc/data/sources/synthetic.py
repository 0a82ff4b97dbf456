"""Generate a data set in the layout of the release, for users who do not have the release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from filelock import FileLock

from cnmc.config.groups import SyntheticConfig
from cnmc.data.names import LABELS, PARTS
from cnmc.data.parallel import map_threads
from cnmc.data.sources.cnmc import LABEL_COLUMNS
from cnmc.data.sources.synthetic_cells import draw_cell, subject_traits
from cnmc.errors import CnmcError

MARKER = "synthetic.json"
"""File in the root that marks the data set as generated and holds its composition."""
_GENERATOR = 1  # Raise it when the same composition gives other files than before.
_FOLDERS = ("C-NMC_training_data", "C-NMC_test_prelim_phase_data", "C-NMC_test_final_phase_data")
# First word of the seed of each kind of random draw; 1 is taken by the traits of subjects.
_COUNTS, _ORDER, _CELL = 2, 3, 4

_Cell = tuple[tuple[int, int, int, int], str, str]
"""Part, label, subject and number of a cell, which decide its pixels; original name; path."""


def generate(
    root: Path, composition: SyntheticConfig, *, num_workers: int = 2, show_progress: bool = True
) -> None:
    """Write a generated data set, whole or not at all, unless it exists already.

    Raises:
        CnmcError: The folder holds something else, or it cannot be written.
    """
    root = root.resolve()
    wanted = {"generator": _GENERATOR, **asdict(composition)}
    if _exists(root, wanted):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # Runs of a study may start together: the second waits for the first.
        with (
            FileLock(f"{root}.lock"),
            TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as temporary,
        ):
            if not _exists(root, wanted):
                made = Path(temporary) / root.name
                _write(made, composition, num_workers, show_progress)
                (made / MARKER).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
                made.replace(root)
    except OSError as error:
        raise CnmcError(
            f"data.root={root}: cannot write the generated data set ({error.strerror or error}); "
            "expected a folder with free space that you may write to, give data.root=DIR"
        ) from error


def _exists(root: Path, wanted: dict[str, int]) -> bool:
    marker = root / MARKER
    if marker.exists():
        found = json.loads(marker.read_text(encoding="utf-8"))
        if other := [key for key in wanted if wanted[key] != found.get(key)]:
            keys = ", ".join(f"data.synthetic.{key}={found.get(key)}" for key in other)
            raise CnmcError(
                f"data.root={root}: generated with {keys}; give another data.root=DIR, or delete "
                "the folder"
            )
        return True
    if root.exists() and (root.is_file() or any(root.iterdir())):
        raise CnmcError(
            f"data.root={root}: neither empty nor generated (it has no {MARKER}); give another "
            "data.root=DIR for generated cells"
        )
    return False


def _write(root: Path, composition: SyntheticConfig, num_workers: int, show_progress: bool) -> None:
    seed, size = composition.seed, composition.image_size

    def write(cell: _Cell) -> None:
        (part, label, subject, number), _, path = cell
        rng = np.random.default_rng([_CELL, seed, part, label, subject, number])
        # The final part of the release has larger images with cells of the same size.
        canvas = round(size * 600 / 450) if PARTS[part] == "final" else size
        image = draw_cell(rng, label, subject_traits(seed, part, label, subject), size, canvas)
        encoded = cv2.imencode(".bmp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        (root / path).write_bytes(encoded.tobytes())

    cells = _plan(composition)
    for folder in {root} | {(root / path).parent for _, _, path in cells}:
        folder.mkdir(parents=True, exist_ok=True)
    what = "Generating cells"
    map_threads(
        write, cells, num_workers=num_workers, description=what, show_progress=show_progress
    )
    rows = [f"{uid},{Path(path).name},{key[1]}" for key, uid, path in cells if key[0] == 1]
    if rows:
        # The released file ends its lines in CR LF.
        text = "\r\n".join([",".join(LABEL_COLUMNS), *rows, ""])
        (root / f"{_FOLDERS[1]}_labels.csv").write_bytes(text.encode())


def _plan(composition: SyntheticConfig) -> list[_Cell]:
    """List every image; those of the preliminary part are in the order of the label file."""
    cells: list[_Cell] = []
    for part, folder in enumerate(_FOLDERS):
        members = [cell for name in LABELS for cell in _members(composition, part, name)]
        # The release numbers the images of its test parts in no order of subject or class.
        order = np.random.default_rng([_ORDER, composition.seed, part]).permutation(len(members))
        for position, (key, uid, path) in enumerate((members[i] for i in order), start=1):
            cells.append((key, uid, path if part == 0 else f"{folder}/{folder}/{position}.bmp"))
    return cells


def _members(composition: SyntheticConfig, part: int, class_name: str) -> Iterator[_Cell]:
    """Yield the cells of one part and class, with their paths in the training part."""
    subjects = [getattr(composition, f"{name}_subjects_{class_name}") for name in PARTS]
    spare = getattr(composition, f"{PARTS[part]}_cells_{class_name}") - subjects[part]
    label = LABELS[class_name]
    rng = np.random.default_rng([_COUNTS, composition.seed, part, label])
    # As unevenly as in the release, at least one cell for a subject.
    weights = rng.lognormal(0.0, 0.9, subjects[part])
    shares = spare * weights / weights.sum()
    counts = np.floor(shares).astype(int) + 1
    # The cells that rounding left over go to the subjects that lost most by it.
    losers = np.argsort(counts - 1 - shares, kind="stable")
    counts[losers[: spare - (counts - 1).sum()]] += 1
    # Three folds of about equally many cells.
    folds, filled = np.zeros_like(counts), np.zeros(3)
    for index in np.argsort(-counts, kind="stable"):
        folds[index] = filled.argmin()
        filled[folds[index]] += counts[index]
    for index, count in enumerate(counts):
        # Subjects are numbered through all parts.
        subject = f"{'' if label else 'H'}{1 + sum(subjects[:part]) + index}"
        number = image = 0
        while number < count:
            image += 1
            for cell in range(1, 1 + min(count - number, 1 + int(rng.poisson(3)))):
                uid = f"UID_{subject}_{image}_{cell}_{class_name}.bmp"
                path = f"{_FOLDERS[0]}/fold_{folds[index]}/{class_name}/{uid}"
                yield (part, label, index, number), uid, path
                number += 1

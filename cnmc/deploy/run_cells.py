"""Cells to check a network with, and to find the ranges of 8-bit numbers with."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnmc.analysis.choosing import CHOOSING_ROLE
from cnmc.config import SplitConfig
from cnmc.data.audit import usable_cells
from cnmc.data.images import crop_and_resize, decode
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.parallel import map_threads
from cnmc.data.sources.synthetic_cells import draw_cell, subject_traits
from cnmc.data.splits import load_split
from cnmc.deploy.runtime import GraphInfo, Images
from cnmc.deploy.trained import TrainedNetwork
from cnmc.devices import num_cores
from cnmc.errors import CnmcError

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class CellsOfRun:
    """The cells that a network was trained and chosen on.

    Attributes:
        manifest: The data set.
        cells: One row a labelled cell: cell_id, path, subject, label, role.
        generated: Whether the cells are drawn, not photographed.
    """

    manifest: Manifest
    cells: pd.DataFrame
    generated: bool

    def read(self, role: str, num_cells: int, info: GraphInfo) -> tuple[Images, Labels]:
        """Read cells of a role as a network takes them, even over classes and subjects.

        Args:
            role: ``train`` or ``val``.
            num_cells: At most so many.
            info: The size that the network wants.

        Returns:
            The cells, and 1 for each that is ALL, else 0.
        """
        mine = self.cells[self.cells["role"] == role].sort_values(["label", "subject", "cell_id"])
        even = np.linspace(0, len(mine) - 1, min(num_cells, len(mine))).round().astype(int)
        mine = mine.iloc[even]
        pixels = map_threads(
            lambda path: crop_and_resize(
                decode((self.manifest.root / path).read_bytes()),
                crop=info.crop,
                resize=info.resize,
            ),
            mine["path"].to_list(),
            num_workers=num_cores(),
            description=f"Reading cells ({role})",
        )
        size = info.size
        images = np.stack(pixels) if pixels else np.empty((0, size, size, 3), dtype=np.uint8)
        return images, mine["label"].to_numpy(dtype=np.int64)


def find_cells(trained: TrainedNetwork, data: str | None) -> CellsOfRun:
    """Find the cells of a network's run; nothing is written where its checkpoint says.

    Args:
        trained: The network.
        data: Folder of the data set; None takes that of the training.

    Raises:
        CnmcError: There is no such data set here, or it is another one, so that nobody could tell
            which of its cells were trained on, or the checkpoint does not say which they are.
    """
    names = {item.name for item in fields(SplitConfig)}
    try:
        config, settings = trained.config["data"], trained.config["split"]
        root, kept = Path(data or config["root"]), Path(config["work_dir"])
        crop, generated = config["crop"], config.get("synthetic") is not None
        split = SplitConfig(**{key: value for key, value in settings.items() if key in names})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CnmcError(
            f"{trained.path}: does not say which cells it was trained on ({type(error).__name__}: "
            f"{error}), so they cannot be found"
        ) from error
    with TemporaryDirectory() as temporary:
        work_dir = Path(temporary)
        _copy_kept(kept, work_dir)
        manifest = load_manifest(root, work_dir, num_workers=num_cores())
        if manifest.fingerprint != trained.run.get("manifest_fingerprint"):
            raise CnmcError(
                f"data.root={root}: not the cells that {trained.path} was trained on (another "
                "fingerprint); give data.root=DIR of its data set"
            )
        usable = usable_cells(manifest, crop=crop, skip_unreadable=True)
        labelled = usable[usable["label"].notna()]
        chosen = load_split(manifest.fingerprint, labelled, split, work_dir)
        if chosen.fingerprint != trained.run.get("split_fingerprint"):
            raise CnmcError(
                f"data.root={root}: the split of {trained.path} cannot be made again, by its "
                "fingerprint; it needs the split file of the training (split.path) where it was"
            )
    cells = labelled.merge(chosen.cells[["cell_id", "role"]], on="cell_id")
    return CellsOfRun(manifest, cells, generated=generated)


def _copy_kept(kept: Path, work_dir: Path) -> None:
    """Copy manifests and splits of a run's working folder: then no image need be read again."""
    for pattern in ("manifest-*.csv", "splits/*.csv", "splits/*.json"):
        for path in kept.glob(pattern):
            copy = work_dir / path.relative_to(kept)
            copy.parent.mkdir(exist_ok=True)
            # What cannot be read is made again.
            with suppress(OSError):
                if path.is_file():
                    shutil.copyfile(path, copy)


def cells_to_check(
    found: CellsOfRun | None, num_cells: int, info: GraphInfo
) -> tuple[Images, Labels, str]:
    """Return cells that both sides of a check are shown, their classes, and what they are.

    Args:
        found: Cells of the network's run, or None where there are none: then cells are drawn.
        num_cells: Their number; of a small data set fewer.
        info: The size that the network wants.
    """
    if found is not None:
        images, labels = found.read(CHOOSING_ROLE, num_cells, info)
        kind = "generated" if found.generated else "real"
        name = found.manifest.root.resolve().name
        return images, labels, f"{len(images)} {kind} cells of {name} (role {CHOOSING_ROLE})"
    rng = np.random.default_rng(0)
    drawn = [
        draw_cell(rng, number % 2, subject_traits(0, 0, number % 2, number // 2), info.size)
        for number in range(num_cells)
    ]
    labels = np.arange(num_cells) % 2
    return np.stack(drawn).astype(np.uint8), labels, f"{num_cells} generated cells"

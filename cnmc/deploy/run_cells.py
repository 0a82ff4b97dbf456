"""Find the cells of a network's run, to check its exported file and to calibrate 8-bit numbers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnmc.analysis.calibration import CHOOSING_ROLE
from cnmc.config import SplitConfig
from cnmc.data.audit import usable_cells
from cnmc.data.images import crop_and_resize, decode, read_file
from cnmc.data.manifest import load_manifest
from cnmc.data.parallel import map_threads
from cnmc.data.sources.synthetic_cells import draw_cell, subject_traits
from cnmc.data.splits import load_split
from cnmc.deploy.exported import GraphInfo, Images
from cnmc.deploy.graph import TrainedNetwork
from cnmc.devices import num_cores
from cnmc.errors import CnmcError

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class CellsOfRun:
    """The labelled cells that a network was trained and chosen on.

    Attributes:
        root: Folder of the data set.
        cells: One row per cell: cell_id, path, subject, label, role.
        generated: Whether the cells are generated.
    """

    root: Path
    cells: pd.DataFrame
    generated: bool

    def read(self, role: str, num_cells: int, info: GraphInfo) -> tuple[Images, Labels]:
        """Read cells of a role, spread evenly over classes and subjects.

        Args:
            role: ``train`` or ``val``.
            num_cells: Largest number of cells.
            info: Network that will see them.

        Returns:
            The cells, and 1 for ALL or 0 for HEM.
        """
        mine = self.cells[self.cells["role"] == role].sort_values(["label", "subject", "cell_id"])
        even = np.linspace(0, len(mine) - 1, min(num_cells, len(mine))).round().astype(int)
        mine = mine.iloc[even]

        def pixels(path: str) -> Images:
            whole = decode(read_file(self.root / path))
            return crop_and_resize(whole, crop=info.crop, resize=info.resize)

        images = map_threads(
            pixels,
            mine["path"].to_list(),
            num_workers=num_cores(),
            description=f"Reading cells ({role})",
        )
        return np.stack(images), mine["label"].to_numpy(dtype=np.int64)


def find_cells(trained: TrainedNetwork, root: Path | None) -> CellsOfRun:
    """Find the cells of a network's run; nothing is written to the run's folders.

    Args:
        trained: The network.
        root: Folder of the data set; None looks where the run folder says.

    Raises:
        CnmcError: The data set is not there, is another one, or its split cannot be repeated.
    """
    data = trained.config["data"]
    if root is None and trained.folder is None:
        raise CnmcError(f"{trained.path}: lies outside its run folder, which names the data set")
    root = root or Path(data["root"])
    names = {item.name for item in fields(SplitConfig)}
    split = SplitConfig(**{k: v for k, v in trained.config["split"].items() if k in names})
    run = trained.info.run
    with TemporaryDirectory() as temporary:
        work_dir = Path(temporary)
        if trained.folder is not None:
            _copy_kept(Path(data["work_dir"]), work_dir)
        manifest = load_manifest(root, work_dir, num_workers=num_cores())
        if manifest.fingerprint != run.get("manifest_fingerprint"):
            raise CnmcError(
                f"data.root={root}: not the cells that {trained.path} was trained on (another "
                "fingerprint); give data.root=DIR of its data set"
            )
        usable = usable_cells(manifest, crop=data["crop"], skip_unreadable=True)
        labelled = usable[usable["label"].notna()]
        chosen = load_split(manifest.fingerprint, labelled, split, work_dir)
    if chosen.fingerprint != run.get("split_fingerprint"):
        raise CnmcError(
            f"data.root={root}: the split of {trained.path} cannot be repeated (another "
            "fingerprint); it needs the split file of the training (split.path)"
        )
    cells = labelled.merge(chosen.cells[["cell_id", "role"]], on="cell_id")
    return CellsOfRun(root, cells, generated=data.get("synthetic") is not None)


def _copy_kept(kept: Path, work_dir: Path) -> None:
    """Copy manifests and splits of a run's working folder, so that no image is read again."""
    for pattern in ("manifest-*.csv", "splits/*"):
        for path in kept.glob(pattern):
            copy = work_dir / path.relative_to(kept)
            copy.parent.mkdir(exist_ok=True)
            with suppress(OSError):
                copyfile(path, copy)


def cells_to_check(
    found: CellsOfRun | None, num_cells: int, info: GraphInfo
) -> tuple[Images, Labels, str]:
    """Return cells to check a file with, their classes, and where they are from.

    Args:
        found: Cells of the run; None draws cells instead.
        num_cells: Largest number of cells.
        info: Network that will see them.
    """
    if found is not None:
        images, labels = found.read(CHOOSING_ROLE, num_cells, info)
        kind = "generated cells" if found.generated else "cells"
        return images, labels, f"{len(images)} {kind} of {found.root.name} (role {CHOOSING_ROLE})"
    rng = np.random.default_rng(0)
    labels = np.arange(num_cells) % 2
    drawn = [
        draw_cell(rng, int(label), subject_traits(0, 0, int(label), number), info.size)
        for number, label in enumerate(labels)
    ]
    return np.stack(drawn), labels, f"{num_cells} generated cells"

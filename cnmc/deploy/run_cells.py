"""Find the cells of a network's run, to check its exported file and to calibrate 8-bit numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnmc.analysis.calibration import CHOOSING_ROLE
from cnmc.config import DataConfig, SplitConfig
from cnmc.data.images import crop_and_resize, decode, read_file
from cnmc.data.sources.synthetic_cells import draw_cell, subject_traits
from cnmc.data.store import open_split
from cnmc.deploy.exported import GraphInfo, Images
from cnmc.deploy.graph import TrainedNetwork
from cnmc.devices import num_cores
from cnmc.errors import CnmcError

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class CellsOfRun:
    """The labelled cells of a data set, with columns cell_id, path, subject, label and role."""

    root: Path
    cells: pd.DataFrame
    generated: bool

    def read(self, role: str, num_cells: int, info: GraphInfo) -> tuple[Images, Labels]:
        """Read at most ``num_cells`` cells of a role, spread evenly over classes and subjects.

        Returns:
            The cells as the network takes them, and 1 for ALL or 0 for HEM.
        """
        mine = self.cells[self.cells["role"] == role].sort_values(["label", "subject", "cell_id"])
        even = np.linspace(0, len(mine) - 1, min(num_cells, len(mine))).round().astype(int)
        mine = mine.iloc[even]
        images = [
            crop_and_resize(decode(read_file(self.root / path)), crop=info.crop, resize=info.resize)
            for path in mine["path"]
        ]
        return np.stack(images), mine["label"].to_numpy(dtype=np.int64)


def find_cells(trained: TrainedNetwork, root: Path | None) -> CellsOfRun:
    """Find the cells of a network's run, below ``root`` or else where the run folder says.

    Raises:
        CnmcError: The data set is not there, is another one, or its split cannot be repeated.
    """
    settings, run = trained.config["data"], trained.info.run
    if root is None and trained.folder is None:
        raise CnmcError(f"{trained.path}: lies outside its run folder, which names the data set")
    root = root or Path(settings["root"])
    with TemporaryDirectory() as temporary:
        known = trained.folder is not None and Path(settings["work_dir"]).is_dir()
        own = {"root": str(root), "work_dir": settings["work_dir"] if known else temporary}
        # Without synthetic, no cell is generated again.
        data = DataConfig(**settings | own | {"synthetic": None, "num_workers": num_cores()})
        opened = open_split(data, SplitConfig(**trained.config["split"]))
    for what in ("manifest", "split"):
        if getattr(opened, what).fingerprint != run.get(f"{what}_fingerprint"):
            raise CnmcError(
                f"data.root={root}: not the {what} that {trained.path} was trained with (another "
                "fingerprint); give data.root=DIR of its data set, and keep the file of its split"
            )
    cells = opened.manifest.cells.merge(opened.split.cells[["cell_id", "role"]], on="cell_id")
    return CellsOfRun(root, cells, generated=settings.get("synthetic") is not None)


def cells_to_check(
    found: CellsOfRun | None, num_cells: int, info: GraphInfo
) -> tuple[Images, Labels, str]:
    """Return cells of a run, or drawn ones for None, with their classes and origin."""
    if found is not None:
        images, labels = found.read(CHOOSING_ROLE, num_cells, info)
        kind = "generated cells" if found.generated else "cells"
        return images, labels, f"{len(images)} {kind} of {found.root.name} (role {CHOOSING_ROLE})"
    rng = np.random.default_rng(0)
    labels = np.arange(num_cells) % 2
    subjects = [subject_traits(0, 0, label, number) for number, label in enumerate(labels.tolist())]
    drawn = [draw_cell(rng, number % 2, s, info.size) for number, s in enumerate(subjects)]
    return np.stack(drawn), labels, f"{num_cells} generated cells"

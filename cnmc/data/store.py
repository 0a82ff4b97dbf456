"""Open what training reads: manifest, cells, split and cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cnmc.config import DataConfig, SplitConfig
from cnmc.data.audit import usable_cells
from cnmc.data.cache import CellCache, open_cache
from cnmc.data.images import Pixels
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.sources.synthetic import generate
from cnmc.data.splits import Split, load_split


@dataclass(frozen=True)
class CellSplit:
    """What identifies a data set and split."""

    manifest: Manifest
    split: Split


@dataclass(frozen=True)
class CellStore(CellSplit):
    """What a run needs of the data."""

    cells: pd.DataFrame
    cache: CellCache

    def pixels(self, cell_id: str) -> Pixels:
        """Return a cell as the network sees it, shape (side, side, 3)."""
        return np.array(self.cache.images[self.cache.rows[cell_id]])


def find_cells(data: DataConfig, *, show_progress: bool = True) -> Manifest:
    """Return the manifest of the data set; generate the cells first if they are generated ones."""
    root = Path(data.root)
    workers = max(data.num_workers, 1)
    if data.synthetic is not None:
        generate(root, data.synthetic, num_workers=workers, show_progress=show_progress)
    return load_manifest(
        root, Path(data.work_dir), num_workers=workers, show_progress=show_progress
    )


def open_split(data: DataConfig, split: SplitConfig, *, show_progress: bool = True) -> CellSplit:
    """Find, check and split the cells without decoding them.

    Raises:
        CnmcError: The data are unusable for training, or the split is impossible.
    """
    manifest = find_cells(data, show_progress=show_progress)
    chosen = load_split(manifest.fingerprint, _labelled(manifest, data), split, Path(data.work_dir))
    return CellSplit(manifest=manifest, split=chosen)


def read_cells(
    manifest: Manifest, data: DataConfig, *, verify_all: bool = False, show_progress: bool = True
) -> tuple[pd.DataFrame, CellCache]:
    """Return the labelled cells of a data set, and their pixels (see :func:`open_cache`).

    Raises:
        CnmcError: The data are unusable for training.
    """
    labelled = _labelled(manifest, data)
    cache = open_cache(
        manifest,
        labelled,
        crop=data.crop,
        resize=data.resize,
        work_dir=Path(data.work_dir),
        num_workers=max(data.num_workers, 1),
        verify_all=verify_all,
        show_progress=show_progress,
    )
    return labelled, cache


def open_cells(data: DataConfig, split: SplitConfig, *, show_progress: bool = True) -> CellStore:
    """Find, check, split and decode the cells; reuse what exists in the working folder.

    Raises:
        CnmcError: The data are unusable for training, or the split is impossible.
    """
    manifest = find_cells(data, show_progress=show_progress)
    cells, cache = read_cells(manifest, data, show_progress=show_progress)
    chosen = load_split(manifest.fingerprint, cells, split, Path(data.work_dir))
    return CellStore(manifest=manifest, cells=cells, split=chosen, cache=cache)


def _labelled(manifest: Manifest, data: DataConfig) -> pd.DataFrame:
    cells = usable_cells(manifest, crop=data.crop, skip_unreadable=data.skip_unreadable)
    return cells[cells["label"].notna()]

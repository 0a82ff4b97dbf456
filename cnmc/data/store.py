"""Open what training reads: manifest, cells, split, and a cache of their pixels.

The cache is a file of all cells, decoded, cropped and resized. It is mapped, so all processes of a
machine share its memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock

from cnmc.config import DataConfig, SplitConfig
from cnmc.data.audit import usable_cells
from cnmc.data.images import Pixels, UnreadableImageError, crop_and_resize, decode, read_file
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.parallel import map_threads, progress
from cnmc.data.sources.synthetic import generate
from cnmc.data.splits import Split, load_split
from cnmc.data.workdir import writing_to
from cnmc.errors import CnmcError
from cnmc.files import replacing

# Part of a cache's name: raise it when the pixels change for the same files.
_VERSION = 2
_NUM_SAMPLED = 256
"""Cells whose pixels are verified at each start: 30 ms at 300 x 300 pixels."""


class CellCache(NamedTuple):
    """Pixels of cells, read-only: cells x side x side x 3, RGB."""

    path: Path
    images: Pixels
    rows: dict[str, int]
    """Row of ``images`` by ``cell_id``."""


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
        """Return a cell as the network sees it, side x side x 3."""
        return np.array(self.cache.images[self.cache.rows[cell_id]])


def find_cells(data: DataConfig) -> Manifest:
    """Return the manifest of the data set; generate the cells first if they are generated ones."""
    root, workers = Path(data.root), data.num_workers
    if data.synthetic is not None:
        generate(root, data.synthetic, num_workers=workers)
    return load_manifest(root, Path(data.work_dir), num_workers=workers)


def open_split(data: DataConfig, split: SplitConfig) -> CellSplit:
    """Find, check and split the cells without decoding them; CnmcError if that is impossible."""
    manifest = find_cells(data)
    cells = _labelled(manifest, data)
    return CellSplit(manifest, load_split(manifest.fingerprint, cells, split, Path(data.work_dir)))


def open_cells(data: DataConfig, split: SplitConfig) -> CellStore:
    """Find, check, split and decode the cells; CnmcError if that is impossible."""
    manifest = find_cells(data)
    cells, cache = read_cells(manifest, data)
    chosen = load_split(manifest.fingerprint, cells, split, Path(data.work_dir))
    return CellStore(manifest, chosen, cells, cache)


def read_cells(
    manifest: Manifest, data: DataConfig, *, verify_all: bool = False
) -> tuple[pd.DataFrame, CellCache]:
    """Return the labelled cells of a data set, and their pixels; CnmcError if that is impossible.

    The cache is built if it is missing or damaged. ``verify_all`` verifies the checksums of all
    cells instead of a random sample.
    """
    cells = _labelled(manifest, data)
    ids = cells["cell_id"].to_list()
    made_from = json.dumps([_VERSION, manifest.fingerprint, ids, data.crop, data.resize])
    key = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    path = Path(data.work_dir, f"images-{key}.npy")
    files = [manifest.root / name for name in cells["path"]]
    rows = np.random.default_rng().permutation(len(files))
    rows = np.sort(rows if verify_all else rows[:_NUM_SAMPLED])
    if not _is_intact(path, rows, data):
        with writing_to(path.parent), FileLock(path.with_name("images.lock")):
            # Another process may have built the cache while this one waited.
            if not _is_intact(path, rows, data, log=True):
                _write(path, files, data)
    images: Pixels = np.load(path, mmap_mode="r")["pixels"]
    return cells, CellCache(path, images, {cell_id: row for row, cell_id in enumerate(ids)})


def _labelled(manifest: Manifest, data: DataConfig) -> pd.DataFrame:
    cells = usable_cells(manifest, crop=data.crop, skip_unreadable=data.skip_unreadable)
    return cells[cells["label"].notna()]


def _is_intact(
    path: Path, rows: np.ndarray[Any, Any], data: DataConfig, *, log: bool = False
) -> bool:
    """Return whether a whole cache exists and these of its cells are unchanged."""
    try:
        table = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    found = map_threads(
        lambda row: zlib.crc32(table["pixels"][row].tobytes()),
        rows.tolist(),
        num_workers=data.num_workers,
        description="Verifying cached cells",
        show_progress=len(rows) > _NUM_SAMPLED,
    )
    num_changed = int((np.array(found) != table["crc32"][rows]).sum())
    if num_changed and log:
        text = (
            "%s: %d of %d verified cells have changed since the cache was built; building it again"
        )
        logging.getLogger(__name__).warning(text, path, num_changed, len(rows))
    return not num_changed


def _write(path: Path, files: list[Path], data: DataConfig) -> None:
    def read(file: Path) -> bytes:
        try:
            whole = decode(read_file(file))
        except UnreadableImageError as error:
            raise CnmcError(f"{file}: {error}; check it with python -m cnmc.prepare") from error
        return crop_and_resize(whole, crop=data.crop, resize=data.resize).tobytes()

    # The lock is held, so these belong to processes that were killed.
    for stale in path.parent.glob(".images-*.tmp"):
        stale.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    side = data.resize or data.crop
    row = [("pixels", "|u1", (side, side, 3)), ("crc32", "<u4")]
    header = {"descr": row, "fortran_order": False, "shape": (len(files),)}
    # Written and not mapped: a full disk is an error here, and kills a process that maps the file.
    with (
        replacing(path) as temporary,
        temporary.open("wb") as output,
        ThreadPoolExecutor(max(1, data.num_workers)) as pool,
        progress("Caching cells", len(files)) as advance,
    ):
        np.lib.format.write_array_header_1_0(output, header)
        for start in range(0, len(files), 64):
            for pixels in pool.map(read, files[start : start + 64]):
                output.write(pixels + zlib.crc32(pixels).to_bytes(4, "little"))
                advance(1)

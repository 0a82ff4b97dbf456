"""The image cache: every cell decoded, cropped and resized once, in one memory-mapped array.

All runs and all processes of a machine share the same pages, so the cache takes its size once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock

from cnmc.data.images import Pixels, UnreadableImageError, crop_and_resize, decode, read_file
from cnmc.data.manifest import Manifest
from cnmc.data.parallel import map_threads, progress, stream_threads
from cnmc.data.workdir import writing_to
from cnmc.errors import CnmcError
from cnmc.files import replacing

Checksums = npt.NDArray[np.uint32]

# Part of a cache's name: raise it when the pixels change for the same files.
_VERSION = 1
_NUM_SAMPLED = 256
"""Cells whose pixels are verified at each start: 30 ms at 300 x 300 pixels."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellCache:
    """Pixels of cells, read-only. A pickled cache holds path and rows, not the pixels.

    Attributes:
        path: The ``.npy`` file.
        rows: Row of the array by ``cell_id``.
        images: Red, green and blue in [0, 255], uint8, of shape (cells, side, side, 3), mapped
            from the file.
    """

    path: Path
    rows: dict[str, int]
    images: Pixels = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Map the file."""
        object.__setattr__(self, "images", np.load(self.path, mmap_mode="r"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Map the file again in another process, which shares its pages with this one."""
        return CellCache, (self.path, self.rows)


def open_cache(
    manifest: Manifest,
    cells: pd.DataFrame,
    *,
    crop: int,
    resize: int | None,
    work_dir: Path,
    num_workers: int,
    verify_all: bool = False,
    show_progress: bool = True,
) -> CellCache:
    """Open the pixels of cells; build the cache from the image files if it is missing or damaged.

    Args:
        manifest: The data set.
        cells: Rows of its manifest, readable and at least as large as the crop.
        crop: Side of the central crop in pixels.
        resize: Side in pixels to which the crop is resized; None keeps the crop's side.
        work_dir: Folder of the cache ``images-<key>.npy`` and its checksums. The key depends on
            data, cells and size, so another choice makes another file.
        num_workers: Threads that decode.
        verify_all: Verify the checksums of all cells instead of a random sample.
        show_progress: Show a progress bar while the cache is built or verified.

    Raises:
        CnmcError: An image cannot be read, or the cache cannot be written.
    """
    ids = cells["cell_id"].to_list()
    side = crop if resize is None else resize
    made_from = json.dumps([_VERSION, manifest.fingerprint, ids, crop, resize])
    key = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    path = work_dir / f"images-{key}.npy"
    shape = (len(ids), side, side, 3)
    num_verified = len(ids) if verify_all else min(_NUM_SAMPLED, len(ids))

    def read(name: str) -> Pixels:
        try:
            pixels = decode(read_file(manifest.root / name))
            return crop_and_resize(pixels, crop=crop, resize=resize)
        except (UnreadableImageError, ValueError) as error:
            raise CnmcError(
                f"{manifest.root / name}: {error}; expected a readable image of at least "
                f"data.crop={crop} pixels a side, check it with python -m cnmc.prepare"
            ) from error

    if not _is_intact(path, shape, num_verified, num_workers, show_progress):
        with writing_to(work_dir), FileLock(work_dir / "images.lock"):
            # Another process may have built the cache while this one waited.
            if not _is_intact(path, shape, num_verified, num_workers, show_progress):
                images = stream_threads(
                    read, cells["path"].to_list(), num_workers=num_workers, num_ahead=64
                )
                _write(path, shape, images, show_progress=show_progress)
    return CellCache(path, {cell_id: row for row, cell_id in enumerate(ids)})


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".crc32.npy")


def _checksum(pixels: Pixels) -> int:
    return zlib.crc32(pixels.tobytes())


def _is_intact(
    path: Path, shape: tuple[int, ...], num_verified: int, num_workers: int, show_progress: bool
) -> bool:
    """Return whether a whole cache of this shape exists and the verified cells are unchanged."""
    try:
        images: Pixels = np.load(path, mmap_mode="r")
        checksums: Checksums = np.load(_checksum_path(path))
    except (OSError, ValueError, EOFError):
        return False
    if images.shape != shape or images.dtype != np.uint8 or checksums.shape != shape[:1]:
        return False
    rows = np.sort(np.random.default_rng().permutation(shape[0])[:num_verified])
    found = map_threads(
        lambda row: _checksum(images[row]),
        rows.tolist(),
        num_workers=num_workers,
        description="Verifying cached cells",
        show_progress=show_progress and num_verified > _NUM_SAMPLED,
    )
    num_changed = int((np.array(found, dtype=np.uint32) != checksums[rows]).sum())
    if num_changed:
        _logger.warning(
            "%s: %d of %d verified cells have changed since the cache was built; building it again",
            path,
            num_changed,
            num_verified,
        )
    return not num_changed


def _write(
    path: Path, shape: tuple[int, ...], images: Iterator[Pixels], *, show_progress: bool
) -> None:
    # The lock is held, so these belong to processes that were killed.
    for stale in path.parent.glob(".images-*.tmp"):
        stale.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    checksums = np.empty(shape[0], dtype=np.uint32)
    # Written and not mapped: a full disk is an error here, and kills a process that maps a file.
    with replacing(path) as temporary:
        with (
            temporary.open("wb") as output,
            progress("Caching cells", shape[0], show_progress=show_progress) as advance,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(output, header)
            for row, pixels in enumerate(images):
                output.write(pixels.tobytes())
                checksums[row] = _checksum(pixels)
                advance(1)
        with replacing(_checksum_path(path)) as other, other.open("wb") as output:
            np.save(output, checksums)

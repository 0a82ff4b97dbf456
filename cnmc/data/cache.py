"""The image cache: every cell decoded, cropped and resized once, in one memory-mapped array.

All runs and all processes of a machine read the same pages of it, so it costs its size once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from cnmc.data.images import Pixels, UnreadableImageError, crop_and_resize, decode, read_file
from cnmc.data.manifest import Manifest
from cnmc.data.parallel import map_threads
from cnmc.data.workdir import make_work_dir
from cnmc.errors import CnmcError
from cnmc.files import replacing

# Part of a cache's name: raise it when the pixels change for the same files.
_VERSION = 1
_GIB = 2**30

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellCache:
    """Pixels of cells, read-only. Pickling one takes its path and rows along, not the pixels.

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
        """Open the file anew in another process, which shares its pages with this one."""
        return CellCache, (self.path, self.rows)


def open_cache(
    manifest: Manifest,
    cells: pd.DataFrame,
    *,
    crop: int,
    resize: int | None,
    work_dir: Path,
    num_workers: int,
    show_progress: bool = True,
) -> CellCache:
    """Open the pixels of cells, which are read from their files if that was not done before.

    Args:
        manifest: The data set.
        cells: Rows of its manifest, readable and at least as large as the crop.
        crop: Side of the central crop in pixels.
        resize: Side in pixels to which the crop is resized; None leaves it.
        work_dir: Folder that takes the cache, ``images-<key>.npy``. The key tells data, cells and
            size, so another choice makes another file.
        num_workers: Threads that decode.
        show_progress: Show a progress bar, with the time left, while the cache is built.

    Raises:
        CnmcError: An image cannot be read, or there is no room.
    """
    ids = cells["cell_id"].to_list()
    side = crop if resize is None else resize
    shape = (len(ids), side, side, 3)
    made_from = json.dumps([_VERSION, manifest.fingerprint, ids, crop, resize])
    key = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    path = work_dir / f"images-{key}.npy"
    rows = {cell_id: row for row, cell_id in enumerate(ids)}
    if not _complete(path, shape):
        make_work_dir(work_dir)
        # One lock for all caches of the folder, so that leftovers can be told from work going on.
        lock = FileLock(work_dir / "images.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _logger.info("Waiting for another process that builds an image cache in %s", work_dir)
            lock.acquire()
        try:
            if not _complete(path, shape):
                _build(
                    path,
                    [manifest.root / name for name in cells["path"]],
                    shape,
                    crop=crop,
                    resize=resize,
                    num_workers=num_workers,
                    show_progress=show_progress,
                )
        finally:
            lock.release()
    return CellCache(path, rows)


def _complete(path: Path, shape: tuple[int, ...]) -> bool:
    """Tell whether a whole cache of this shape lies there."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return bool(images.shape == shape and images.dtype == np.uint8)


def _build(
    path: Path,
    sources: list[Path],
    shape: tuple[int, ...],
    *,
    crop: int,
    resize: int | None,
    num_workers: int,
    show_progress: bool,
) -> None:
    # The lock is held: whatever lies here under a temporary name, its builder is gone.
    for stale in path.parent.glob(".images-*.tmp"):
        stale.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    num_bytes = int(np.prod(shape))
    num_free = shutil.disk_usage(path.parent).free
    if num_free < num_bytes:
        raise _no_room(path, num_bytes, num_free)
    with replacing(path) as temporary:
        images: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=shape
        )
        _reserve(temporary, path)

        def write(row: int) -> None:
            try:
                pixels = decode(read_file(sources[row]))
                images[row] = crop_and_resize(pixels, crop=crop, resize=resize)
            except (UnreadableImageError, ValueError) as error:
                raise CnmcError(
                    f"{sources[row]}: {error}; expected a readable image of at least "
                    f"data.crop={crop} pixels a side, check it with python -m cnmc.prepare"
                ) from error

        map_threads(
            write,
            range(len(sources)),
            num_workers=num_workers,
            description="Caching cells",
            show_progress=show_progress,
        )
        images.flush()


def _no_room(path: Path, num_bytes: int, num_free: int) -> CnmcError:
    return CnmcError(
        f"data.work_dir: the image cache {path} needs {num_bytes / _GIB:.2f} GiB, but only "
        f"{num_free / _GIB:.2f} GiB are free there; give data.work_dir=DIR on a larger disk, or "
        "smaller images with data.resize=PIXELS"
    )


def _reserve(temporary: Path, path: Path) -> None:
    """Claim the blocks of a file that was made with holes.

    Without this a disk that fills up meanwhile kills the process, with no message, in the midst of
    a write to mapped memory.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    num_bytes = temporary.stat().st_size
    with temporary.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            # Some file systems cannot reserve; only a full one is a reason to stop.
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                num_free = shutil.disk_usage(path.parent).free
                raise _no_room(path, num_bytes, num_free) from error

"""The manifest: one row a cell with everything known about it, and a fingerprint of all rows.

Every image is read once. The manifest is kept as a CSV file in the working folder, and later calls
read only the files that changed.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock

from cnmc.data.images import UnreadableImageError, decode, read_file
from cnmc.data.parallel import map_threads
from cnmc.data.sources import Found
from cnmc.data.sources.cnmc import WAYS_OUT, find
from cnmc.data.workdir import writing_to
from cnmc.errors import CnmcError
from cnmc.files import replacing


@dataclass(frozen=True)
class Manifest:
    """Every image of a data set.

    Attributes:
        root: Folder of the data set.
        cells: One row an image, by part and then by name, with the columns

            - ``cell_id``: ``<part>/<file name without suffix>``, unique;
            - ``path``: relative to ``root``;
            - ``part``: ``train``, ``prelim`` or ``final``;
            - ``fold``: ``fold_0`` ..., or empty;
            - ``subject``: upper-cased; empty if unknown;
            - ``label``: 1 ALL, 0 HEM, NA unknown (Int8);
            - ``original_name``: the ``UID_...`` name; empty if unknown;
            - ``size_bytes``, ``mtime_ns``, ``sha256``: of the file;
            - ``width``, ``height``: in pixels, 0 if unreadable;
            - ``error``: why the image is unreadable, else empty.
        fingerprint: SHA-256 over cell, subject, label and file content of all rows. It does not
            depend on where the data are or in which layout.
        found: The cells as their source described them.
    """

    root: Path
    cells: pd.DataFrame
    fingerprint: str
    found: Found


class _File(NamedTuple):
    """What was read from an image file."""

    size_bytes: int
    mtime_ns: int
    sha256: str
    width: int
    height: int
    error: str


def fingerprint_cells(cells: pd.DataFrame) -> str:
    """Return the SHA-256 (hexadecimal) of what identifies the cells, in any order."""
    columns = [cells[name].astype("string").fillna("") for name in ("cell_id", "subject", "label")]
    lines = sorted("\t".join(row) for row in zip(*columns, cells["sha256"], strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def load_manifest(
    root: Path,
    work_dir: Path,
    *,
    num_workers: int,
    show_progress: bool = True,
    max_reads: int | None = None,
    keep: bool = True,
) -> Manifest:
    """Find, read and describe every cell below a folder.

    Args:
        root: Folder of the data set.
        work_dir: Folder in which the manifest is kept. A file is read again only if its path, size
            or modification time differs from what is kept there.
        num_workers: Threads that read.
        show_progress: Show a progress bar while files are read.
        max_reads: Refuse to read more files than this; None reads all.
        keep: Write the manifest; False only reads one that is there.

    Raises:
        CnmcError: The data set is missing or unusable, the manifest cannot be written, or more
            than ``max_reads`` files have to be read.
    """
    if not root.is_dir():
        raise CnmcError(f"data.root={root}: no such folder; {WAYS_OUT}")
    found = find(root)
    paths = found.cells["path"].to_list()
    # By root: two data sets that share a working folder may have equal paths, sizes and times.
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    kept = work_dir / f"manifest-{name}.csv"
    files = _unchanged(root, paths, kept)
    if max_reads is not None and len(paths) - len(files) > max_reads:
        raise CnmcError(
            f"data.root={root}: {len(paths) - len(files):,} of {len(paths):,} cells are not in a "
            "manifest yet; python -m cnmc.prepare, with the data.root and data.work_dir of the "
            "runs, reads them once"
        )

    def complete() -> pd.DataFrame:
        changed = [path for path in paths if path not in files]
        read = map_threads(
            lambda path: _read(root / path),
            changed,
            num_workers=num_workers,
            description="Reading cells",
            show_progress=show_progress,
        )
        return _with_files(found.cells, files | dict(zip(changed, read, strict=True)))

    if keep and len(files) < len(paths):
        with writing_to(work_dir), FileLock(f"{kept}.lock"):
            # Another process may have read the files while this one waited.
            files = _unchanged(root, paths, kept)
            cells = complete()
            with replacing(kept) as temporary:
                cells.to_csv(temporary, index=False)
    else:
        cells = complete()
    return Manifest(root, cells, fingerprint_cells(cells), found)


def _read(path: Path) -> _File:
    try:
        mtime_ns = path.stat().st_mtime_ns
        data = read_file(path)
    except OSError as error:
        return _File(0, 0, "", 0, 0, error.strerror or type(error).__name__)
    except UnreadableImageError as error:
        return _File(0, 0, "", 0, 0, str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        height, width = decode(data).shape[:2]
    except UnreadableImageError as error:
        return _File(len(data), mtime_ns, digest, 0, 0, str(error))
    return _File(len(data), mtime_ns, digest, width, height, "")


def _unchanged(root: Path, paths: list[str], kept: Path) -> dict[str, _File]:
    """Return the kept rows of those files that have not changed since."""
    try:
        table = pd.read_csv(kept, keep_default_na=False)[["path", *_File._fields]]
        rows = {str(path): _File(*values) for path, *values in table.itertuples(index=False)}
    except (OSError, ValueError, KeyError):
        return {}  # The manifest is missing or damaged: read every file.
    unchanged: dict[str, _File] = {}
    for path in paths:
        row = rows.get(path)
        # A file that could not be opened has no hash, and permissions change without a trace.
        if row is None or not row.sha256:
            continue
        try:
            status = (root / path).stat()
        except OSError:
            continue
        if (status.st_size, status.st_mtime_ns) == (row.size_bytes, row.mtime_ns):
            unchanged[path] = row
    return unchanged


def _with_files(cells: pd.DataFrame, files: dict[str, _File]) -> pd.DataFrame:
    rows = [files[path] for path in cells["path"]]
    read = pd.DataFrame(rows, columns=pd.Index(_File._fields), index=cells.index)
    return pd.concat([cells, read], axis=1)

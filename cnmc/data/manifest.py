"""The manifest: one row a cell with everything known about it, and a fingerprint of all rows.

Every image is read once. The manifest is kept as a CSV file in the working folder, and later calls
read only the files that changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cnmc.data.images import UnreadableImageError, decode, read_file
from cnmc.data.parallel import map_threads
from cnmc.data.sources import Finding
from cnmc.data.sources.cnmc import WAYS_OUT, find
from cnmc.errors import CnmcError
from cnmc.files import replacing


@dataclass(frozen=True)
class Manifest:
    """Every image of a data set.

    ``cells`` has one row an image, by part and then by name: ``cell_id`` (``<part>/<file name
    without suffix>``), ``path`` below ``root``, ``part`` (``train``, ``prelim`` or ``final``),
    ``fold`` (``fold_0`` ..., or empty), ``subject`` (upper-cased; empty if unknown), ``label`` (1
    ALL, 0 HEM, NA unknown; Int8), ``original_name`` (``UID_...``; empty if unknown);
    ``size_bytes``, ``mtime_ns`` and ``sha256`` of the file, ``width`` and ``height`` in pixels (0
    if unreadable), and ``error``, why it is unreadable.
    """

    root: Path
    cells: pd.DataFrame
    findings: list[Finding]
    """What is wrong with the names; :func:`cnmc.data.audit.audit` adds the contents."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over cell, subject, label and file content of all rows, in any layout."""
        columns = self.cells[["cell_id", "subject", "label", "sha256"]].astype("string").fillna("")
        lines = sorted("\t".join(row) for row in columns.itertuples(index=False))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _File(NamedTuple):
    """What was read from an image file."""

    size_bytes: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    width: int = 0
    height: int = 0
    error: str = ""


def load_manifest(
    root: Path,
    work_dir: Path,
    *,
    num_workers: int,
    max_reads: int | None = None,
) -> Manifest:
    """Find, read and describe every cell below a folder.

    The manifest is kept in ``work_dir``: a file is read again only if its path, size or
    modification time differs from what is kept there. With ``max_reads`` only so many files may be
    read, no progress is shown, and nothing is kept.

    Raises:
        CnmcError: The data set is missing or unusable, the manifest cannot be written, or more
            than ``max_reads`` files have to be read.
    """
    if not root.is_dir():
        raise CnmcError(f"data.root={root}: no such folder; {WAYS_OUT}")
    cells, findings = find(root)
    paths = cells["path"].to_list()
    # By root: two data sets that share a working folder may have equal paths, sizes and times.
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    kept = work_dir / f"manifest-{name}.csv"
    files = _unchanged(root, paths, kept)
    changed = [path for path in paths if path not in files]
    if max_reads is not None and len(changed) > max_reads:
        raise CnmcError(
            f"data.root={root}: {len(changed):,} of {len(paths):,} cells are in no manifest; run "
            "python -m cnmc.prepare with the data.root and data.work_dir of the runs"
        )
    read = map_threads(
        lambda path: _read(root / path),
        changed,
        num_workers=num_workers,
        description="Reading cells",
        show_progress=max_reads is None,
    )
    files |= dict(zip(changed, read, strict=True))
    rows = [files[path] for path in paths]
    cells = cells.join(pd.DataFrame(rows, columns=pd.Index(_File._fields), index=cells.index))
    if changed and max_reads is None:
        with writing_to(work_dir), replacing(kept) as temporary:
            cells.to_csv(temporary, index=False)
    return Manifest(root, cells, findings)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Create a folder, and raise CnmcError if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise CnmcError(
            f"data.work_dir: cannot write to {folder} ({error.strerror or error}); expected a "
            "folder with free space that you may write to, give data.work_dir=DIR"
        ) from error


def _read(path: Path) -> _File:
    file = _File()
    try:
        data = read_file(path)
        file = _File(len(data), path.stat().st_mtime_ns, hashlib.sha256(data).hexdigest())
        height, width = decode(data).shape[:2]
        return file._replace(width=width, height=height)
    except UnreadableImageError as error:
        return file._replace(error=str(error))


def _unchanged(root: Path, paths: list[str], kept: Path) -> dict[str, _File]:
    """Return the kept rows of those files that have not changed since."""
    unchanged: dict[str, _File] = {}
    # Without a readable manifest, every file is read.
    with suppress(OSError, ValueError, KeyError):
        table = pd.read_csv(kept, keep_default_na=False)[["path", *_File._fields]]
        # A file that could not be opened has no hash, and permissions change without a trace.
        table = table[table["path"].isin(paths) & (table["sha256"] != "")]
        for path, *values in table.itertuples(index=False):
            with suppress(OSError):
                status, file = (root / path).stat(), _File(*values)
                if (status.st_size, status.st_mtime_ns) == file[:2]:
                    unchanged[path] = file
    return unchanged

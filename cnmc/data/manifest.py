"""The manifest: one row a cell, with what is known of it and a fingerprint of the whole.

It is made by reading every image once, kept as a CSV file in the working folder, and brought up to
date on every later call by reading only the files that changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from filelock import FileLock

from cnmc.data.images import UnreadableImageError, decode, read_file
from cnmc.data.parallel import map_threads
from cnmc.data.sources.cnmc import join_labels, read_labels, scan_names
from cnmc.data.workdir import writing_to
from cnmc.errors import CnmcError
from cnmc.files import replacing

COLUMNS = (
    "cell_id",
    "path",
    "part",
    "fold",
    "subject",
    "label",
    "original_name",
    "size_bytes",
    "mtime_ns",
    "sha256",
    "width",
    "height",
    "error",
)
_WAYS_OUT = (
    "download C-NMC 2019 from TCIA (doi:10.7937/tcia.2019.dc64i46r) and give data.root=DIR, "
    "or generate cells with data=synthetic"
)


@dataclass(frozen=True)
class Manifest:
    """Every image of a data set.

    Attributes:
        root: Folder of the data set.
        cells: One row an image, by part and then by name, with the columns

            - ``cell_id``: ``<part>/<file name without suffix>``, unique;
            - ``path``: relative to ``root``;
            - ``part``: ``train``, ``prelim`` or ``final``;
            - ``fold``: ``fold_0`` ..., empty where there is none;
            - ``subject``: upper-cased; empty where unknown;
            - ``label``: 1 ALL, 0 HEM, NA where unknown (Int8);
            - ``original_name``: the ``UID_...`` name; empty where unknown;
            - ``size_bytes``, ``mtime_ns``, ``sha256``: of the file;
            - ``width``, ``height``: in pixels, 0 where it cannot be read;
            - ``error``: why it cannot be read, else empty.
        fingerprint: SHA-256 over cell, subject, label and file content of all rows: the same
            wherever the data lie and in whichever of the layouts.
        labels_without_image: Names in the label file for which there is no image.
        ignored: Images below the root that belong to no part of the release.
        label_file: Path of the label file of the preliminary part; empty where there is none.
    """

    root: Path
    cells: pd.DataFrame
    fingerprint: str
    labels_without_image: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    label_file: str = ""


class _File(NamedTuple):
    """What reading an image told."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    width: int
    height: int
    error: str


def fingerprint_cells(cells: pd.DataFrame) -> str:
    """Return the SHA-256 (hexadecimal) of what identifies the cells, in whatever order they are."""
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
) -> Manifest:
    """Find, read and describe every cell below a folder.

    Args:
        root: Folder of the data set, in any layout of the release, complete or in part.
        work_dir: Folder in which the manifest is kept. A file is read again only when its path,
            size or time of change differ from what is kept there.
        num_workers: Threads that read.
        show_progress: Show a progress bar, with the time left, where files must be read.
        max_reads: Refuse, before the first, to read more files than this; None reads them all.

    Raises:
        CnmcError: No folder, no cell, the same cell twice, a label file that cannot be used, or
            more files to read than ``max_reads``.
    """
    if not root.is_dir():
        raise CnmcError(f"data.root={root}: no such folder; {_WAYS_OUT}")
    scan = scan_names(_walk(root), root_name=root.resolve().name)
    if scan.cells.empty:
        others = f" ({len(scan.ignored):,} other BMP files)" if scan.ignored else ""
        raise CnmcError(f"data.root={root}: no cell of C-NMC 2019 found{others}; {_WAYS_OUT}")
    label_file, labels = _only_labels(root, scan.label_files)
    cells, left_over = (scan.cells, ()) if labels is None else join_labels(scan.cells, labels)

    # Named after the root: two data sets may share a working folder and, unpacked from archives,
    # paths, sizes and times of change.
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    kept = work_dir / f"manifest-{name}.csv"
    paths = cells["path"].to_list()
    known = _known_files(root, paths, kept)
    if max_reads is not None and len(paths) - len(known) > max_reads:
        raise CnmcError(
            f"data.root={root}: {len(paths) - len(known):,} of {len(paths):,} cells are not in a "
            "manifest yet; python -m cnmc.prepare, with the data.root and data.work_dir of the "
            "runs, reads them once"
        )
    if len(known) < len(paths):
        with writing_to(work_dir), FileLock(f"{kept}.lock"):
            # Another process may have read the files while this one waited.
            known = _known_files(root, paths, kept)
            unknown = [path for path in paths if path not in known]
            read = map_threads(
                lambda path: _read_file(root, path),
                unknown,
                num_workers=num_workers,
                description="Reading cells",
                show_progress=show_progress,
            )
            known.update(zip(unknown, read, strict=True))
            cells = _with_files(cells, known)
            with replacing(kept) as temporary:
                cells.to_csv(temporary, index=False)
    else:
        cells = _with_files(cells, known)
    return Manifest(
        root=root,
        cells=cells,
        fingerprint=fingerprint_cells(cells),
        labels_without_image=left_over,
        ignored=scan.ignored,
        label_file=label_file,
    )


def _walk(root: Path) -> Iterator[str]:
    """Yield every file below the root, relative to it, following links once."""

    def refuse(error: OSError) -> None:
        # Passing over a folder in silence would lose its cells.
        raise CnmcError(
            f"{error.filename}: cannot list this folder ({error.strerror}); expected one that you "
            "may read, as everything below data.root"
        ) from error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Archives made on a Mac carry a shadow `._name.bmp` of every image.
        folders[:] = sorted(d for d in folders if not d.startswith((".", "__MACOSX")))
        relative = Path(folder).relative_to(root)
        for name in sorted(files):
            path = (relative / name).as_posix()
            if not name.startswith(".") and (_is_utf8(path) or _refuse_name(root, path)):
                yield path


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_name(root: Path, path: str) -> bool:
    """Refuse a file of the data set whose name no table can hold; pass over any other."""
    if path.lower().endswith((".bmp", ".csv")):
        escaped = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise CnmcError(
            f"data.root={root}: the name {escaped} is not UTF-8; rename it, for instance with "
            "convmv -r -f latin1 -t utf8 --notest"
        )
    return False


def _only_labels(root: Path, paths: tuple[str, ...]) -> tuple[str, pd.DataFrame | None]:
    """Read the label file; copies of it are fine while they say the same."""
    if not paths:
        return "", None
    first, *others = (read_labels(root / path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        by_key = (frame.set_index("key").sort_index() for frame in (first, other))
        if not next(by_key).equals(next(by_key)):
            raise CnmcError(
                f"{root / paths[0]} and {root / path}: two label files that say different things; "
                "expected one, remove the other"
            )
    return paths[0], first


def _read_file(root: Path, path: str) -> _File:
    full = root / path
    try:
        mtime_ns = full.stat().st_mtime_ns
        data = read_file(full)
    except OSError as error:
        return _File(path, 0, 0, "", 0, 0, error.strerror or type(error).__name__)
    except UnreadableImageError as error:
        return _File(path, 0, 0, "", 0, 0, str(error))
    digest = hashlib.sha256(data).hexdigest()
    try:
        height, width = decode(data).shape[:2]
        reason = ""
    except UnreadableImageError as error:
        height, width, reason = 0, 0, str(error)
    return _File(path, len(data), mtime_ns, digest, width, height, reason)


def _known_files(root: Path, paths: list[str], kept: Path) -> dict[str, _File]:
    """Return what the kept manifest says of those files that have not changed since."""
    try:
        table = pd.read_csv(kept, dtype=str, keep_default_na=False)
        rows = [
            _File(p, int(size), int(mtime), sha256, int(width), int(height), error)
            for p, size, mtime, sha256, width, height, error in zip(
                *(table[name] for name in _File._fields), strict=True
            )
        ]
    except (OSError, ValueError, KeyError):
        return {}  # None kept yet, or a damaged one: every file is read.
    by_path = {row.path: row for row in rows}
    known: dict[str, _File] = {}
    for path in paths:
        row = by_path.get(path)
        # A file that could not be opened has no hash; permissions change without a trace in it.
        if row is None or not row.sha256:
            continue
        try:
            status = (root / path).stat()
        except OSError:
            continue
        if (status.st_size, status.st_mtime_ns) == (row.size_bytes, row.mtime_ns):
            known[path] = row
    return known


def _with_files(cells: pd.DataFrame, files: dict[str, _File]) -> pd.DataFrame:
    rows = [files[path] for path in cells["path"]]
    read = pd.DataFrame(rows, columns=pd.Index(_File._fields), index=cells.index)
    return pd.concat([cells, read.drop(columns="path")], axis=1)[list(COLUMNS)]

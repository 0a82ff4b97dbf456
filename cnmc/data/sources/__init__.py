"""Kinds of data sets. Each module finds the cells of one kind and returns :class:`Found`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cnmc.errors import CnmcError
from cnmc.files import printable


@dataclass(frozen=True)
class Found:
    """The cells of a data set, known from names and tables, before any image is read.

    Attributes:
        cells: The columns ``cell_id`` to ``original_name`` of
            :attr:`cnmc.data.manifest.Manifest.cells`.
        label_file: Path of the label file, relative to the root; empty if there is none.
        labels_without_image: Names in the label file for which there is no image.
        ignored: Images below the root that do not belong to the data set.
    """

    cells: pd.DataFrame
    label_file: str = ""
    labels_without_image: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Yield the files below a folder that have one of some suffixes; follow each link once.

    Args:
        root: The folder.
        suffixes: Ends of file names in lower case.

    Yields:
        Paths relative to the root, with ``/`` between components.

    Raises:
        CnmcError: A folder cannot be listed, or the name of a file is not UTF-8.
    """

    def refuse(error: OSError) -> None:
        raise CnmcError(
            f"{error.filename}: cannot list this folder ({error.strerror}); expected read "
            "permission for everything below data.root"
        ) from error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # Archives made on a Mac contain a shadow `._name.bmp` of every image.
        folders[:] = sorted(d for d in folders if not d.startswith((".", "__MACOSX")))
        for name in sorted(files):
            if name.startswith(".") or not name.lower().endswith(suffixes):
                continue
            path = (Path(folder).relative_to(root) / name).as_posix()
            if printable(path) != path:
                raise CnmcError(
                    f"data.root={root}: the name {printable(path)} is not UTF-8; rename it, "
                    "for instance with convmv -r -f latin1 -t utf8 --notest"
                )
            yield path

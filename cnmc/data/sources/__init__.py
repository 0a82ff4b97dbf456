"""Kinds of data sets: one module each, whose ``find`` returns a table of cells and findings.

The table has the columns ``cell_id`` to ``original_name`` of
:class:`cnmc.data.manifest.Manifest`; no image is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cnmc.data.names import shown
from cnmc.errors import CnmcError
from cnmc.files import printable


class Finding(NamedTuple):
    """Files, cells or subjects that share a problem; an ``error`` prevents training."""

    level: Literal["warning", "error"]
    check: str
    problem: str
    names: Sequence[str]

    @property
    def message(self) -> str:
        """The problem, how many have it, and some of their names."""
        return f"{self.problem} ({len(self.names):,}): {shown(self.names)}"


def walk(root: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths of files, relative to a folder, whose names end in one of some suffixes.

    Raises:
        CnmcError: A folder cannot be listed, or the name of a file is not UTF-8.
    """

    def refuse(error: OSError) -> None:
        raise CnmcError(f"{error.filename}: cannot list this folder ({error.strerror})") from error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        # Archives made on a Mac contain a shadow `._name.bmp` of every image.
        inner = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        # A link may lead back to a folder above it.
        folders[:] = [name for name in inner if os.path.realpath(f"{folder}/{name}") not in seen]
        seen |= {os.path.realpath(f"{folder}/{name}") for name in folders}
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                path = (Path(folder).relative_to(root) / name).as_posix()
                if printable(path) != path:
                    raise CnmcError(f"{root}: the name {printable(path)} is not UTF-8; rename it")
                yield path

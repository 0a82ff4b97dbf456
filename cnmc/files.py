"""Writing files whole or not at all; sorting and printing their names."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Yield a temporary path that takes the place of ``path`` if nothing is raised.

    ``lasting`` writes the content to the disk first; else a power failure may leave an empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if lasting:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sorting key that puts ``2`` before ``10``."""
    return tuple(int(s) if i % 2 else s for i, s in enumerate(re.split(r"(\d+)", name)))


def printable(path: str | Path) -> str:
    r"""Return a path as text that can be printed: a byte that is not UTF-8 becomes ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")

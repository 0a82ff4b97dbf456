"""The working folder, which holds manifest, splits and image cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cnmc.errors import CnmcError


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

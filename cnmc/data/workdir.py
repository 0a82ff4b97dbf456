"""The working folder: where manifest, splits and image cache are kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cnmc.errors import CnmcError
from cnmc.files import replacing


def make_work_dir(work_dir: Path) -> Path:
    """Create the working folder, or a folder in it.

    Raises:
        CnmcError: The folder cannot be made or written to; names ``data.work_dir``.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(work_dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise CnmcError(
            f"data.work_dir: cannot make or write to {work_dir} ({error.strerror}); "
            "expected a folder that you may write to, give data.work_dir=DIR"
        ) from error
    return work_dir


def write_text(path: Path, text: str) -> None:
    """Write a file of the working folder so that no reader ever sees half of it.

    Raises:
        CnmcError: It cannot be written; names ``data.work_dir``.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise CnmcError(
            f"data.work_dir: cannot write {path} ({error.strerror}); expected a folder with free "
            "space that you may write to, give data.work_dir=DIR"
        ) from error

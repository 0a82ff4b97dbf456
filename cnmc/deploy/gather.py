"""Find the files to screen, and give them names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnmc.data.images import SUFFIXES
from cnmc.deploy.outputs import FILES
from cnmc.errors import CnmcError
from cnmc.files import natural_key, printable


@dataclass(frozen=True)
class Source:
    r"""A file to read as an image.

    Attributes:
        path: The file.
        name: Path relative to the input folder, with ``/`` between its parts. A byte that is not
            UTF-8 is written as ``\xff`` and a backslash twice, so no two files share a name.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, with its :attr:`Source.name` and a reason in a few words."""

    name: str
    reason: str


def gather(inputs: Sequence[Path], output: Path) -> tuple[list[Source], list[Skipped]]:
    """Find the images of folders, with their subfolders, and of single files.

    Hidden files and the files of a screening itself are ignored. Files whose names do not end as
    those of images are skipped, and so are links to folders. A file that is given itself is read
    with any name.

    Args:
        inputs: Folders and files. Names are relative to their deepest common folder.
        output: The output folder, which may lie in an input folder.

    Returns:
        Files to read and files that are skipped, both in natural order (``2`` before ``10``).

    Raises:
        CnmcError: An input does not exist or cannot be read, or there is no file at all.
    """
    places = [Path(os.path.abspath(path)) for path in inputs]  # noqa: PTH100 (links are kept)
    for place in places:
        if not os.path.lexists(place):
            raise CnmcError(f"input={place}: no such file or folder")
    base = Path(os.path.commonpath([p if p.is_dir() else p.parent for p in places]))
    sources: dict[str, Source] = {}
    skipped: dict[str, Skipped] = {}
    for place in places:
        found = _walk(place, output.resolve()) if place.is_dir() else [(place, "")]
        for path, reason in found:
            name = _name(path, base)
            if reason:
                skipped[name] = Skipped(name, reason)
            else:
                sources[name] = Source(path, name)
    if not sources and not skipped:
        raise CnmcError(
            f"input={', '.join(map(str, inputs))}: no image there (a name that ends in "
            f"{', '.join(SUFFIXES)})"
        )
    return (
        [sources[name] for name in sorted(sources, key=natural_key)],
        [skipped[name] for name in sorted(skipped.keys() - sources, key=natural_key)],
    )


def _walk(folder: Path, output: Path) -> Iterable[tuple[Path, str]]:
    """Yield every file below a folder with the reason to skip it, empty for an image."""
    errors: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            path = Path(parent, name)
            if path.is_symlink():
                yield path, "link to a folder, which is not followed"
            elif path.suffix.lower() in SUFFIXES:
                yield path, "folder, not an image"
        own = FILES if Path(parent).resolve() == output else ()
        for name in files:
            if not name.startswith(".") and name not in own:
                is_image = Path(name).suffix.lower() in SUFFIXES
                yield Path(parent, name), "" if is_image else "name of no BMP, PNG, JPEG or TIFF"
    for error in errors:
        if Path(error.filename) == folder:
            raise CnmcError(f"input={folder}: cannot be read ({error.strerror})") from error
        yield Path(error.filename), f"folder cannot be read ({error.strerror})"


def _name(path: Path, base: Path) -> str:
    return printable(path.relative_to(base).as_posix().replace("\\", r"\\"))

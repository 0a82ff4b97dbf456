"""Which files are to be screened, and what they are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnmc.deploy.screening_files import FILES
from cnmc.errors import CnmcError
from cnmc.files import natural_key

IMAGES = frozenset({".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff"})
"""Ends of names, in either case, that stand for an image that can be read."""


@dataclass(frozen=True)
class Source:
    r"""A file that is to be read as an image.

    Attributes:
        path: The file.
        name: Its path relative to the input folder, with ``/`` between its parts, as text that
            every file and page can hold: a byte that is no text is written as ``\xff``, and a
            backslash twice, so that no two files share a name.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Skipped:
    """A file that was left out.

    Attributes:
        name: As in :class:`Source`.
        reason: In a few words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What lies in the input, in natural order: ``2`` before ``10``."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...]


def gather(inputs: Sequence[Path], output: Path) -> Found:
    """Find the images of folders, with all folders inside, and of single files.

    Hidden files and folders are passed over, and so is what screening itself writes. Whatever else
    has no name of an image is listed as skipped, and so are links to folders, which are not
    followed, and folders that are named like an image. A file that is named itself is read whatever
    its name is.

    Args:
        inputs: Folders and files. Names are relative to the one folder, or to the deepest folder
            that holds all of several.
        output: The output folder, which may lie among them.

    Raises:
        CnmcError: There is nothing of a name, a folder cannot be read, or there is no file at all.
    """
    if not inputs:
        raise CnmcError("input: expected a folder or files, but none is given")
    # Where a link leads is none of a name's business.
    places = [Path(os.path.abspath(path)) for path in inputs]  # noqa: PTH100
    for given, place in zip(inputs, places, strict=True):
        if not os.path.lexists(place):
            raise CnmcError(f"input={given}: there is no such file or folder")
    folders = [str(place if place.is_dir() else place.parent) for place in places]
    base = Path(os.path.commonpath(folders))
    sources: dict[str, Source] = {}
    skipped: dict[str, Skipped] = {}
    for place in places:
        files = _walk(place, base, skipped, output.resolve()) if place.is_dir() else [place]
        for path in files:
            name = _name(path, base)
            sources[name] = Source(path, name)
    if not sources and not skipped:
        raise CnmcError(
            f"input={', '.join(map(str, inputs))}: no image there (expected names that end in "
            f"{', '.join(sorted(IMAGES))})"
        )
    return Found(
        tuple(sources[name] for name in sorted(sources, key=natural_key)),
        tuple(skipped[name] for name in sorted(skipped.keys() - sources, key=natural_key)),
    )


def _walk(folder: Path, base: Path, skipped: dict[str, Skipped], output: Path) -> Iterable[Path]:
    """Yield the images below a folder, and note what else is there."""

    def skip(path: Path, reason: str) -> None:
        name = _name(path, base)
        skipped[name] = Skipped(name, reason)

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise CnmcError(f"input={folder}: cannot be read ({error.strerror})") from error
        skip(Path(error.filename), f"the folder cannot be read ({error.strerror})")

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            path = Path(parent, name)
            if path.is_symlink():
                skip(path, "a link to a folder, which is not followed")
            elif path.suffix.lower() in IMAGES:
                skip(path, "a folder, not an image")
        own = FILES if Path(parent).resolve() == output else frozenset()
        for name in files:
            path = Path(parent, name)
            if name.startswith(".") or name in own:
                continue
            if path.suffix.lower() in IMAGES:
                yield path
            else:
                skip(path, "not BMP, PNG, JPEG or TIFF by its name")


def _name(path: Path, base: Path) -> str:
    """Return what a file is called, whatever bytes its path is made of; see :class:`Source`."""
    name = path.relative_to(base).as_posix().replace("\\", r"\\")
    return os.fsencode(name).decode("utf-8", "backslashreplace")

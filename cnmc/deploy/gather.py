"""Find the files to screen, and give them names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cnmc.data.images import SUFFIXES
from cnmc.deploy.outputs import JOURNAL, RESULTS
from cnmc.errors import CnmcError
from cnmc.files import natural_key, printable


def gather(inputs: Sequence[Path], output: Path) -> tuple[dict[str, Path], dict[str, str]]:
    r"""Find the images of folders, with their subfolders, and of single files with any name.

    Hidden files and the files of a screening itself are ignored.

    Returns:
        Paths of the files to read and reasons to skip the other files, by name in natural order. A
        name is the path relative to the deepest common folder of the inputs. A byte that is not
        UTF-8 is written as ``\xff`` and a backslash twice, so no two files share a name.

    Raises:
        CnmcError: An input does not exist or cannot be read, or there is no file at all.
    """
    places = [Path(os.path.abspath(path)) for path in inputs]  # noqa: PTH100 (links are kept)
    for place in places:
        if not os.path.lexists(place):
            raise CnmcError(f"input={place}: no such file or folder")
    base = Path(os.path.commonpath([p if p.is_dir() else p.parent for p in places]))
    found: dict[str, tuple[Path, str]] = {}
    for place in places:
        for path, reason in _walk(place, output.resolve()) if place.is_dir() else [(place, "")]:
            name = printable(path.relative_to(base).as_posix().replace("\\", r"\\"))
            if name not in found or not reason:
                found[name] = path, reason
    if not found:
        raise CnmcError(
            f"input={', '.join(map(str, inputs))}: no image there (a name that ends in "
            f"{', '.join(SUFFIXES)})"
        )
    ordered = [(name, *found[name]) for name in sorted(found, key=natural_key)]
    return (
        {name: path for name, path, reason in ordered if not reason},
        {name: reason for name, _, reason in ordered if reason},
    )


def _walk(folder: Path, output: Path) -> Iterable[tuple[Path, str]]:
    """Yield every file below a folder with the reason to skip it, empty for an image."""
    errors: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in folders):
            if path.is_symlink():
                yield path, "link to a folder, which is not followed"
            elif path.suffix.lower() in SUFFIXES:
                yield path, "folder, not an image"
        own = (*RESULTS, JOURNAL) if Path(parent).resolve() == output else ()
        for path in (Path(parent, name) for name in files if name not in own):
            if not path.name.startswith("."):
                is_image = path.suffix.lower() in SUFFIXES
                yield path, "" if is_image else "name of no BMP, PNG, JPEG or TIFF"
    for error in errors:
        if Path(error.filename) == folder:
            raise CnmcError(f"input={folder}: cannot be read ({error.strerror})") from error
        yield Path(error.filename), f"folder cannot be read ({error.strerror})"

"""Find files, run networks over them with a journal, and warn about images unlike training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cnmc.data.images import (
    SUFFIXES,
    Pixels,
    UnreadableImageError,
    center_crop,
    crop_and_resize,
    decode,
    read_file,
)
from cnmc.data.parallel import progress
from cnmc.deploy.networks import Images, Network
from cnmc.deploy.outputs import RESULTS, Entry, write_results
from cnmc.errors import CnmcError
from cnmc.files import natural_key, printable, replacing

JOURNAL = "journal.jsonl"
_JOURNAL_FORMAT = 2
"""Version of the journal; raise it when files are decoded or warned about in another way."""

_MIN_BATCH = 8
"""Smallest batch of files; a process that is killed loses one batch."""

_BLACK = 10
"""A pixel is black where no channel is above this, because JPEG leaves traces."""

_CROP, _BORDER = 300, 4
"""Side of the central square (the paper's crop) and width of its border in pixels."""

_TYPICAL = [(0.799, 1), (13757.51, 50444.341), (47.706, 99.329), (20.533, 46.412), (61.04, 94.821)]
"""Quantiles 0.001 and 0.999 over 1,618 training cells of C-NMC 2019 (fold 1; 6 subjects with ALL, 2
without): the share of black pixels along the border of the central square, the number of pixels
that are not black, and their mean red, green and blue in [0, 255]."""

_MARGIN = 0.2
"""Share by which a range is widened on both sides, because eight people are few."""


def gather(inputs: Sequence[Path], output: Path) -> tuple[dict[str, Path], dict[str, str]]:
    r"""Find the images of folders, with their subfolders, and of single files with any name.

    Hidden files and the files of a screening itself are ignored.

    Returns:
        Paths of the files to read and reasons to skip the other files, by name in natural order. A
        name is the path relative to the deepest common folder of the inputs. A byte that is not
        UTF-8 is written as ``\xff`` and a backslash twice, so no two files share a name.
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


class Journal:
    """Store logits while a screening runs, and read those of an interrupted screening.

    Entries are found by the digest of a file's content, so a renamed file is not computed again and
    a replaced file is. Every line has a checksum over itself and the networks; a line that was
    edited or damaged is ignored. A foreign or damaged journal is only replaced with ``overwrite``.
    Where a new journal begins, the results in its folder are removed.
    """

    def __init__(self, folder: Path, networks: Sequence[str], *, overwrite: bool) -> None:
        self._path = folder / JOURNAL
        self._header = json.dumps({"cnmc.screening": _JOURNAL_FORMAT, "networks": networks})
        self.entries: dict[str, Entry] = {}
        lines = []
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        if lines and lines[0] == self._header:
            for line in lines[1:]:
                text = line.rpartition(', "check": ')[0] + "}"
                if line == self._with_checksum(text):
                    row = json.loads(text)
                    self.entries[row["file"]] = Entry(row["logits"], row["warnings"])
        elif lines and not overwrite:
            raise CnmcError(
                f"{self._path}: belongs to other networks or another version of cnmc, or is "
                "damaged; overwrite=true starts over in this folder, output=DIR names another"
            )
        else:
            # Remove them first: tables must never lie beside the journal of other networks.
            write_results(folder, {})
            with replacing(self._path) as temporary:
                temporary.write_text(self._header, encoding="utf-8")

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Append entries by the digest of their file's content."""
        rows = [json.dumps({"file": key, **entry._asdict()}) for key, entry in entries.items()]
        with self._path.open("a", encoding="utf-8") as file:
            # The line break comes first: the last line may end where a process was killed.
            file.writelines("\n" + self._with_checksum(row) for row in rows)
        self.entries.update(entries)

    def _with_checksum(self, row: str) -> str:
        check = hashlib.blake2b((self._header + row).encode(), digest_size=8).hexdigest()
        return f'{row[:-1]}, "check": "{check}"}}'


def screen(
    sources: Mapping[str, Path], networks: Sequence[Network], journal: Journal, num_threads: int
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Compute the logits of the files that the journal does not have, and add them to it.

    Returns:
        The entries of the files, and reasons to skip the files without one, by name.
    """
    info = networks[0].info

    def read(name: str) -> tuple[str, Images | None, list[str]] | str:
        """Return digest, pixels and warnings of a file, or the reason to skip it."""
        try:
            data = read_file(sources[name])
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            if digest in journal.entries:
                return digest, None, []
            pixels = decode(data)
            image = crop_and_resize(pixels, crop=info.crop, resize=info.resize)
            return digest, image, warnings_of(pixels)
        except (UnreadableImageError, ValueError) as error:
            return str(error)

    names, size = list(sources), max(_MIN_BATCH, num_threads)
    digests: dict[str, str] = {}
    skipped: dict[str, str] = {}
    with progress("Screening", len(names)) as advance, ThreadPoolExecutor(num_threads) as pool:
        for part in (names[start : start + size] for start in range(0, len(names), size)):
            batch: dict[str, tuple[Images, list[str]]] = {}
            for name, result in zip(part, pool.map(read, part), strict=True):
                if isinstance(result, str):
                    skipped[name] = result
                    continue
                digests[name], image, warnings = result
                if image is not None:
                    batch[digests[name]] = image, warnings
            if batch:
                journal.add(_predict(batch, networks))
            advance(len(part))
    seen = {name: journal.entries[key] for name, key in digests.items() if key in journal.entries}
    no_number = "the network gives no finite number for it"
    return seen, skipped | {name: no_number for name in digests if name not in seen}


def _predict(
    batch: Mapping[str, tuple[Images, list[str]]], networks: Sequence[Network]
) -> dict[str, Entry]:
    """Return entries by digest for the images whose logits are finite."""
    images = np.stack([image for image, _ in batch.values()])
    logits = [network.logits(images) for network in networks]
    return {
        digest: Entry([row.tolist() for row in rows], warnings)
        for (digest, (_, warnings)), *rows in zip(batch.items(), *logits, strict=True)
        if all(np.isfinite(row).all() for row in rows)
    }


def warnings_of(pixels: Pixels) -> list[str]:
    """Return how an RGB image of 8 bits differs from those of training, in a few words each.

    The networks give a probability for any image, but only know segmented, stain-normalised cells.
    """
    is_cell = pixels.max(axis=2) > _BLACK
    square = center_crop(is_cell[..., None], min(_CROP, *is_cell.shape))[..., 0]
    is_border = np.ones_like(square)
    is_border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    colour = pixels[is_cell].mean(axis=0) if is_cell.any() else np.zeros(3)
    values = np.array([1 - square[is_border].mean(), is_cell.sum(), *colour])
    low, high = np.array(_TYPICAL).T
    margin = _MARGIN * (high - low)
    below, above = values < low - margin, values > high + margin
    warnings = {
        "background not black": below[0],
        "cell smaller than in training": below[1],
        "cell larger than in training": above[1],
        "colour unlike training": (below | above)[2:].any(),
    }
    return [warning for warning, applies in warnings.items() if applies]

"""Networks over files: reading ahead of them, batch by batch, with a journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnmc.data.images import UnreadableImageError, crop_and_resize
from cnmc.data.parallel import progress, stream_threads
from cnmc.deploy.gather import Skipped, Source
from cnmc.deploy.journal import Entry, Journal
from cnmc.deploy.networks import Network
from cnmc.deploy.reading import decode_checked, digest, read_file
from cnmc.deploy.runtime import Images
from cnmc.deploy.typical import measure, warnings_of
from cnmc.devices import num_cores

_MIN_BATCH = 8
"""Cells that the networks see at once, and what a killed process may lose; one a core at least."""


@dataclass(frozen=True)
class Seen:
    """A file that the networks have seen."""

    source: Source
    entry: Entry


@dataclass(frozen=True)
class Screened:
    """What came of the files.

    Attributes:
        seen: In the order of the files.
        skipped: Files that could not be read, or for which a network gives no number.
        num_new: How many of those seen are new to the journal.
    """

    seen: tuple[Seen, ...]
    skipped: tuple[Skipped, ...]
    num_new: int


@dataclass(frozen=True)
class _Read:
    """An image that is new to the journal."""

    source: Source
    digest: str
    image: Images
    warnings: tuple[str, ...]


def screen(
    sources: Sequence[Source],
    networks: Sequence[Network],
    journal: Journal,
    *,
    num_threads: int | None = None,
    show_progress: bool = True,
) -> Screened:
    """Give cells their logits, those that the journal does not know.

    Args:
        sources: The files.
        networks: Networks that take the same images.
        journal: Is told of every batch when it is done.
        num_threads: Cores to use; None takes all.
        show_progress: Show how far it is, on stderr.
    """
    info = networks[0].info
    threads = num_threads or num_cores()
    batch_size = max(_MIN_BATCH, threads)

    def read(source: Source) -> _Read | Seen | Skipped:
        try:
            data = read_file(source.path)
            key = digest(data)
            if key in journal.entries:
                return Seen(source, journal.entries[key])
            pixels = decode_checked(data, info.crop)
        except UnreadableImageError as error:
            return Skipped(source.name, str(error))
        image = crop_and_resize(pixels, crop=info.crop, resize=info.resize)
        return _Read(source, key, image.copy(), warnings_of(measure(pixels)))

    entries: dict[str, Entry] = {}
    skipped: list[Skipped] = []
    batch: list[_Read] = []
    num_new = 0

    def finish_batch() -> None:
        nonlocal num_new
        new = _predict(batch, networks)
        journal.add(new)
        num_new += len(new)
        for item in batch:
            if item.digest in new:
                entries[item.source.name] = new[item.digest]
            else:
                skipped.append(Skipped(item.source.name, "the network gives no number for it"))
        advance(len(batch))
        batch.clear()

    with progress("Screening", len(sources), show_progress=show_progress) as advance:
        for result in stream_threads(
            read, sources, num_workers=max(2, threads // 2), num_ahead=2 * batch_size
        ):
            if isinstance(result, _Read):
                batch.append(result)
                if len(batch) == batch_size:
                    finish_batch()
                continue
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                entries[result.source.name] = result.entry
            advance(1)
        finish_batch()
    seen = [Seen(source, entries[source.name]) for source in sources if source.name in entries]
    return Screened(tuple(seen), tuple(skipped), num_new)


def _predict(items: Sequence[_Read], networks: Sequence[Network]) -> dict[str, Entry]:
    """Return the entries of images by their digest, but of none whose logits are not finite."""
    if not items:
        return {}
    images = np.stack([item.image for item in items])
    logits = [network.predictor.predict(images) for network in networks]
    return {
        item.digest: Entry.of(rows, item.warnings)
        for item, *rows in zip(items, *logits, strict=True)
        if all(np.isfinite(row).all() for row in rows)
    }

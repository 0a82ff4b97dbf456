"""Run networks over files, batch by batch, with a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnmc.data.images import UnreadableImageError, crop_and_resize, decode, read_file
from cnmc.data.parallel import progress, stream_threads
from cnmc.deploy.exported import Images
from cnmc.deploy.gather import Skipped, Source
from cnmc.deploy.journal import Entry, Journal
from cnmc.deploy.networks import Network
from cnmc.deploy.typical import measure, warnings_of
from cnmc.devices import num_cores

_MIN_BATCH = 8
"""Smallest batch of cells; a process that is killed loses one batch."""


@dataclass(frozen=True)
class Seen:
    """A file with its entry in the journal."""

    source: Source
    entry: Entry


@dataclass(frozen=True)
class _New:
    """An image that is not in the journal."""

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
) -> tuple[list[Seen], list[Skipped], int]:
    """Compute the logits of the files that the journal does not have, and add them to it.

    Returns:
        Files with their logits in the given order, files that could not be used, and the number
        of files that were computed.
    """
    info = networks[0].info
    threads = num_threads or num_cores()
    batch_size = max(_MIN_BATCH, threads)

    def read(source: Source) -> _New | Seen | Skipped:
        try:
            data = read_file(source.path)
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            if digest in journal.entries:
                return Seen(source, journal.entries[digest])
            pixels = decode(data)
        except UnreadableImageError as error:
            return Skipped(source.name, str(error))
        height, width = pixels.shape[:2]
        if min(height, width) < info.crop:
            reason = f"{width} x {height} pixels, smaller than the crop of {info.crop}"
            return Skipped(source.name, reason)
        image = crop_and_resize(pixels, crop=info.crop, resize=info.resize)
        return _New(source, digest, image.copy(), warnings_of(measure(pixels)))

    results: list[Seen | Skipped] = []
    batch: list[_New] = []
    num_new = 0
    with progress("Screening", len(sources)) as advance:
        read_ahead = stream_threads(
            read, sources, num_workers=max(2, threads // 2), num_ahead=2 * batch_size
        )
        for number, result in enumerate(read_ahead, start=1):
            if isinstance(result, _New):
                batch.append(result)
            else:
                results.append(result)
                advance(1)
            if batch and (len(batch) == batch_size or number == len(sources)):
                new = _predict(batch, networks)
                journal.add(new)
                num_new += len(new)
                results += [_outcome(item, new) for item in batch]
                advance(len(batch))
                batch.clear()
    order = {source.name: position for position, source in enumerate(sources)}
    seen = [result for result in results if isinstance(result, Seen)]
    seen.sort(key=lambda item: order[item.source.name])
    return seen, [result for result in results if isinstance(result, Skipped)], num_new


def _outcome(item: _New, entries: dict[str, Entry]) -> Seen | Skipped:
    if item.digest in entries:
        return Seen(item.source, entries[item.digest])
    return Skipped(item.source.name, "the network gives no finite number for it")


def _predict(items: Sequence[_New], networks: Sequence[Network]) -> dict[str, Entry]:
    """Return entries by digest for the images whose logits are finite."""
    images = np.stack([item.image for item in items])
    logits = [network.logits(images) for network in networks]
    return {
        item.digest: Entry.of(rows, item.warnings)
        for item, *rows in zip(items, *logits, strict=True)
        if all(np.isfinite(row).all() for row in rows)
    }

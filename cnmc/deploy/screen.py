"""Run networks over files, batch by batch, with a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cnmc.data.images import UnreadableImageError, crop_and_resize, decode, read_file
from cnmc.data.parallel import progress
from cnmc.deploy.exported import Images
from cnmc.deploy.networks import Network
from cnmc.deploy.outputs import Entry, Journal
from cnmc.deploy.typical import warnings_of

_MIN_BATCH = 8
"""Smallest batch of files; a process that is killed loses one batch."""


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

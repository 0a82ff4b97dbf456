"""The cells that the runs were trained on, where they are available."""

from __future__ import annotations

import os
from pathlib import Path

from cnmc.data.images import Pixels, UnreadableImageError, decode, read_file
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.sources.synthetic import MARKER

MAX_READS = 4000
"""Number of files that a report reads at most to identify the cells: about ten seconds. It reads
none if the manifest of the training is available."""


def find_data(root: Path, work_dir: Path, fingerprint: str) -> Manifest | str:
    """Find the cells of the runs without writing beside them.

    Args:
        root: Folder of the cells.
        work_dir: ``data.work_dir`` of the runs; it need not exist.
        fingerprint: ``manifest_fingerprint`` of the runs.

    Returns:
        The manifest, or the reason why there is none.
    """
    try:
        manifest = load_manifest(
            root,
            work_dir,
            num_workers=min(os.cpu_count() or 1, 8),
            show_progress=False,
            max_reads=MAX_READS,
            keep=False,
        )
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    if manifest.fingerprint != fingerprint:
        return (
            f"data.root={root}: these are not the cells of the runs (fingerprint "
            f"{manifest.fingerprint[:12]}, expected {fingerprint[:12]})"
        )
    return manifest


def read_pixels(manifest: Manifest, path: str) -> Pixels | None:
    """Return the pixels of a cell, or None if its file cannot be read."""
    try:
        return decode(read_file(manifest.root / path))
    except UnreadableImageError:
        return None


def credit(manifest: Manifest) -> str:
    """Return the source of the cells, which the licence requires wherever they are shown."""
    if (manifest.root / MARKER).is_file():
        return "Cells: generated, not of a person."
    return (
        "Cells: A. Gupta and R. Gupta, ALL Challenge dataset of ISBI 2019 (C-NMC 2019), The Cancer "
        "Imaging Archive, doi:10.7937/tcia.2019.dc64i46r, CC BY 3.0."
    )

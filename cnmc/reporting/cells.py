"""The data set that runs were trained on, where it is at hand, and the paper's Table 1 of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cnmc.data.composition import COUNTS, PART_TITLES, TABLE1, composition
from cnmc.data.images import Pixels, UnreadableImageError, decode
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.sources.synthetic import MARKER
from cnmc.reporting.document import Column, Row, Table

MAX_READS = 4000
"""Files that a report reads to tell whether the data is that of the runs: some ten seconds. Where
the manifest that training kept is at hand, none has to be read."""

_SOURCE = (
    "Cells: A. Gupta and R. Gupta, ALL Challenge dataset of ISBI 2019 (C-NMC 2019), The Cancer "
    "Imaging Archive, doi:10.7937/tcia.2019.dc64i46r, CC BY 3.0."
)
_HEADS = {
    "subjects_all": "ALL subjects",
    "subjects_hem": "HEM subjects",
    "cells_all": "ALL cells",
    "cells_hem": "HEM cells",
    "cells_unlabelled": "Unlabelled cells",
}


@dataclass(frozen=True)
class Absent:
    """There are no cells to show.

    Attributes:
        reason: Why, in one line.
    """

    reason: str


def find_data(root: Path, work_dir: Path, fingerprint: str) -> Manifest | Absent:
    """Find the cells of runs, without writing anywhere and without generating any.

    The manifest that training kept spares reading files that have not changed since.

    Args:
        root: ``data.root`` of the runs.
        work_dir: ``data.work_dir`` of the runs; it need not exist.
        fingerprint: ``manifest_fingerprint`` of the runs.

    Returns:
        The manifest; or else why there is none: no such folder, broken or other data, or more than
        :data:`MAX_READS` files that would have to be read.
    """
    try:
        if not root.is_dir():
            return Absent(f"data.root={root}: no such folder here")
        manifest = load_manifest(
            root,
            work_dir,
            num_workers=min(os.cpu_count() or 1, 8),
            show_progress=False,
            max_reads=MAX_READS,
            keep=False,
        )
    except (OSError, ValueError) as error:
        return Absent(" ".join(str(error).split()))
    if manifest.fingerprint != fingerprint:
        return Absent(
            f"data.root={root}: other cells than those of the runs (fingerprint "
            f"{manifest.fingerprint[:12]}, theirs is {fingerprint[:12]})"
        )
    return manifest


def read_pixels(manifest: Manifest, path: str) -> Pixels | None:
    """Return the pixels of a cell, or None where its file is gone or broken."""
    try:
        return decode((manifest.root / path).read_bytes())
    except (OSError, ValueError, UnreadableImageError):
        return None


def source(manifest: Manifest) -> str:
    """Say whose the cells are, as their licence asks for wherever they are shown."""
    if (manifest.root / MARKER).is_file():
        return "Cells: generated, none is of a person."
    return _SOURCE


def table1(manifest: Manifest) -> Table:
    """Return the composition of the data set beside Table 1 of the paper.

    The frame has a row a part with ``part``, the counts of
    :func:`cnmc.data.composition.composition`, and ``published_<count>`` of each, NA where the
    paper has a question mark.
    """
    counts = composition(manifest.cells)
    frame = pd.concat([counts, TABLE1.add_prefix("published_")], axis=1).reset_index()
    columns = [Column("Part", lambda row: PART_TITLES[row["part"]], "left")]
    columns += [Column(_HEADS[name], _here_and_published(name)) for name in COUNTS]
    return Table(
        name="table1",
        title="Composition of the data set: here / in Table 1 of the paper",
        frame=frame,
        columns=columns,
        note="HEM: normal. A question mark where the labels are not public: those of the final "
        "part are in neither the paper nor the release. The paper does not count unlabelled "
        "cells; that the final part has 2,586 is from the release.",
    )


def _here_and_published(name: str) -> Callable[[Row], str]:
    def shown(row: Row) -> str:
        unknown = name != "cells_unlabelled" and _has_no_label(row)
        return f"{'?' if unknown else _count(row[name])} / {_count(row[f'published_{name}'])}"

    return shown


def _has_no_label(row: Row) -> bool:
    """Tell whether a part has cells of which it is not known what they are."""
    return bool(row["cells_unlabelled"] > 0 and row["cells_all"] + row["cells_hem"] == 0)


def _count(value: object) -> str:
    return "?" if pd.isna(value) else f"{int(value):,}"  # type: ignore[call-overload]

"""Check a data set: findings that prevent training, and warnings."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from cnmc.data.manifest import Manifest
from cnmc.data.names import PARTS
from cnmc.data.sources import Finding
from cnmc.errors import CnmcError
from cnmc.files import natural_key


def audit(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> list[Finding]:
    """Return what is wrong with a data set, errors first.

    Images that are unreadable or smaller than the central crop are errors, or with
    ``skip_unreadable`` warnings, since they are left out.
    """
    named = manifest.cells[manifest.cells["subject"] != ""]
    train, prelim = (set(named.loc[named["part"] == part, "subject"]) for part in PARTS[:2])
    shared = "subjects in the train and in the prelim part, split=official refuses them"
    findings = [
        *_images(manifest.cells, crop, "warning" if skip_unreadable else "error"),
        *manifest.findings,
        *_duplicates(manifest.cells[manifest.cells["error"] == ""]),
        Finding("warning", "shared_subject", shared, sorted(train & prelim, key=natural_key)),
    ]
    return sorted((f for f in findings if len(f.names)), key=lambda finding: finding.level)


def usable_cells(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> pd.DataFrame:
    """Return the rows of the manifest whose images can be read and are large enough.

    Raises:
        CnmcError: The audit finds an error, or no cell is usable.
    """
    for finding in audit(manifest, crop=crop, skip_unreadable=skip_unreadable):
        if finding.level == "error":
            raise CnmcError(f"{manifest.root}: {finding.message}")
    usable = manifest.cells[manifest.cells[["width", "height"]].min(axis=1) >= crop]
    if usable.empty:
        raise CnmcError(
            f"data.root={manifest.root}: none of its {len(manifest.cells):,} images can be read "
            f"and has at least data.crop={crop} pixels a side; expected some that do"
        )
    return usable.reset_index(drop=True)


def _images(cells: pd.DataFrame, crop: int, level: Literal["warning", "error"]) -> list[Finding]:
    way_out = "left out" if level == "warning" else "data.skip_unreadable=true leaves them out"
    unreadable = [f"{row.path} ({row.error})" for row in cells[cells["error"] != ""].itertuples()]
    sides = cells[["width", "height"]].min(axis=1)
    too_small = cells[(cells["error"] == "") & (sides < crop)]
    small = [f"{row.path} ({row.width} x {row.height})" for row in too_small.itertuples()]
    return [
        Finding(level, "unreadable", f"images that cannot be read, {way_out}", unreadable),
        Finding(level, "too_small", f"images smaller than data.crop={crop}, {way_out}", small),
    ]


def _duplicates(cells: pd.DataFrame) -> list[Finding]:
    """Look for byte-identical images; the release has 104 pairs of them in its training part."""
    copies = cells[cells.duplicated("sha256", keep=False)].reset_index()
    pairs = copies.merge(copies, on="sha256", suffixes=("", "_2")).query("index < index_2")
    names = pairs["cell_id"] + " = " + pairs["cell_id_2"]

    def differ(column: str) -> pd.Series:
        first, second = pairs[column], pairs[f"{column}_2"]
        return ((first != second) & (first != "") & (second != "")).fillna(value=False)

    numbers = (
        f"{differ('subject').sum():,} across subjects, {differ('fold').sum():,} across folds; "
        "their subjects stay on one side of every split"
    )
    is_leak = differ("part") & (pairs["part"] != "final") & (pairs["part_2"] != "final")
    leak = "images of the prelim part that are in the train part too, split=official refuses them"
    is_error = differ("label").astype(bool)
    return [
        Finding("warning", "duplicate", f"pairs of byte-identical images, {numbers}", list(names)),
        Finding("warning", "leak", leak, list(names[is_leak])),
        Finding("error", "duplicate_label", "one image with two labels", list(names[is_error])),
    ]

"""Check a data set, and count its subjects and cells beside the paper's Table 1."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from cnmc.config.groups import DataConfig
from cnmc.data.manifest import Manifest
from cnmc.data.names import PARTS
from cnmc.data.sources import Finding
from cnmc.errors import CnmcError
from cnmc.files import natural_key

COUNTS = ("subjects_all", "subjects_hem", "cells_all", "cells_hem", "cells_unlabelled")
TABLE1 = pd.DataFrame(
    [
        [47, 26, 7272, 3389, 0],
        [13, 15, 1219, 648, 0],
        # The paper does not count unlabelled cells: the release has 2,586 in its final part.
        [9, 8, None, None, 2586],
    ],
    index=pd.Index(PARTS, name="part"),
    columns=pd.Index(COUNTS),
    dtype="Int64",
)
"""Subjects and cells by class and part (Table 1 of the paper); NA where the paper has ``?``."""
PART_TITLES = {"train": "Train", "prelim": "Prelim. test", "final": "Final test"}
"""The names of the parts in Table 1."""
HEADS = ("ALL subjects", "HEM subjects", "ALL cells", "HEM cells", "unlabelled cells")


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


def usable_cells(manifest: Manifest, data: DataConfig) -> pd.DataFrame:
    """Return the labelled rows of the manifest whose images can be read and are large enough.

    Raises:
        CnmcError: The audit finds an error, or no image is usable.
    """
    for finding in audit(manifest, crop=data.crop, skip_unreadable=data.skip_unreadable):
        if finding.level == "error":
            raise CnmcError(f"{manifest.root}: {finding.message}")
    usable = manifest.cells[manifest.cells[["width", "height"]].min(axis=1) >= data.crop]
    if usable.empty:
        raise CnmcError(
            f"data.root={manifest.root}: none of its {len(manifest.cells):,} images can be read "
            f"and has at least data.crop={data.crop} pixels a side; expected some that do"
        )
    return usable[usable["label"].notna()].reset_index(drop=True)


def composition(cells: pd.DataFrame) -> pd.DataFrame:
    """Count subjects and cells by part and class, with the index and columns of :data:`TABLE1`.

    A subject with cells of both classes counts in both.
    """
    counts = pd.DataFrame(0, index=TABLE1.index, columns=TABLE1.columns, dtype="Int64")
    kinds = cells["label"].fillna(2).map({1: "all", 0: "hem", 2: "unlabelled"})
    for (part, kind), subjects in cells.groupby(["part", kinds])["subject"]:
        counts.loc[part, f"cells_{kind}"] = len(subjects)
        if kind != "unlabelled":
            counts.loc[part, f"subjects_{kind}"] = subjects.nunique()
    return counts


def format_composition(counts: pd.DataFrame) -> str:
    """Format the composition beside Table 1."""
    here, paper = (
        table.map(lambda n: "?" if pd.isna(n) else f"{n:,}") for table in (counts, TABLE1)
    )
    table = (here + " / " + paper).rename(index=PART_TITLES).T.set_axis(list(HEADS))
    return table.rename_axis(columns=None).to_string(col_space=18)


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

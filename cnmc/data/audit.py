"""Check a data set from its manifest.

Findings are errors, which prevent training, or warnings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from cnmc.data.manifest import Manifest
from cnmc.data.names import CLASS_NAMES, PARTS, folder_label, parse_uid
from cnmc.errors import CnmcError
from cnmc.files import natural_key

RELEASED_SIZES = {"train": (450,), "prelim": (450,), "final": (450, 600)}
"""Sides in pixels of the square images of the release, by part."""
_NUM_EXAMPLES = 5

Level = Literal["warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    Attributes:
        level: ``error`` if training is impossible.
        check: Name of the check.
        message: One line for the user.
    """

    level: Level
    check: str
    message: str


def audit(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> list[Finding]:
    """Check a data set.

    Args:
        manifest: The data set.
        crop: Side of the central crop in pixels; a smaller image cannot be used.
        skip_unreadable: Unusable images are left out (a warning) instead of refused (an error).

    Returns:
        Findings, errors first.
    """
    cells, found = manifest.cells, manifest.found
    findings = [
        *_unusable(cells, crop, skip_unreadable),
        *_odd_sizes(cells[_usable(cells, crop)]),
        *_labels(manifest),
        *_class_conflicts(cells[cells["label"].notna()]),
        *_duplicates(cells[cells["error"] == ""]),
        *_shared_subjects(cells),
    ]
    if found.ignored:
        number = _count(found.ignored, "BMP file belongs", "BMP files belong")
        message = f"{number} to no part of the release, not used: {_some(found.ignored)}"
        findings.append(Finding("warning", "ignored", message))
    return sorted(findings, key=lambda finding: finding.level != "error")


def usable_cells(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> pd.DataFrame:
    """Return the cells that can be read and are large enough, labelled or not.

    Args:
        manifest: The data set.
        crop: Side of the central crop in pixels.
        skip_unreadable: Leave unusable images out instead of refusing them.

    Returns:
        Rows of the manifest, in its order.

    Raises:
        CnmcError: The audit finds an error, or no cell is usable.
    """
    for finding in audit(manifest, crop=crop, skip_unreadable=skip_unreadable):
        if finding.level == "error":
            raise CnmcError(f"{manifest.root}: {finding.message}")
    usable = manifest.cells[_usable(manifest.cells, crop)]
    if usable.empty:
        raise CnmcError(
            f"data.root={manifest.root}: none of its {len(manifest.cells):,} images can be read "
            f"and has at least data.crop={crop} pixels a side; expected some that do"
        )
    return usable.reset_index(drop=True)


def _usable(cells: pd.DataFrame, crop: int) -> pd.Series:
    return (cells["error"] == "") & (cells[["width", "height"]].min(axis=1) >= crop)


def _some(names: Sequence[str]) -> str:
    """Join the first names of a list."""
    more = len(names) - _NUM_EXAMPLES
    return ", ".join(names[:_NUM_EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def _count(names: Sequence[str], singular: str, plural: str) -> str:
    return f"{len(names):,} {singular if len(names) == 1 else plural}"


def _unusable(cells: pd.DataFrame, crop: int, skip_unreadable: bool) -> Iterable[Finding]:
    level: Level = "warning" if skip_unreadable else "error"
    ending = "replace them or leave them out with data.skip_unreadable=true"
    ending = "left out" if skip_unreadable else ending
    unreadable = cells[cells["error"] != ""]
    if named := [f"{row.path} ({row.error})" for row in unreadable.itertuples()]:
        number = _count(named, "image", "images")
        yield Finding(level, "unreadable", f"{number} cannot be read: {_some(named)}; {ending}")
    small = cells[(cells["error"] == "") & ~_usable(cells, crop)]
    if named := [f"{row.path} ({row.width} x {row.height})" for row in small.itertuples()]:
        number = _count(named, "image is", "images are")
        message = f"{number} smaller than data.crop={crop}: {_some(named)}; {ending}"
        yield Finding(level, "too_small", message)


def _odd_sizes(cells: pd.DataFrame) -> Iterable[Finding]:
    for (part, width, height), group in cells.groupby(["part", "width", "height"]):
        sides = RELEASED_SIZES[str(part)]
        if width == height and width in sides:
            continue
        paths = group["path"].to_list()
        expected = " or ".join(f"{side} x {side}" for side in sides)
        yield Finding(
            "warning",
            "size",
            f"{_count(paths, 'image', 'images')} of the {part} part measure {width} x {height}, "
            f"those of the release {expected}: {_some(paths)}",
        )


def _labels(manifest: Manifest) -> Iterable[Finding]:
    found, cells = manifest.found, manifest.cells
    if names := found.labels_without_image:
        number = _count(names, "label", "labels")
        message = f"{number} in {found.label_file} without an image: {_some(names)}"
        yield Finding("warning", "label_without_image", message)
    bare = cells.loc[(cells["part"] == "prelim") & cells["label"].isna(), "path"].to_list()
    if bare:
        where = f"in {found.label_file}" if found.label_file else "(there is no label file)"
        yield Finding(
            "warning",
            "image_without_label",
            f"{_count(bare, 'image', 'images')} of the prelim part without a label {where}, not "
            f"used: {_some(bare)}",
        )


def _class_conflicts(cells: pd.DataFrame) -> Iterable[Finding]:
    """Compare the classes of folder, name, label and subject."""
    named: list[str] = []
    for row in cells.itertuples():
        claims = {"label": int(str(row.label))}
        folder = folder_label(str(row.path))
        if row.part == "train" and folder is not None:
            claims["folder"] = folder
        if uid := parse_uid(str(row.original_name)):
            claims["name"] = uid.label
        # Only normal subjects begin with H.
        claims["subject"] = 0 if str(row.subject).startswith("H") else 1
        if len(set(claims.values())) > 1:
            if claims["label"] == claims.get("name"):
                del claims["label"]
            classes = ", ".join(f"{who} {CLASS_NAMES[label]}" for who, label in claims.items())
            named.append(f"{row.path} ({classes})")
    if named:
        yield Finding(
            "error",
            "class_conflict",
            f"{_count(named, 'image', 'images')} of conflicting class: {_some(named)}; expected "
            "folder, file name, label and subject (H... is normal) to agree, remove or rename them",
        )


def _duplicates(cells: pd.DataFrame) -> Iterable[Finding]:
    """Look for byte-identical images; the release has 104 pairs of them in its training part."""
    copies = cells[cells.duplicated("sha256", keep=False)].reset_index()
    pairs = copies.merge(copies, on="sha256", suffixes=("", "_2"))
    pairs = pairs[pairs["index"] < pairs["index_2"]]
    if pairs.empty:
        return
    names = pairs["cell_id"] + " = " + pairs["cell_id_2"]
    named = names.to_list()

    def differ(column: str) -> pd.Series:
        first, second = pairs[column], pairs[f"{column}_2"]
        return (first != second) & (first != "") & (second != "")

    yield Finding(
        "warning",
        "duplicate",
        f"{_count(named, 'pair', 'pairs')} of byte-identical images, "
        f"{differ('subject').sum():,} of them across subjects, {differ('fold').sum():,} across "
        f"folds: {_some(named)}; their subjects stay on one side of every split",
    )
    parts = differ("part") & (pairs["part"] != "final") & (pairs["part_2"] != "final")
    if leaks := names[parts].to_list():
        yield Finding(
            "warning",
            "leak",
            f"{_count(leaks, 'image', 'images')} of the prelim part, on which results are "
            f"reported, occur in the train part too: {_some(leaks)}; split=official and "
            "split=nested refuse them",
        )
    if clashes := names[differ("label").fillna(value=False).astype(bool)].to_list():
        yield Finding(
            "error",
            "duplicate_label",
            f"{_count(clashes, 'pair', 'pairs')} of byte-identical images with different labels: "
            f"{_some(clashes)}; expected one class for one image, remove the wrong one",
        )


def _shared_subjects(cells: pd.DataFrame) -> Iterable[Finding]:
    named = cells[(cells["subject"] != "") & cells["label"].notna()]
    train, prelim = (set(named.loc[named["part"] == part, "subject"]) for part in PARTS[:2])
    if both := sorted(train & prelim, key=natural_key):
        number = _count(both, "subject has", "subjects have")
        yield Finding(
            "warning",
            "shared_subject",
            f"{number} cells in the train and in the prelim part: {_some(both)}; split=official "
            "and split=nested refuse them",
        )

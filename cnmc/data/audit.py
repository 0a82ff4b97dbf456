"""Check a data set from its manifest.

Findings are errors, which prevent training, or warnings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from cnmc.data.manifest import Manifest
from cnmc.data.names import CLASS_NAMES, PARTS, folder_label, parse_uid
from cnmc.errors import CnmcError
from cnmc.files import natural_key

RELEASED_SIZES = {"train": (450,), "prelim": (450,), "final": (450, 600)}
"""Sides in pixels of the square images of the release, by part."""
_NUM_EXAMPLES = 5
_IMAGES = ("image", "images")
_PAIRS = ("pair", "pairs")

Level = Literal["warning", "error"]


class Finding(NamedTuple):
    """One problem of a data set, an ``error`` if it makes training impossible."""

    level: Level
    check: str
    message: str


def audit(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> list[Finding]:
    """Check a data set, and return the findings, errors first.

    Args:
        manifest: The data set.
        crop: Side of the central crop in pixels; a smaller image cannot be used.
        skip_unreadable: Unusable images are left out (a warning) instead of refused (an error).
    """
    cells = manifest.cells
    findings = [
        *_unusable(cells, crop, skip_unreadable),
        *_odd_sizes(cells[_usable(cells, crop)]),
        *_labels(manifest),
        *_class_conflicts(cells[cells["label"].notna()]),
        *_duplicates(cells[cells["error"] == ""]),
        *_shared_subjects(cells),
        *_finding(
            "warning",
            "ignored",
            manifest.found.ignored,
            ("BMP file belongs", "BMP files belong"),
            "to no part of the release, not used: {names}",
        ),
    ]
    return sorted(findings, key=lambda finding: finding.level != "error")


def usable_cells(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> pd.DataFrame:
    """Return the rows of the manifest whose images can be read and are large enough.

    The arguments are those of :func:`audit`.

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


def _finding(
    level: Level, check: str, names: Sequence[str], nouns: tuple[str, str], text: str
) -> Iterator[Finding]:
    """Yield a finding if there are names; ``{names}`` in its text becomes the first of them."""
    if names:
        more = len(names) - _NUM_EXAMPLES
        some = ", ".join(names[:_NUM_EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")
        noun = nouns[len(names) > 1]
        yield Finding(level, check, f"{len(names):,} {noun} {text.replace('{names}', some)}")


def _unusable(cells: pd.DataFrame, crop: int, skip_unreadable: bool) -> Iterator[Finding]:
    level: Level = "warning" if skip_unreadable else "error"
    ending = "replace them or leave them out with data.skip_unreadable=true"
    ending = "left out" if skip_unreadable else ending
    unreadable = cells[cells["error"] != ""]
    named = [f"{row.path} ({row.error})" for row in unreadable.itertuples()]
    text = f"cannot be read: {{names}}; {ending}"
    yield from _finding(level, "unreadable", named, _IMAGES, text)
    small = cells[(cells["error"] == "") & ~_usable(cells, crop)]
    named = [f"{row.path} ({row.width} x {row.height})" for row in small.itertuples()]
    text = f"smaller than data.crop={crop}: {{names}}; {ending}"
    yield from _finding(level, "too_small", named, ("image is", "images are"), text)


def _odd_sizes(cells: pd.DataFrame) -> Iterator[Finding]:
    for (part, width, height), group in cells.groupby(["part", "width", "height"]):
        sides = RELEASED_SIZES[str(part)]
        if width != height or width not in sides:
            expected = " or ".join(f"{side} x {side}" for side in sides)
            text = (
                f"of the {part} part measure {width} x {height}, those of the release {expected}: "
                "{names}"
            )
            yield from _finding("warning", "size", group["path"].to_list(), _IMAGES, text)


def _labels(manifest: Manifest) -> Iterator[Finding]:
    found, cells = manifest.found, manifest.cells
    names, text = found.labels_without_image, f"in {found.label_file} without an image: {{names}}"
    yield from _finding("warning", "label_without_image", names, ("label", "labels"), text)
    bare = cells.loc[(cells["part"] == "prelim") & cells["label"].isna(), "path"].to_list()
    where = f"in {found.label_file}" if found.label_file else "(there is no label file)"
    text = f"of the prelim part without a label {where}, not used: {{names}}"
    yield from _finding("warning", "image_without_label", bare, _IMAGES, text)


def _class_conflicts(cells: pd.DataFrame) -> Iterator[Finding]:
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
    text = (
        "of conflicting class: {names}; expected folder, file name, label and subject (H... is "
        "normal) to agree, remove or rename them"
    )
    yield from _finding("error", "class_conflict", named, _IMAGES, text)


def _duplicates(cells: pd.DataFrame) -> Iterator[Finding]:
    """Look for byte-identical images; the release has 104 pairs of them in its training part."""
    copies = cells[cells.duplicated("sha256", keep=False)].reset_index()
    pairs = copies.merge(copies, on="sha256", suffixes=("", "_2"))
    pairs = pairs[pairs["index"] < pairs["index_2"]]
    names = pairs["cell_id"] + " = " + pairs["cell_id_2"]

    def differ(column: str) -> pd.Series:
        first, second = pairs[column], pairs[f"{column}_2"]
        return (first != second) & (first != "") & (second != "")

    text = (
        f"of byte-identical images, {differ('subject').sum():,} of them across subjects, "
        f"{differ('fold').sum():,} across folds: {{names}}; their subjects stay on one side of "
        "every split"
    )
    yield from _finding("warning", "duplicate", names.to_list(), _PAIRS, text)
    parts = differ("part") & (pairs["part"] != "final") & (pairs["part_2"] != "final")
    text = (
        "of the prelim part, on which results are reported, occur in the train part too: {names}; "
        "split=official and split=nested refuse them"
    )
    yield from _finding("warning", "leak", names[parts].to_list(), _IMAGES, text)
    labels = differ("label").fillna(value=False).astype(bool)
    text = (
        "of byte-identical images with different labels: {names}; expected one class for one "
        "image, remove the wrong one"
    )
    yield from _finding("error", "duplicate_label", names[labels].to_list(), _PAIRS, text)


def _shared_subjects(cells: pd.DataFrame) -> Iterator[Finding]:
    named = cells[(cells["subject"] != "") & cells["label"].notna()]
    train, prelim = (set(named.loc[named["part"] == part, "subject"]) for part in PARTS[:2])
    both = sorted(train & prelim, key=natural_key)
    text = (
        "cells in the train and in the prelim part: {names}; split=official and split=nested "
        "refuse them"
    )
    nouns = ("subject has", "subjects have")
    yield from _finding("warning", "shared_subject", both, nouns, text)

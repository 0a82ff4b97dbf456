"""What is wrong with a data set, and what it is made of.

An audit looks at the manifest alone. Its findings are warnings, with which training can live, or
errors, with which it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import pandas as pd

from cnmc.data.manifest import Manifest
from cnmc.data.names import folder_label, parse_uid
from cnmc.errors import CnmcError
from cnmc.files import natural_key

CLASS_NAMES = {1: "ALL", 0: "HEM"}
RELEASED_SIZES = {"train": (450,), "prelim": (450,), "final": (450, 600)}
"""Sides in pixels of the square images of the release, by part."""
_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        level: ``error`` where training cannot live with it.
        check: Name of the check.
        message: One line for the user.
        cells: ``cell_id`` of the cells concerned, in the order of the manifest.
    """

    level: Literal["warning", "error"]
    check: str
    message: str
    cells: tuple[str, ...] = ()


def audit(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> list[Finding]:
    """Check a data set.

    Args:
        manifest: The data set.
        crop: Side of the central crop in pixels; a smaller image cannot be used.
        skip_unreadable: Unusable images are left out (a warning) instead of refused (an error).

    Returns:
        Findings, errors first.
    """
    cells = manifest.cells
    findings = [
        *_unusable(cells, crop=crop, skip_unreadable=skip_unreadable),
        *_odd_sizes(cells, crop=crop),
        *_labels(manifest),
        *_class_conflicts(cells),
        *_duplicates(cells),
        *_shared_subjects(cells),
        *_ignored(manifest),
    ]
    return sorted(findings, key=lambda finding: finding.level != "error")


def usable_cells(manifest: Manifest, *, crop: int, skip_unreadable: bool) -> pd.DataFrame:
    """Return the cells that can be read and are large enough, with a label or without.

    Args:
        manifest: The data set.
        crop: Side of the central crop in pixels.
        skip_unreadable: Leave unusable images out instead of refusing them.

    Returns:
        Rows of the manifest, in its order.

    Raises:
        CnmcError: The audit finds something that training cannot live with, or leaves no cell.
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
    """Join names, cutting a long list."""
    shown = ", ".join(names[:_NUM_EXAMPLES])
    more = len(names) - _NUM_EXAMPLES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _ids(cells: pd.DataFrame) -> tuple[str, ...]:
    return tuple(cells["cell_id"])


def _unusable(cells: pd.DataFrame, *, crop: int, skip_unreadable: bool) -> Iterable[Finding]:
    level: Literal["warning", "error"] = "warning" if skip_unreadable else "error"
    ending = "left out" if skip_unreadable else "replace them or leave them out with {key}"
    ending = ending.format(key="data.skip_unreadable=true")
    unreadable = cells[cells["error"] != ""]
    if len(unreadable):
        named = [f"{row.path} ({row.error})" for row in unreadable.itertuples()]
        yield Finding(
            level,
            "unreadable",
            f"{_count(len(named), 'image', 'images')} cannot be read: {_some(named)}; {ending}",
            _ids(unreadable),
        )
    small = cells[(cells["error"] == "") & ~_usable(cells, crop)]
    if len(small):
        named = [f"{row.path} ({row.width} x {row.height})" for row in small.itertuples()]
        yield Finding(
            level,
            "too_small",
            f"{_count(len(named), 'image is', 'images are')} smaller than data.crop={crop}: "
            f"{_some(named)}; {ending}",
            _ids(small),
        )


def _odd_sizes(cells: pd.DataFrame, *, crop: int) -> Iterable[Finding]:
    for (part, width, height), group in cells[_usable(cells, crop)].groupby(
        ["part", "width", "height"], sort=True
    ):
        sides = RELEASED_SIZES[str(part)]
        if width == height and width in sides:
            continue
        expected = " or ".join(f"{side} x {side}" for side in sides)
        yield Finding(
            "warning",
            "size",
            f"{_count(len(group), 'image', 'images')} of the {part} part measure {width} x "
            f"{height}, those of the release {expected}: {_some(group['path'].to_list())}",
            _ids(group),
        )


def _labels(manifest: Manifest) -> Iterable[Finding]:
    cells = manifest.cells
    if names := manifest.labels_without_image:
        yield Finding(
            "warning",
            "label_without_image",
            f"{_count(len(names), 'label', 'labels')} in {manifest.label_file} without an image: "
            f"{_some(names)}",
        )
    bare = cells[(cells["part"] == "prelim") & cells["label"].isna()]
    if len(bare):
        where = f"in {manifest.label_file}" if manifest.label_file else "(there is no label file)"
        yield Finding(
            "warning",
            "image_without_label",
            f"{_count(len(bare), 'image', 'images')} of the prelim part without a label {where}, "
            f"not used: {_some(bare['path'].to_list())}",
            _ids(bare),
        )


def _class_conflicts(cells: pd.DataFrame) -> Iterable[Finding]:
    named: list[str] = []
    ids: list[str] = []
    for row in cells[cells["label"].notna()].itertuples():
        claims = {"label": int(str(row.label))}
        folder = folder_label(str(row.path))
        if row.part == "train" and folder is not None:
            claims["folder"] = folder
        if uid := parse_uid(str(row.original_name)):
            claims["name"] = uid.label
        # Normal subjects, and only they, begin with H.
        claims["subject"] = 0 if str(row.subject).startswith("H") else 1
        if len(set(claims.values())) > 1:
            if claims["label"] == claims.get("name"):
                del claims["label"]
            said = ", ".join(f"{who} {CLASS_NAMES[what]}" for who, what in claims.items())
            named.append(f"{row.path} ({said})")
            ids.append(str(row.cell_id))
    if named:
        yield Finding(
            "error",
            "class_conflict",
            f"{_count(len(named), 'image', 'images')} of conflicting class: {_some(named)}; "
            "expected folder, file name, label and subject (H... is normal) to agree, remove or "
            "rename them",
            tuple(ids),
        )


class _Named(NamedTuple):
    """What tells a cell's place."""

    cell_id: str
    path: str
    part: str
    fold: str
    subject: str
    label: int | None


def _named(cells: pd.DataFrame) -> list[_Named]:
    columns = (cells[name].to_list() for name in _Named._fields[:-1])
    labels = (None if pd.isna(label) else int(label) for label in cells["label"])
    return [_Named(*row) for row in zip(*columns, labels, strict=True)]


def _duplicates(cells: pd.DataFrame) -> Iterable[Finding]:
    """Look for byte-identical images; the release has 104 pairs of them in its training part."""
    readable = cells[cells["error"] == ""]
    copies = readable[readable.duplicated("sha256", keep=False)]
    if copies.empty:
        return
    pairs = [
        (first, second)
        for _, group in copies.groupby("sha256", sort=False)
        for first, second in combinations(_named(group), 2)
    ]
    named = [f"{a.cell_id} = {b.cell_id}" for a, b in pairs]
    subjects = sum(bool(a.subject and b.subject and a.subject != b.subject) for a, b in pairs)
    folds = sum(bool(a.fold and b.fold and a.fold != b.fold) for a, b in pairs)
    yield Finding(
        "warning",
        "duplicate",
        f"{_count(len(pairs), 'pair', 'pairs')} of byte-identical images, {subjects:,} of them "
        f"across subjects, {folds:,} across folds: {_some(named)}; their subjects stay on one side "
        "of every split",
        _ids(copies),
    )

    def chosen(kind: Sequence[bool]) -> tuple[list[str], tuple[str, ...]]:
        keep = [(pair, name) for pair, name, yes in zip(pairs, named, kind, strict=True) if yes]
        concerned = {cell.cell_id for pair, _ in keep for cell in pair}
        return [name for _, name in keep], tuple(c for c in _ids(copies) if c in concerned)

    leaks, ids = chosen([{a.part, b.part} == {"train", "prelim"} for a, b in pairs])
    if leaks:
        yield Finding(
            "warning",
            "leak",
            f"{_count(len(leaks), 'image', 'images')} of the prelim part, on which results are "
            f"reported, occur in the train part too: {_some(leaks)}; split=official and "
            "split=nested refuse them",
            ids,
        )
    clashes, ids = chosen([{a.label, b.label} == {0, 1} for a, b in pairs])
    if clashes:
        yield Finding(
            "error",
            "duplicate_label",
            f"{_count(len(clashes), 'pair', 'pairs')} of byte-identical images with different "
            f"labels: {_some(clashes)}; expected one class for one image, remove the wrong one",
            ids,
        )


def _shared_subjects(cells: pd.DataFrame) -> Iterable[Finding]:
    named = cells[(cells["subject"] != "") & cells["label"].notna()]
    parts = named.groupby("subject")["part"].nunique()
    both = sorted(parts.index[parts > 1], key=natural_key)
    if both:
        yield Finding(
            "warning",
            "shared_subject",
            f"{_count(len(both), 'subject has', 'subjects have')} cells in the train and in the "
            f"prelim part: {_some(both)}; split=official and split=nested refuse them",
            _ids(named[named["subject"].isin(both)]),
        )


def _ignored(manifest: Manifest) -> Iterable[Finding]:
    if manifest.ignored:
        yield Finding(
            "warning",
            "ignored",
            f"{_count(len(manifest.ignored), 'BMP file belongs', 'BMP files belong')} to no part "
            f"of the release, not used: {_some(manifest.ignored)}",
        )

"""What the names of the release say: part, fold, subject and class of every image.

Nothing here touches an image. The release is found in three folder layouts, and copies of it are
often nested deeper, so a file is classified by the components of its path and by its own name,
never by its depth.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from cnmc.data.names import LABEL_COLUMNS, PARTS, Part, parse_uid
from cnmc.errors import CnmcError
from cnmc.files import natural_key

# A user sees the archive's own folders, those of a mirror, or those of the paper's code.
_PART_FOLDERS: dict[Part, re.Pattern[str]] = {
    "train": re.compile(r"fold_\d+|.*training_data.*", re.IGNORECASE),
    "prelim": re.compile(r".*test_prelim.*|phase2|validation_data", re.IGNORECASE),
    "final": re.compile(r".*test_final.*|phase3|testing_data", re.IGNORECASE),
}
_FOLD = re.compile(r"fold_\d+", re.IGNORECASE)
_LABEL_FILE = re.compile(r".*prelim.*labels.*\.csv|phase2\.csv", re.IGNORECASE)


@dataclass(frozen=True)
class NameScan:
    """What a list of paths holds.

    Attributes:
        cells: One row an image with ``cell_id``, ``path``, ``part``, ``fold``, ``subject``,
            ``label`` (1 ALL, 0 HEM, NA unknown) and ``original_name`` (the ``UID_...`` name, empty
            where unknown), in a fixed order: by part, then by name with numbers as numbers.
        label_files: Paths that are named like the label file of the preliminary part.
        ignored: Images that belong to no part of the release.
    """

    cells: pd.DataFrame
    label_files: tuple[str, ...]
    ignored: tuple[str, ...]


def _part_of(folders: Iterable[str]) -> Part | None:
    # The folder nearest to the file decides: `validation_data` may itself lie in `training_data`.
    for folder in reversed(tuple(folders)):
        for part, pattern in _PART_FOLDERS.items():
            if pattern.fullmatch(folder):
                return part
    return None


def scan_names(paths: Iterable[str], *, root_name: str = "") -> NameScan:
    """Classify the files of a data set by their names alone.

    Args:
        paths: Paths relative to the root of the data set, with ``/`` between components, of any
            order. Anything but ``.bmp`` and label files is passed over.
        root_name: Name of the root folder, which counts as the outermost component: the root may
            itself be a folder of the release such as ``fold_1``.

    Raises:
        CnmcError: Two images have the same part and name, as in two copies of the data set.
    """
    rows: list[tuple[str, str, str, str, str, int | None, str]] = []
    label_files: list[str] = []
    ignored: list[str] = []
    for text in paths:
        path = PurePosixPath(text)
        if path.suffix.lower() != ".bmp":
            if _LABEL_FILE.fullmatch(path.name):
                label_files.append(text)
            continue
        folders = (root_name, *path.parts[:-1])
        uid = parse_uid(path.name)
        part = _part_of(folders) or ("train" if uid else None)
        if part is None or (part == "train" and uid is None):
            ignored.append(text)
            continue
        folds = [folder.lower() for folder in folders if _FOLD.fullmatch(folder)]
        fold = folds[-1] if part == "train" and folds else ""
        # The final part has no labels; a name there that claims one is not believed.
        known = uid if part != "final" else None
        rows.append(
            (
                f"{part}/{path.stem}",
                text,
                part,
                fold,
                known.subject if known else "",
                known.label if known else None,
                path.name if known else "",
            )
        )
    rows.sort(key=lambda row: (PARTS.index(row[2]), natural_key(row[0]), row[1]))
    for first, second in itertools.pairwise(rows):
        if first[0] == second[0]:
            raise CnmcError(
                f"{first[1]} and {second[1]}: the same cell twice below data.root; expected one "
                "copy of the data set (remove one, or give data.root=DIR of one of them)"
            )
    columns = ["cell_id", "path", "part", "fold", "subject", "label", "original_name"]
    cells = pd.DataFrame(rows, columns=pd.Index(columns))
    cells["label"] = cells["label"].astype("Int8")
    return NameScan(cells, tuple(sorted(label_files)), tuple(sorted(ignored, key=natural_key)))


def read_labels(path: Path) -> pd.DataFrame:
    """Read the label file of the preliminary part (``Patient_ID,new_names,labels``).

    Returns:
        One row an image with ``key`` (its lower-cased name without suffix, for the join),
        ``name``, ``subject``, ``label`` (int, 1 ALL, 0 HEM) and ``original_name``.

    Raises:
        CnmcError: A column is missing, a value cannot be read or a name stands there twice.
    """
    rows: dict[str, tuple[str, str, str, int, str]] = {}
    try:
        # The released file has CRLF line ends; editors like to add a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            if missing := [name for name in LABEL_COLUMNS if name not in found]:
                raise CnmcError(
                    f"{path}: no column {', '.join(missing)} among {', '.join(found) or 'none'}; "
                    f"expected {','.join(LABEL_COLUMNS)} as in the label file of the release"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                name, original, label = (
                    (row[column] or "").strip() for column in ("new_names", "Patient_ID", "labels")
                )
                uid = parse_uid(original)
                if uid is None:
                    raise CnmcError(
                        f"{where}: Patient_ID={original}: expected UID_<subject>_<image>_<cell>_"
                        "<all|hem>.bmp as in the label file of the release"
                    )
                if label not in {"0", "1"}:
                    raise CnmcError(f"{where}: labels={label}: expected 1 (ALL) or 0 (HEM)")
                key = _join_key(name)
                if not key or key in rows:
                    raise CnmcError(
                        f"{where}: new_names={name}: expected the name of one image, once"
                    )
                rows[key] = (key, name, uid.subject, int(label), original)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CnmcError(f"{path}: not a readable CSV file ({error})") from error
    return pd.DataFrame(
        list(rows.values()),
        columns=pd.Index(["key", "name", "subject", "label", "original_name"]),
    )


def _join_key(name: str) -> str:
    return PurePosixPath(name).stem.lower()


def join_labels(cells: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Give the images of the preliminary part the subject and label that stand beside their name.

    Args:
        cells: As in :class:`NameScan`.
        labels: As :func:`read_labels` returns them.

    Returns:
        The cells with labels, and the names in the label file for which there is no image.
    """
    prelim = cells["part"] == "prelim"
    keys = cells.loc[prelim, "path"].map(_join_key)
    by_key = labels.set_index("key")
    known = keys[keys.isin(by_key.index)]
    joined = cells.copy()
    for column in ("subject", "label", "original_name"):
        values = by_key.loc[known.to_list(), column].to_list()
        joined.loc[known.index, column] = values
    joined["label"] = joined["label"].astype("Int8")
    left_over = labels.loc[~labels["key"].isin(set(keys)), "name"]
    return joined, tuple(sorted(left_over, key=natural_key))

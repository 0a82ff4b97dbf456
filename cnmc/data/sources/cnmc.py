"""C-NMC 2019: part, fold, subject and label of every image from the names of the release.

The release is found in three folder layouts (the archive's, a mirror's, the one of the paper's
code), often nested deeper. A file is therefore classified by the components of its path and by its
own name, never by its depth.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from cnmc.data.images import UnreadableImageError, read_file
from cnmc.data.names import PARTS, Part, parse_uid
from cnmc.data.sources import Found, walk
from cnmc.errors import CnmcError
from cnmc.files import natural_key

LABEL_COLUMNS = ("Patient_ID", "new_names", "labels")
WAYS_OUT = (
    "download C-NMC 2019 from TCIA (doi:10.7937/tcia.2019.dc64i46r) and give data.root=DIR, "
    "or generate cells with data=synthetic"
)

_PART_FOLDERS: dict[Part, re.Pattern[str]] = {
    "train": re.compile(r"fold_\d+|.*training_data.*", re.IGNORECASE),
    "prelim": re.compile(r".*test_prelim.*|phase2|validation_data", re.IGNORECASE),
    "final": re.compile(r".*test_final.*|phase3|testing_data", re.IGNORECASE),
}
_FOLD = re.compile(r"fold_\d+", re.IGNORECASE)
_LABEL_FILE = re.compile(r".*prelim.*labels.*\.csv|phase2\.csv", re.IGNORECASE)
_COLUMNS = ["cell_id", "path", "part", "fold", "subject", "label", "original_name"]


def find(root: Path) -> Found:
    """Find the cells of the release below a folder, complete or in part, in any layout.

    Raises:
        CnmcError: There is no cell, the same cell is there twice, or a label file is unusable.
    """
    paths = list(walk(root, (".bmp", ".csv")))
    label_files = sorted(p for p in paths if _LABEL_FILE.fullmatch(PurePosixPath(p).name))
    labels = [read_labels(root / path) for path in label_files]
    for path, other in zip(label_files, labels, strict=True):
        if not other.sort_index().equals(labels[0].sort_index()):
            raise CnmcError(
                f"{root / label_files[0]} and {root / path}: two different label files; expected "
                "one, remove the other"
            )
    found = classify(
        (path for path in paths if path.lower().endswith(".bmp")),
        labels[0] if labels else None,
        label_file=label_files[0] if labels else "",
        root_name=root.resolve().name,
    )
    if found.cells.empty:
        others = f" ({len(found.ignored):,} other BMP files)" if found.ignored else ""
        raise CnmcError(f"data.root={root}: no cell of C-NMC 2019 found{others}; {WAYS_OUT}")
    return found


def read_labels(path: Path) -> pd.DataFrame:
    """Read the label file of the preliminary part (``Patient_ID,new_names,labels``).

    Returns:
        ``name``, ``subject``, ``label`` (1 ALL, 0 HEM) and ``original_name``, indexed by the
        lower-cased name without suffix.

    Raises:
        CnmcError: A column is missing, a value is unusable, or a name occurs twice.
    """
    try:
        content = io.BytesIO(read_file(path))
        # Editors add a byte order mark.
        table = pd.read_csv(content, dtype=str, index_col=False, encoding="utf-8-sig").fillna("")
    except (UnreadableImageError, ValueError) as error:
        raise CnmcError(f"{path}: not a readable CSV file ({error})") from error
    if missing := [name for name in LABEL_COLUMNS if name not in table.columns]:
        raise CnmcError(
            f"{path}: no column {', '.join(missing)} among {', '.join(table.columns)}; expected "
            f"{','.join(LABEL_COLUMNS)} as in the label file of the release"
        )
    original, name, label = (table[column].str.strip() for column in LABEL_COLUMNS)
    uids = original.map(parse_uid)
    keys = name.map(_key)
    unusable = uids.isna() | ~label.isin(["0", "1"]) | keys.duplicated() | (keys == "")
    if unusable.any():
        row = int(unusable.to_numpy().argmax())
        values = ",".join(column[row] for column in (original, name, label))
        raise CnmcError(
            f"{path}, line {row + 2}: {values}; expected "
            "UID_<subject>_<image>_<cell>_<all|hem>.bmp, the name of an image (once) and 1 or 0"
        )
    subjects = [uid.subject for uid in uids]
    columns = {"name": name, "subject": subjects, "label": label.astype(int)}
    return pd.DataFrame({**columns, "original_name": original}).set_index(pd.Index(keys))


def classify(
    paths: Iterable[str],
    labels: pd.DataFrame | None = None,
    *,
    label_file: str = "",
    root_name: str = "",
) -> Found:
    """Classify images by their names.

    Args:
        paths: Images, relative to the root, in any order.
        labels: Subjects and labels of the preliminary part, from :func:`read_labels`.
        label_file: Where the labels are from.
        root_name: Name of the root folder, which may itself be one of the release (``fold_1``).

    Raises:
        CnmcError: Two images have the same part and name, as in two copies of the data set.
    """
    rows: list[tuple[str, str, Part, str, str, int | None, str]] = []
    ignored: list[str] = []
    known = {} if labels is None else labels.to_dict("index")
    for text in paths:
        path = PurePosixPath(text)
        folders = (root_name, *path.parts[:-1])
        uid = parse_uid(path.name)
        part = _part_of(folders) or ("train" if uid else None)
        if part is None or (part == "train" and uid is None):
            ignored.append(text)
            continue
        folds = [folder.lower() for folder in folders if _FOLD.fullmatch(folder)]
        fold = folds[-1] if part == "train" and folds else ""
        # The final part has no labels, even if its names claim some.
        subject, label, original = (*uid, path.name) if uid and part != "final" else ("", None, "")
        if part == "prelim" and (entry := known.pop(_key(path.name), None)):
            subject, label, original = entry["subject"], entry["label"], entry["original_name"]
        rows.append((f"{part}/{path.stem}", text, part, fold, subject, label, original))
    rows.sort(key=lambda row: (PARTS.index(row[2]), natural_key(row[0]), row[1]))
    for first, second in itertools.pairwise(rows):
        if first[0] == second[0]:
            raise CnmcError(
                f"{first[1]} and {second[1]}: the same cell twice below data.root; expected one "
                "copy of the data set (remove one, or give data.root=DIR of one of them)"
            )
    cells = pd.DataFrame(rows, columns=pd.Index(_COLUMNS)).astype({"label": "Int8"})
    left_over = sorted((str(entry["name"]) for entry in known.values()), key=natural_key)
    return Found(cells, label_file, tuple(left_over), tuple(sorted(ignored, key=natural_key)))


def _part_of(folders: tuple[str, ...]) -> Part | None:
    # The nearest folder decides: `validation_data` may itself be in `training_data`.
    for folder in reversed(folders):
        for part, pattern in _PART_FOLDERS.items():
            if pattern.fullmatch(folder):
                return part
    return None


def _key(name: str) -> str:
    return PurePosixPath(name).stem.lower()

"""C-NMC 2019: part, fold, subject and label of every image from the names of the release.

The release is found in three folder layouts (the archive's, a mirror's, the one of the paper's
code), often nested deeper. A file is therefore classified by the components of its path and by its
own name, never by its depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from cnmc.data.names import CLASS_NAMES, LABELS, PARTS, parse_uid
from cnmc.data.sources import Finding, walk
from cnmc.errors import CnmcError
from cnmc.files import natural_key

LABEL_COLUMNS = ["Patient_ID", "new_names", "labels"]
"""Columns of the label file of the preliminary part: original name, name of the image, 1 or 0."""
WAYS_OUT = (
    "download C-NMC 2019 from TCIA (doi:10.7937/tcia.2019.dc64i46r) and give data.root=DIR, "
    "or generate cells with data=synthetic"
)

# The nearest folder decides: `validation_data` may itself be in `training_data`.
_PART = re.compile(
    r".*/(?:(?P<train>fold_\d+|[^/]*training_data[^/]*)"
    r"|(?P<prelim>[^/]*test_prelim[^/]*|phase2|validation_data)"
    r"|(?P<final>[^/]*test_final[^/]*|phase3|testing_data))/"
)
_LABEL_FILE = re.compile(r"(?:.*/)?(?:[^/]*prelim[^/]*labels[^/]*|phase2)\.csv", re.IGNORECASE)
_COLUMNS = ["cell_id", "path", "part", "fold", "subject", "label", "original_name"]


def find(root: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """Find the cells of the release below a folder, complete or in part, in any layout.

    Raises:
        CnmcError: There is no cell, the same cell is there twice, or a label file is unusable.
    """
    paths = list(walk(root, (".bmp", ".csv")))
    labels = read_labels([root / path for path in paths if _LABEL_FILE.fullmatch(path)])
    images = [path for path in paths if path.lower().endswith(".bmp")]
    cells, findings = classify(images, labels, root_name=root.resolve().name)
    if cells.empty:
        raise CnmcError(
            f"data.root={root}: no cell of C-NMC 2019 among {len(images):,} BMP files; {WAYS_OUT}"
        )
    return cells, findings


def read_labels(paths: Iterable[Path]) -> dict[str, tuple[str, int]]:
    """Read the label files of the preliminary part, of which several must agree.

    Returns:
        Original name (``UID_...``) and label, by the lower-cased name of the image without suffix.

    Raises:
        CnmcError: A column is missing, a value is unusable, or an image has two labels.
    """
    labels: dict[str, tuple[str, int]] = {}
    for path in paths:
        try:
            # Editors add a byte order mark.
            table = pd.read_csv(path, dtype=str, index_col=False, encoding="utf-8-sig")
            rows = table[LABEL_COLUMNS].fillna("").itertuples(index=False, name=None)
        except (OSError, ValueError, KeyError) as error:
            expected = f"expected a CSV file with the columns {','.join(LABEL_COLUMNS)}"
            raise CnmcError(f"{path}: {error}; {expected}") from error
        for line, row in enumerate(rows, start=2):
            original, name, label = (value.strip() for value in row)
            entry = original, int(label == "1")
            known = labels.setdefault(PurePosixPath(name).stem.lower(), entry)
            if parse_uid(original) is None or not name or label not in {"0", "1"} or known != entry:
                raise CnmcError(
                    f"{path}, line {line}: {','.join(row)}; expected UID_<subject>_<image>_<cell>_"
                    "<all|hem>.bmp, the name of an image and 1 or 0, the same in all label files"
                )
    return labels


def classify(
    paths: Iterable[str], labels: Mapping[str, tuple[str, int]], *, root_name: str = ""
) -> tuple[pd.DataFrame, list[Finding]]:
    """Classify images by their paths below the root, whose own name may be one of the release."""
    rows: list[tuple[str, str, str, str, str, int | None, str]] = []
    ignored, bare, conflicts = [], [], []
    unused, paths_of = dict(labels), dict[str, str]()
    for text in paths:
        path = PurePosixPath(text)
        original, uid = path.name, parse_uid(path.name)
        where = f"/{root_name}/{path.parent}/".lower()
        nearest = _PART.match(where)
        part = str(nearest.lastgroup) if nearest else "train"
        if part == "train" and uid is None:
            ignored.append(text)
            continue
        cell_id = f"{part}/{path.stem}"
        if (other := paths_of.setdefault(cell_id, text)) != text:
            raise CnmcError(
                f"{other} and {text}: the same cell twice below data.root; expected one copy of "
                "the data set (remove one, or give data.root=DIR of one of them)"
            )
        label = uid.label if uid else 0
        if part == "prelim" and (entry := unused.pop(path.stem.lower(), None)):
            original, label = entry
            uid = parse_uid(original)
        # The final part has no labels, even if its names claim some.
        if uid is None or part == "final":
            rows.append((cell_id, text, part, "", "", None, ""))
            bare += [text] if part == "prelim" else []
            continue
        claims = {"label": label, "name": uid.label, "subject": int(uid.subject[0] != "H")}
        fold = ""
        if part == "train":
            fold = "".join(re.findall(r"/(fold_\d+)(?=/)", where)[-1:])
            for folder in re.findall("/(all|hem)(?=/)", where):
                claims["folder"] = LABELS[folder]
        rows.append((cell_id, text, part, fold, uid.subject, label, original))
        if len(set(claims.values())) > 1:
            named = ", ".join(f"{who} {CLASS_NAMES[claim]}" for who, claim in claims.items())
            conflicts.append(f"{text} ({named})")
    rows.sort(key=lambda row: (PARTS.index(row[2]), natural_key(row[0])))
    conflict = "images of conflicting class, expected folder, name, label and subject to agree"
    lost = sorted(unused, key=natural_key)
    return pd.DataFrame(rows, columns=pd.Index(_COLUMNS)).astype({"label": "Int8"}), [
        Finding("error", "class_conflict", conflict, conflicts),
        Finding("warning", "label_without_image", "labels without an image, not used", lost),
        Finding("warning", "image_without_label", "prelim images without label, not used", bare),
        Finding("warning", "ignored", "BMP files of no part of the release, not used", ignored),
    ]

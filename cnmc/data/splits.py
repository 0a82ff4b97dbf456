"""Splits: the role of every cell, train, val or test.

A split is a file that is made once from a seed and read by every run of a study. No group of
subjects (see :mod:`cnmc.data.grouping`) is on two sides of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cnmc.config import SplitConfig
from cnmc.data.grouping import deal_folds, draw_fraction, groups
from cnmc.data.manifest import writing_to
from cnmc.data.names import CLASS_NAMES, shown
from cnmc.errors import CnmcError
from cnmc.files import natural_key, replacing

ROLES = ("train", "val", "test")
COLUMNS = ["cell_id", "subject", "role"]


@dataclass(frozen=True)
class Split:
    """Roles of cells.

    The protocol is ``honest`` if there is a ``test`` role: ``val`` chooses the epoch, and ``test``
    is evaluated once. Else it is ``paper``: ``val`` chooses and is reported, which is optimistic.
    """

    cells: pd.DataFrame
    """The columns ``cell_id``, ``subject`` and ``role``, one row a labelled cell."""
    protocol: Literal["paper", "honest"]
    fingerprint: str
    """SHA-256 (hexadecimal) over the rows, in any order."""
    path: Path | None = None
    """The file it was read from."""


def make_split(cells: pd.DataFrame, split: SplitConfig) -> Split:
    """Assign roles to the labelled cells among some rows of a manifest.

    - ``official``: train on the training part, ``val`` is the preliminary part;
    - ``nested``: ``val`` is ``val_fraction`` of the training part, ``test`` the preliminary part;
    - ``subject_kfold``: ``val`` is ``fold`` of ``num_folds`` of the training part;
    - ``subject_holdout``: ``val`` is ``subjects``, or ``val_fraction``, of the training part.

    Raises:
        CnmcError: The data do not allow this split.
    """
    names = groups(cells)
    labelled = cells[cells["label"].notna()]
    chosen = labelled[labelled["part"] == "train"].assign(role="train")
    if split.kind != "official":
        aside = _set_aside(chosen, names[chosen["cell_id"]].to_numpy(), split)
        chosen["role"] = np.where(aside, "val", "train")
    if split.kind in {"official", "nested"}:
        prelim = labelled[labelled["part"] == "prelim"]
        if prelim.empty:
            raise CnmcError(
                f"split.kind={split.kind}: no labelled cell of the prelim part; add its images "
                "and label file, or give split=subject_holdout or split=subject_kfold"
            )
        role = "val" if split.kind == "official" else "test"
        chosen = pd.concat([chosen, prelim.assign(role=role)])
    made = _split(chosen[COLUMNS].reset_index(drop=True))
    listed = f"split.subjects={','.join(split.subjects)}" if split.subjects else ""
    _verify(made, cells, names, source=listed or f"split.kind={split.kind}")
    return made


def load_split(
    manifest_fingerprint: str, cells: pd.DataFrame, split: SplitConfig, work_dir: Path
) -> Split:
    """Return the saved split of the usable rows of a manifest, or make and save a new one.

    The file is ``<work_dir>/splits/<kind>-<hash>.csv``; a JSON file beside it holds what it was
    made from. ``split.path`` names a file of the user instead.

    Raises:
        CnmcError: The split cannot be made, or its file was changed or does not fit the data.
    """
    if split.path is not None:
        return _read(Path(split.path), cells, source=f"split.path={split.path}")
    # Unusable cells may be left out; a split belongs to those that remain.
    origin = {"manifest": manifest_fingerprint, "cells": _digest(cells["cell_id"])}
    made_from = {**origin, **asdict(split)}
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    path = work_dir / "splits" / f"{split.kind}-{key}.csv"
    facts = path.with_suffix(".json")
    if not path.exists():
        made = make_split(cells, split)
        made_from |= {"fingerprint": made.fingerprint, "protocol": made.protocol}
        with writing_to(path.parent), replacing(path) as table, replacing(facts) as text:
            made.cells.to_csv(table, index=False)
            text.write_text(json.dumps(made_from, indent=2) + "\n", encoding="utf-8")
    saved = _read(path, cells, source=str(path))
    if not facts.exists() or saved.fingerprint not in facts.read_text(encoding="utf-8"):
        raise CnmcError(f"{path}: was changed; remove it, or give your own with split.path=FILE")
    return saved


def _split(cells: pd.DataFrame, path: Path | None = None) -> Split:
    rows = cells[COLUMNS].agg("\t".join, axis=1)
    is_honest = (cells["role"] == "test").any()
    return Split(cells, "honest" if is_honest else "paper", _digest(rows), path)


def _digest(lines: pd.Series) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _set_aside(train: pd.DataFrame, names: np.ndarray, split: SplitConfig) -> np.ndarray:
    """Return for every cell of the training part whether it becomes ``val``."""
    if split.subjects:
        listed = {str(subject).strip().upper() for subject in split.subjects}
        if unknown := sorted(listed - set(train["subject"]), key=natural_key):
            known = ", ".join(sorted(set(train["subject"]), key=natural_key))
            raise CnmcError(f"split.subjects: {', '.join(unknown)}; expected some of {known}")
        return train["subject"].isin(listed).to_numpy()
    table = pd.crosstab(names, train["label"].astype(int)).reindex(columns=[0, 1], fill_value=0)
    table = table.loc[sorted(table.index, key=natural_key)]
    counts = table.to_numpy(np.int64)
    if split.kind == "subject_kfold":
        folds = deal_folds(counts, num_folds=split.num_folds, seed=split.seed)
        drawn = None if folds is None else folds == split.fold
        source = f"split.num_folds={split.num_folds}"
    else:
        drawn = draw_fraction(counts, fraction=split.val_fraction, seed=split.seed)
        source = f"split.kind={split.kind}"
    if drawn is None:
        numbers = zip((counts > 0).sum(axis=0), CLASS_NAMES, strict=True)
        raise CnmcError(
            f"{source}: no division of the training part has both classes on every side; it has "
            f"{' and '.join(f'{number} {name}' for number, name in numbers)} independent subjects "
            "(those that share an image count as one); expected more of them, or fewer folds"
        )
    return np.isin(names, table.index[drawn])


def _read(path: Path, cells: pd.DataFrame, *, source: str) -> Split:
    try:
        split = _split(pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS], path)
    except (OSError, ValueError, KeyError) as error:
        raise CnmcError(
            f"{source}: not a readable split ({error}); expected a CSV file with the columns "
            f"{','.join(COLUMNS)}"
        ) from error
    _verify(split, cells, groups(cells), source=source)
    return split


def _verify(split: Split, cells: pd.DataFrame, names: pd.Series, *, source: str) -> None:
    """Refuse a split that does not fit the cells or has a group on two sides."""
    roles, ids, subjects = (split.cells[name] for name in ("role", "cell_id", "subject"))
    known = cells[cells["label"].notna()].set_index("cell_id").reindex(ids).reset_index(drop=True)
    sides = roles.groupby(names.reindex(ids).to_numpy()).nunique()
    needed = product(ROLES if split.protocol == "honest" else ROLES[:2], enumerate(CLASS_NAMES))
    problems: dict[str, Iterable[str]] = {
        "role is not train, val or test": roles[~roles.isin(ROLES)],
        "cell twice": ids[ids.duplicated()],
        "no labelled and usable cell of this data set": ids[known["label"].isna()],
        "another subject than in the data": ids[known["subject"] != subjects],
        "subjects on two sides, keep them and all that share an image with them on one": sorted(
            sides.index[sides > 1], key=natural_key
        ),
        "no cells of a class in a role": [
            f"{name} in {role}"
            for role, (label, name) in needed
            if not ((roles == role) & known["label"].eq(label).fillna(value=False)).any()
        ],
    }
    for problem, found in problems.items():
        if some := list(dict.fromkeys(found)):
            raise CnmcError(f"{source}: {problem}: {shown(some)}")

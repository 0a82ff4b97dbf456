"""Splits: the role of every cell, train, val or test.

A split is a saved file that is made once from a seed and read by every run of a study. No group of
subjects (see :mod:`cnmc.data.grouping`) is on two sides of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cnmc.config import SplitConfig
from cnmc.data.grouping import count_by_group, deal_folds, draw_fraction, groups
from cnmc.data.names import CLASS_NAMES
from cnmc.data.workdir import writing_to
from cnmc.errors import CnmcError
from cnmc.files import natural_key, replacing

ROLES = ("train", "val", "test")
COLUMNS = ["cell_id", "subject", "role"]

Protocol = Literal["paper", "honest"]

# Part of a saved split's name: raise it when the assignment changes for the same seed.
_VERSION = 1


@dataclass(frozen=True)
class Split:
    """Roles of cells.

    Attributes:
        cells: One row a labelled cell with ``cell_id``, ``subject`` and ``role`` (``train``,
            ``val`` or ``test``).
        protocol: ``honest`` if there is a ``test`` role: ``val`` chooses the epoch and ``test`` is
            evaluated once. Else ``paper``: ``val`` chooses and is reported, which is optimistic.
        fingerprint: SHA-256 (hexadecimal) over the rows, in any order.
        path: The file it was read from.
    """

    cells: pd.DataFrame
    protocol: Protocol
    fingerprint: str
    path: Path | None = None


def make_split(cells: pd.DataFrame, split: SplitConfig) -> Split:
    """Assign roles to cells.

    ===================  =======================  =========================  ==================
    kind                 train                    val                        test
    ===================  =======================  =========================  ==================
    ``official``         training part            preliminary part
    ``nested``           rest of training part    ``val_fraction`` of it     preliminary part
    ``subject_kfold``    other folds of training  ``fold`` of ``num_folds``
    ``subject_holdout``  rest of training part    ``subjects``, or
                                                  ``val_fraction`` of it
    ===================  =======================  =========================  ==================

    Cells without a label get no role.

    Raises:
        CnmcError: The data do not allow this split; the message names the key.
    """
    names = groups(cells)
    labelled = cells[cells["label"].notna()]
    train = labelled[labelled["part"] == "train"]
    prelim = labelled[labelled["part"] == "prelim"]
    uses_prelim = split.kind in {"official", "nested"}
    if train.empty:
        raise CnmcError(
            f"split.kind={split.kind}: no labelled cell of the training part; expected images in "
            "fold_N/{all,hem} below data.root"
        )
    if uses_prelim and prelim.empty:
        raise CnmcError(
            f"split.kind={split.kind}: no labelled cell of the preliminary part below data.root; "
            "add its images and its label file, or give split=subject_holdout or "
            "split=subject_kfold, which do without"
        )
    aside = set() if split.kind == "official" else _set_aside(train, names, split)
    roles = np.where(names[train["cell_id"]].isin(aside), "val", "train")
    chosen = train[["cell_id", "subject"]].assign(role=roles)
    if uses_prelim:
        role = "val" if split.kind == "official" else "test"
        chosen = pd.concat([chosen, prelim[["cell_id", "subject"]].assign(role=role)])
    made = _split(chosen.reset_index(drop=True))
    listed = f"split.subjects={','.join(split.subjects)}" if split.subjects else ""
    _verify(made, cells, names, source=listed or f"split.kind={split.kind}")
    return made


def load_split(
    manifest_fingerprint: str, cells: pd.DataFrame, split: SplitConfig, work_dir: Path
) -> Split:
    """Read the saved split; make and save it first if it does not exist.

    The file is ``<work_dir>/splits/<kind>-<hash>.csv``; a JSON file beside it holds what it was
    made from. ``split.path`` names a file of the user instead.

    Args:
        manifest_fingerprint: Fingerprint of the data set.
        cells: The usable rows of its manifest.
        split: The settings.
        work_dir: Folder for what is made from the data.

    Raises:
        CnmcError: The split cannot be made, or its file was changed, belongs to other data or has
            a group on two sides.
    """
    if split.path is not None:
        own = _read(Path(split.path), source=f"split.path={split.path}")
        _verify(own, cells, groups(cells), source=f"split.path={split.path}")
        return own

    made_from = {
        "version": _VERSION,
        "manifest": manifest_fingerprint,
        # Unusable cells may be left out; a split belongs to those that remain.
        "cells": _digest(cells["cell_id"].to_list()),
        "kind": split.kind,
        "parameters": _parameters(split),
    }
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:12]
    path = work_dir / "splits" / f"{split.kind}-{key}.csv"
    sidecar = path.with_suffix(".json")
    if not path.exists():
        made = make_split(cells, split)
        facts = {"fingerprint": made.fingerprint, "protocol": made.protocol, **made_from}
        # The table last, since its presence is what counts. Two processes write the same.
        with writing_to(path.parent):
            with replacing(sidecar) as temporary:
                temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            with replacing(path) as temporary:
                made.cells.to_csv(temporary, index=False)
    saved = _read(path, source=str(path))
    if not sidecar.exists() or saved.fingerprint not in sidecar.read_text(errors="replace"):
        raise CnmcError(
            f"{path}: changed since it was made, its fingerprint is not in {sidecar.name}; remove "
            "both files to make it again, or give a split of your own with split.path=FILE"
        )
    _verify(saved, cells, groups(cells), source=str(path))
    return saved


def _split(cells: pd.DataFrame, path: Path | None = None) -> Split:
    protocol: Protocol = "honest" if (cells["role"] == "test").any() else "paper"
    rows = zip(*(cells[name] for name in COLUMNS), strict=True)
    return Split(cells, protocol, _digest(["\t".join(row) for row in rows]), path)


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _parameters(split: SplitConfig) -> dict[str, Any]:
    """Return what the assignment depends on; other keys do not make another split."""
    match split.kind:
        case "subject_kfold":
            return {"seed": split.seed, "num_folds": split.num_folds, "fold": split.fold}
        case "subject_holdout" if split.subjects:
            return {"subjects": sorted(_listed(split), key=natural_key)}
        case "nested" | "subject_holdout":
            return {"seed": split.seed, "val_fraction": split.val_fraction}
    return {}


def _listed(split: SplitConfig) -> set[str]:
    return {str(subject).strip().upper() for subject in split.subjects}


def _set_aside(train: pd.DataFrame, names: pd.Series, split: SplitConfig) -> set[str]:
    """Return the groups of the training part that become ``val``."""
    if split.subjects:
        return _listed_groups(train, names, _listed(split))
    order, counts = count_by_group(
        train["label"].astype(int).to_list(), names[train["cell_id"]].to_list()
    )
    is_kfold = split.kind == "subject_kfold"
    source = f"split.num_folds={split.num_folds}" if is_kfold else f"split.kind={split.kind}"
    needed = split.num_folds if is_kfold else 2
    for class_name, number in zip(CLASS_NAMES, (counts > 0).sum(axis=0), strict=True):
        if number < needed:
            raise CnmcError(
                f"{source}: independent {class_name} subjects in the training part: {number}; "
                f"expected at least {needed} (subjects that share an image count as one), "
                f"{'give fewer folds' if is_kfold and number > 1 else 'add subjects'}"
            )
    if is_kfold:
        folds = deal_folds(counts, num_folds=split.num_folds, seed=split.seed)
        drawn = None if folds is None else np.asarray(folds == split.fold)
    else:
        drawn = draw_fraction(counts, fraction=split.val_fraction, seed=split.seed)
    if drawn is None:
        raise CnmcError(
            f"{source}: no division of the {len(order)} independent subjects of the training part "
            "has both classes on every side; expected more subjects, or a split of your own with "
            "split.path=FILE"
        )
    return {name for name, yes in zip(order, drawn, strict=True) if yes}


def _listed_groups(train: pd.DataFrame, names: pd.Series, listed: set[str]) -> set[str]:
    by_subject = dict(zip(train["subject"], names[train["cell_id"]], strict=True))
    if unknown := sorted(listed - by_subject.keys(), key=natural_key):
        raise CnmcError(
            f"split.subjects: no subject {', '.join(unknown)} in the training part; expected some "
            f"of {', '.join(sorted(by_subject, key=natural_key))}"
        )
    chosen = {by_subject[subject] for subject in listed}
    joined = {subject for subject, name in by_subject.items() if name in chosen} - listed
    if joined:
        raise CnmcError(
            f"split.subjects: {', '.join(sorted(joined, key=natural_key))} must be listed too: "
            "byte-identical images join them to subjects of the list"
        )
    return chosen


def _read(path: Path, *, source: str) -> Split:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CnmcError(
            f"{source}: not a readable CSV file ({error}); expected one with the columns "
            f"{','.join(COLUMNS)}"
        ) from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise CnmcError(
            f"{source}: no column {', '.join(missing)} among {', '.join(table.columns)}; expected "
            f"{','.join(COLUMNS)}"
        )
    return _split(table[COLUMNS], path)


def _verify(split: Split, cells: pd.DataFrame, names: pd.Series, *, source: str) -> None:
    """Refuse a split that does not fit the cells or has a group on two sides."""
    table, ids = split.cells, split.cells["cell_id"]
    known = cells[cells["label"].notna()].set_index("cell_id")

    def refuse(what: str, some: Sequence[str], expected: str) -> None:
        if some:
            shown = ", ".join(some[:5]) + (f" and {len(some) - 5:,} more" if len(some) > 5 else "")
            raise CnmcError(f"{source}: {what} {shown}; expected {expected}")

    refuse("unknown role", sorted(set(table["role"]) - set(ROLES)), "train, val or test")
    refuse("cell twice:", ids[ids.duplicated()].unique().tolist(), "every cell once")
    refuse(
        "no such labelled and usable cell:",
        ids[~ids.isin(known.index)].to_list(),
        "cells of this data set, a split belongs to the data that it was made from",
    )
    other = ids[table["subject"].to_numpy() != known.loc[ids, "subject"].to_numpy()]
    refuse("another subject than in the data:", other.to_list(), "the data's subjects")
    sides = table["role"].groupby(names[ids].to_numpy()).nunique()
    refuse(
        "subjects on two sides:",
        sorted(sides.index[sides > 1], key=natural_key),
        "one role for a subject and all that share an image with it; keep those cells in one part",
    )
    for role in ROLES if split.protocol == "honest" else ROLES[:2]:
        labels = set(known.loc[ids[table["role"] == role], "label"])
        missing = [name for label, name in enumerate(CLASS_NAMES) if label not in labels]
        refuse(f"role {role} without cells of class", missing, "both classes in every role")

"""What a study left behind: its runs, grouped into repetitions of each other, and its gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import FloatArray, IntArray, evaluate, reported_role
from cnmc.errors import CnmcError
from cnmc.runs.folder import (
    PREDICTIONS,
    RunFolder,
    RunInfo,
    config_hash,
    differing_keys,
    find_runs,
    identity,
    logit_columns,
)

ROTATIONS, NO_ROTATION = "rotations", "no rotation"
UPRIGHT = "logit_0"
"""The logit of the original orientation."""
REFERENCE = "proposal"
"""The experiment that others are compared with, where it is there."""
_FINGERPRINTS = ("data", "split file")
_FINGERPRINT_LENGTH = 64


@dataclass(frozen=True)
class Logits:
    """The stored logits of one part of a run's cells.

    Attributes:
        cells: cell_id, subject and label, one row a cell, sorted by cell_id.
        epochs: Shape (E,), ascending.
        values: Shape (E, N, V): epoch, cell, rotation.
        columns: The names of the V rotations.
    """

    cells: pd.DataFrame
    epochs: IntArray
    values: FloatArray
    columns: tuple[str, ...]

    @cached_property
    def labels(self) -> IntArray:
        """0 (HEM) or 1 (ALL), shape (N,)."""
        return self.cells["label"].to_numpy(dtype=np.int64)

    def at(self, epoch: int) -> FloatArray:
        """Return the logits of an epoch, shape (N, V)."""
        views: FloatArray = self.values[int(np.searchsorted(self.epochs, epoch))]
        return views

    def mean(self, *, rotations: bool = True) -> FloatArray:
        """Return the logits that decide, shape (E, N).

        Args:
            rotations: Average all stored rotations, or take the original orientation alone.
        """
        return self._mean(self.values, rotations)

    def mean_at(self, epoch: int, *, rotations: bool = True) -> FloatArray:
        """Return the logits that decide in one epoch, shape (N,)."""
        return self._mean(self.at(epoch), rotations)

    def _mean(self, values: FloatArray, rotations: bool) -> FloatArray:
        upright = self.columns.index(UPRIGHT)
        chosen = values if rotations else values[..., upright : upright + 1]
        mean: FloatArray = chosen.astype(np.float64).mean(axis=-1)
        return mean


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: RunFolder
    info: RunInfo
    config: Mapping[str, Any]
    reported: Logits
    """Of the cells that are reported."""
    choosing: Logits
    """Of the cells that chose the epoch: the reported ones, under the paper's protocol."""

    @property
    def best_epoch(self) -> int:
        """The epoch of the best checkpoint."""
        return self.info.best_epoch or self.info.epochs_done

    @property
    def variant(self) -> dict[str, Any]:
        """What the run computes, but for its seed, and on which cells."""
        keys = {key: value for key, value in identity(self.config).items() if key != "seed"}
        info = self.info
        prints = (info.manifest_fingerprint, info.split_fingerprint)
        return {**keys, **dict(zip(_FINGERPRINTS, prints, strict=True))}

    def logits(self, *, rotations: bool = True) -> FloatArray:
        """Return what the best checkpoint says of the reported cells, shape (N,)."""
        return self.reported.mean_at(self.best_epoch, rotations=rotations)


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    label: str
    runs: tuple[Run, ...]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.runs[0].info.experiment

    @property
    def protocol(self) -> str:
        """``paper`` or ``honest``."""
        return str(self.runs[0].info.protocol)

    @property
    def seeds(self) -> list[int]:
        """The seeds, one a run."""
        return [run.info.seed for run in self.runs]

    @property
    def cells(self) -> pd.DataFrame:
        """The reported cells: cell_id, subject, label."""
        return self.runs[0].reported.cells

    @property
    def labels(self) -> IntArray:
        """0 (HEM) or 1 (ALL) of the reported cells, shape (N,)."""
        return self.runs[0].reported.labels

    @cached_property
    def subjects(self) -> tuple[list[str], IntArray]:
        """Names of the subjects of the reported cells, and the number of each cell's."""
        numbers, names = pd.factorize(self.cells["subject"], sort=True)
        return [str(name) for name in names], np.asarray(numbers, dtype=np.int64)

    @property
    def has_rotations(self) -> bool:
        """Whether more than the original orientation was stored."""
        return self.runs[0].reported.columns != (UPRIGHT,)

    @cached_property
    def logits(self) -> FloatArray:
        """What the best checkpoints say of the reported cells, shape (R, N)."""
        return np.stack([run.logits() for run in self.runs])

    @cached_property
    def upright(self) -> FloatArray:
        """The same in the original orientation alone, shape (R, N)."""
        return np.stack([run.logits(rotations=False) for run in self.runs])

    @cached_property
    def by_epoch(self) -> tuple[IntArray, FloatArray]:
        """Epochs that all runs stored of the reported cells, and their mean logits, (E, R, N)."""
        return self._by_epoch(rotations=True)

    @cached_property
    def upright_by_epoch(self) -> tuple[IntArray, FloatArray]:
        """The same in the original orientation alone."""
        return self._by_epoch(rotations=False)

    def _by_epoch(self, *, rotations: bool) -> tuple[IntArray, FloatArray]:
        shared = set(self.runs[0].reported.epochs.tolist())
        for run in self.runs:
            shared &= set(run.reported.epochs.tolist())
        epochs = np.array(sorted(shared), dtype=np.int64)
        stacks = [
            run.reported.mean(rotations=rotations)[np.isin(run.reported.epochs, epochs)]
            for run in self.runs
        ]
        return epochs, np.stack(stacks, axis=1)

    @property
    def cells_key(self) -> tuple[str, ...]:
        """What two groups must have in common to be compared."""
        info = self.runs[0].info
        return (
            f"protocol {info.protocol}",
            f"data {_short(info.manifest_fingerprint)}",
            f"split {_short(info.split_fingerprint)}",
        )


@dataclass(frozen=True)
class Study:
    """Everything that run folders hold."""

    groups: tuple[Group, ...]
    """Those of the reference experiment first, then in the order of the folders."""
    gaps: tuple[str, ...]
    """What is not among them, and why: one line a run."""

    @property
    def reference(self) -> Group:
        """The group that others are compared with."""
        return self.groups[0]


def with_reference(study: Study, label: str) -> Study:
    """Return the study with another group as its reference.

    Raises:
        CnmcError: No group is called so.
    """
    for group in study.groups:
        if group.label == label:
            others = tuple(other for other in study.groups if other is not group)
            return Study((group, *others), study.gaps)
    known = ", ".join(f"'{group.label}'" for group in study.groups)
    raise CnmcError(f"reference={label}: no such group of finished runs; expected one of {known}")


def load_study(folders: Sequence[RunFolder], reasons: Mapping[str, str] | None = None) -> Study:
    """Read run folders, finished or not.

    Args:
        folders: The runs.
        reasons: By path, why a run is not finished, where its folder does not say so, or is not
            this run's at all; those are gaps, whatever their folders hold.
    """
    told = dict(reasons or {})
    runs: list[Run] = []
    for folder in folders:
        if str(folder.path) in told:
            continue
        try:
            run = load_run(folder)
            if run is not None:
                runs.append(run)
        except CnmcError as error:
            told[str(folder.path)] = str(error)
    groups = []
    for label, members in _by_variant(runs).items():
        first = members[0].reported
        same = [run for run in members if _same_cells(first, run.reported)]
        for run in members:
            if not _same_cells(first, run.reported):
                told[str(run.folder.path)] = f"other cells than {members[0].folder.path}"
        groups.append(Group(label, tuple(same)))
    groups.sort(key=lambda group: group.experiment != REFERENCE)
    return Study(tuple(groups), tuple(_gaps(folders, told)))


def load_run(folder: RunFolder) -> Run | None:
    """Read a run folder; None where the run is not finished.

    Raises:
        CnmcError: What a finished run left is lost or cannot be read.
    """
    info = folder.read_info()
    if info is None or info.status != "finished":
        return None
    predictions = folder.read_predictions()
    if predictions is None or predictions.empty:
        raise CnmcError(
            f"{folder.path}: {PREDICTIONS} of a finished run is lost; run.overwrite=true trains it "
            "again"
        )
    role = reported_role(predictions)
    if info.protocol == "honest" and role != "test":
        raise CnmcError(
            f"{folder.path}: protocol honest, but {PREDICTIONS} has no test cells; "
            "run.overwrite=true trains it again"
        )
    reported = _logits(folder, predictions, role)
    choosing = reported if role == "val" else _logits(folder, predictions, "val")
    run = Run(folder, info, folder.read_config(), reported, choosing)
    for part in (reported, choosing):
        if run.best_epoch not in part.epochs:
            raise CnmcError(
                f"{folder.path}: {PREDICTIONS} has nothing of its best epoch, {run.best_epoch}; "
                "run.overwrite=true trains it again"
            )
    return run


def _logits(folder: RunFolder, predictions: pd.DataFrame, role: str) -> Logits:
    rows = predictions[predictions["role"] == role]
    columns = logit_columns(rows)
    epochs = np.unique(rows["epoch"].to_numpy(dtype=np.int64))
    if not len(epochs) or UPRIGHT not in columns:
        raise CnmcError(f"{folder.path}: {PREDICTIONS} has no {UPRIGHT} of role {role}")
    last = rows[rows["epoch"] == epochs[-1]]
    cells = last[["cell_id", "subject", "label"]].sort_values("cell_id", ignore_index=True)
    index = pd.Index(cells["cell_id"])
    values = np.empty((len(epochs), len(cells), len(columns)), dtype=np.float32)
    filled = np.zeros(values.shape[:2], dtype=bool)
    if index.is_unique:
        row = index.get_indexer(pd.Index(rows["cell_id"]))
        epoch = np.searchsorted(epochs, rows["epoch"].to_numpy(dtype=np.int64))
        values[epoch, row], filled[epoch, row] = rows[columns].to_numpy(dtype=np.float32), row >= 0
    if len(rows) != filled.size or not filled.all():
        raise CnmcError(
            f"{folder.path}: {PREDICTIONS} has not one logit a cell, epoch and rotation of role "
            f"{role}; run.overwrite=true trains it again"
        )
    return Logits(cells, epochs, values, tuple(columns))


def _same_cells(one: Logits, other: Logits) -> bool:
    return one.columns == other.columns and one.cells.equals(other.cells)


def _by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs that are repetitions of each other, by what they are called.

    Runs of one name that differ in what was not swept are told apart by the keys that differ.
    """
    named: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        variants = named.setdefault((run.info.experiment, run.info.setting), {})
        variants.setdefault(config_hash(run.variant), []).append(run)
    groups: dict[str, list[Run]] = {}
    for names, variants in named.items():
        label = " ".join(name for name in names if name)
        described = [members[0].variant for members in variants.values()]
        for members, words in zip(variants.values(), _differences(described), strict=True):
            groups[" ".join([label, *words])] = members
    return groups


def _differences(variants: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return what tells each variant from the others, as ``key=value``.

    The fingerprints speak only where nothing else does.
    """
    keys = sorted(
        {key for one in variants for other in variants for key in differing_keys(one, other)}
    )
    telling = [key for key in keys if key not in _FINGERPRINTS]
    told = [tuple(str(variant.get(key, "absent")) for key in telling) for variant in variants]
    shown = telling if len(set(told)) == len(variants) else keys
    return [
        [f"{key}={_short(variant.get(key, 'absent'))}" for key in shown] for variant in variants
    ]


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == _FINGERPRINT_LENGTH else text


def _gaps(folders: Sequence[RunFolder], reasons: Mapping[str, str]) -> list[str]:
    lines = []
    for folder in folders:
        told = reasons.get(str(folder.path))
        try:
            info = folder.read_info()
        except CnmcError as error:
            lines += [f"not readable: {error}"]
            continue
        if told is not None and info is not None and info.status == "finished":
            lines += [f"not in the table: {folder.path} ({told})"]
        elif info is None or info.status != "finished":
            words = ["not started" if info is None else _state(folder, info)]
            words += [told or (info.reason if info else None) or ""]
            lines += [f"not finished: {folder.path} ({': '.join(filter(None, words))})"]
    return lines


def _state(folder: RunFolder, info: RunInfo) -> str:
    if info.status == "failed":
        return "failed"
    words = "running" if folder.is_locked() else "interrupted"
    words += f", epoch {info.epochs_done}/{info.max_epochs}"
    return words if info.best_f1 is None else f"{words}, F1 so far {100 * info.best_f1:.2f}"


def missing_seeds(study: Study) -> dict[str, list[int]]:
    """Return, by group, the seeds that another group on the same cells has and it has not."""
    missing = {}
    for group in study.groups:
        others = [other for other in study.groups if other.cells_key == group.cells_key]
        wanted = {seed for other in others for seed in other.seeds}
        if lacking := sorted(wanted - set(group.seeds)):
            missing[group.label] = lacking
    return missing


def run_table(groups: Sequence[Group]) -> pd.DataFrame:
    """Return one row a run and view: the metrics of its best epoch on the reported cells.

    Columns: group, experiment, setting (what was swept besides the seed), variant (equal for runs
    that differ in nothing but their seed, also in what was not swept), protocol, manifest and split
    (fingerprints), run, seed, best_epoch, num_cells, majority_f1 (weighted F1 of calling every cell
    by the more frequent class), seconds, checkpoint, view, and the metrics as fractions of 1. A run
    that stored the original orientation alone has no row for the view ``rotations``.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        labels = group.labels
        majority = evaluate(labels, np.full(len(labels), labels.mean() - 0.5))["f1"]
        views = {ROTATIONS: group.logits} if group.has_rotations else {}
        views[NO_ROTATION] = group.upright
        for position, run in enumerate(group.runs):
            common = {
                "group": group.label,
                "experiment": run.info.experiment,
                "setting": run.info.setting,
                "variant": config_hash(run.variant),
                "protocol": run.info.protocol,
                "manifest": run.info.manifest_fingerprint,
                "split": run.info.split_fingerprint,
                "run": run.info.name,
                "seed": run.info.seed,
                "best_epoch": run.best_epoch,
                "num_cells": len(labels),
                "majority_f1": majority,
                "seconds": run.info.seconds,
                "checkpoint": str(run.folder.best_checkpoint),
            }
            rows += [
                {**common, "view": view, **evaluate(labels, logits[position])}
                for view, logits in views.items()
            ]
    return pd.DataFrame(rows)


def existing_runs(root: Path, experiments: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the run folders below ``root``, or those of some experiments.

    Raises:
        CnmcError: There is none.
    """
    folders = find_runs(root, experiments)
    if not folders:
        known = ", ".join(sorted({folder.path.parent.name for folder in find_runs(root)}))
        raise CnmcError(
            f"runs={root}: no run of {', '.join(experiments or ())} there; it has {known}"
            if known
            else f"runs={root}: no run folder there; python -m cnmc.train makes them below run.root"
        )
    return folders


def read_study(root: Path, experiments: Sequence[str] | None = None) -> Study:
    """Read every run folder below ``root``, or those of some experiments."""
    return load_study(find_runs(root, experiments))

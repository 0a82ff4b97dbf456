"""A study: finished runs, grouped into repetitions of each other, and what is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import FloatArray, IntArray, evaluate
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder, RunInfo, logit_column
from cnmc.runs.identity import config_hash, identity

ROTATIONS, NO_ROTATION = "rotations", "no rotation"
UPRIGHT = logit_column(0)
"""The logit of the original orientation."""
REFERENCE = "proposal"
"""The experiment that others are compared with, if it is there."""
FINGERPRINTS = ("data", "split file")
"""Names of the fingerprints among the keys of :attr:`Run.variant`."""


@dataclass(frozen=True)
class Logits:
    """The stored logits of one part of a run's cells.

    ``cells`` has cell_id, subject and label, sorted by cell_id; ``epochs`` is ascending; ``values``
    has shape (E, N, V): epoch, cell, rotation; ``columns`` are the names of the rotations, upright
    first.
    """

    cells: pd.DataFrame
    epochs: IntArray
    values: FloatArray
    columns: tuple[str, ...]

    @property
    def labels(self) -> IntArray:
        """0 (HEM) or 1 (ALL), shape (N,)."""
        return self.cells["label"].to_numpy(dtype=np.int64)

    def at(self, epoch: int) -> FloatArray:
        """Return the logits of an epoch, shape (N, V)."""
        return np.asarray(self.values[np.searchsorted(self.epochs, epoch)])

    def mean(self, epoch: int | None = None, *, rotations: bool = True) -> FloatArray:
        """Return the mean over rotations, or upright logits, of an epoch, (N,), or all, (E, N)."""
        values = self.values if epoch is None else self.at(epoch)
        chosen = values if rotations else values[..., :1]
        return np.asarray(chosen.astype(np.float64).mean(axis=-1))


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: RunFolder
    info: RunInfo
    config: Mapping[str, Any]
    metrics: pd.DataFrame
    reported: Logits
    choosing: Logits
    """Of the cells that chose the epoch; with protocol paper these are the reported ones."""

    @property
    def best_epoch(self) -> int:
        """The epoch of the best checkpoint."""
        return self.info.best_epoch or self.info.epochs_done

    @property
    def variant(self) -> dict[str, Any]:
        """Configuration and fingerprints, without the seed: equal for repetitions of a run."""
        prints = (self.info.manifest_fingerprint, self.info.split_fingerprint)
        keys = identity(self.config) | dict(zip(FINGERPRINTS, prints, strict=True))
        return {key: value for key, value in keys.items() if key != "seed"}

    def logits(self, *, rotations: bool = True) -> FloatArray:
        """Return the mean logits of the best checkpoint on the reported cells, shape (N,)."""
        return self.reported.mean(self.best_epoch, rotations=rotations)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

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
        """Names of the subjects of the reported cells, and the index of each cell's subject."""
        numbers, names = pd.factorize(self.cells["subject"], sort=True)
        return [str(name) for name in names], np.asarray(numbers, dtype=np.int64)

    @property
    def has_rotations(self) -> bool:
        """Whether rotations besides the original orientation were stored."""
        return self.runs[0].reported.columns != (UPRIGHT,)

    @cached_property
    def logits(self) -> FloatArray:
        """Mean logits of the best checkpoints on the reported cells, shape (R, N)."""
        return np.stack([run.logits() for run in self.runs])

    @cached_property
    def upright(self) -> FloatArray:
        """Logits of the best checkpoints in the original orientation, shape (R, N)."""
        return np.stack([run.logits(rotations=False) for run in self.runs])

    def by_epoch(self, *, rotations: bool = True) -> tuple[IntArray, FloatArray]:
        """Return the epochs that all runs stored, (E,), and the mean logits, (E, R, N)."""
        parts = [run.reported for run in self.runs]
        epochs = reduce(np.intersect1d, (part.epochs for part in parts))
        means = [part.mean(rotations=rotations)[np.isin(part.epochs, epochs)] for part in parts]
        return epochs, np.stack(means, axis=1)

    @property
    def cells_key(self) -> tuple[str, ...]:
        """Protocol and fingerprints, which must be equal for two groups to be compared."""
        info = self.runs[0].info
        return (
            f"protocol {info.protocol}",
            f"data {str(info.manifest_fingerprint)[:12]}",
            f"split {str(info.split_fingerprint)[:12]}",
        )


@dataclass(frozen=True)
class Study:
    """The contents of run folders."""

    groups: tuple[Group, ...]
    gaps: tuple[str, ...]
    """Runs that are not finished or left out, with the reason: one line a run."""

    @property
    def reference(self) -> Group:
        """The group that others are compared with."""
        return self.groups[0]


def with_reference(study: Study, label: str) -> Study:
    """Return the study with another group as its reference.

    Raises:
        CnmcError: No group has this label.
    """
    labels = [group.label for group in study.groups]
    if label not in labels:
        raise CnmcError(f"reference={label}: no such group of finished runs; expected {labels}")
    groups = sorted(study.groups, key=lambda group: group.label != label)
    return replace(study, groups=tuple(groups))


def missing_seeds(study: Study) -> dict[str, list[int]]:
    """Return, by group, the seeds that it lacks and another group on the same cells has."""
    wanted: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for group in study.groups:
        wanted[group.cells_key] |= set(group.seeds)
    missing = {g.label: sorted(wanted[g.cells_key] - set(g.seeds)) for g in study.groups}
    return {label: seeds for label, seeds in missing.items() if seeds}


def run_table(groups: Sequence[Group]) -> pd.DataFrame:
    """Return one row a run and view: the metrics of its best epoch, as fractions of 1.

    ``variant`` is a hash that is equal for runs that differ only in their seed, ``majority_f1`` the
    weighted F1 if every cell gets the more frequent class. A run that stored only the original
    orientation has no row for the view ``rotations``.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        labels = group.labels
        majority = evaluate(labels, np.full(len(labels), labels.mean() - 0.5))["f1"]
        views = {ROTATIONS: group.logits} if group.has_rotations else {}
        views[NO_ROTATION] = group.upright
        for position, run in enumerate(group.runs):
            info = run.info
            common = {
                "group": group.label,
                "experiment": info.experiment,
                "setting": info.setting,
                "variant": config_hash(run.variant),
                "protocol": info.protocol,
                "manifest": info.manifest_fingerprint,
                "split": info.split_fingerprint,
                "run": info.name,
                "seed": info.seed,
                "best_epoch": run.best_epoch,
                "num_cells": len(labels),
                "majority_f1": majority,
                "seconds": info.seconds,
                "checkpoint": str(run.folder.best_checkpoint),
            }
            rows += [
                {**common, "view": view, **evaluate(labels, logits[position])}
                for view, logits in views.items()
            ]
    return pd.DataFrame(rows)

"""A study: finished runs, grouped into repetitions, and their results by subject and cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.decision import sigmoid
from cnmc.analysis.metrics import FloatArray, IntArray, evaluate
from cnmc.errors import CnmcError
from cnmc.files import natural_key
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
    has shape (E, N, V): epoch, cell, rotation; ``columns`` names the rotations, the upright first.
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
    def best(self) -> int:
        """Position of the run with the highest F1 on the cells that chose its epoch.

        Reported cells that chose nothing do not choose here either. Equal runs go by their seed.
        """
        keys = [(-(run.info.best_f1 or 0.0), run.info.seed) for run in self.runs]
        return keys.index(min(keys))

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
    def subjects(self) -> IntArray:
        """The number of each cell's subject, from 0 in the order of their names, shape (N,)."""
        return pd.factorize(self.cells["subject"], sort=True)[0]

    @property
    def has_rotations(self) -> bool:
        """Whether rotations besides the original orientation were stored."""
        return self.runs[0].reported.columns != (UPRIGHT,)

    @cached_property
    def logits(self) -> FloatArray:
        """Mean logits of the best checkpoints on the reported cells, shape (R, N)."""
        return np.stack([run.reported.mean(run.best_epoch) for run in self.runs])

    @cached_property
    def upright(self) -> FloatArray:
        """Logits of the best checkpoints in the original orientation, shape (R, N)."""
        parts = [run.reported.mean(run.best_epoch, rotations=False) for run in self.runs]
        return np.stack(parts)

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


def _rows(group: Group) -> tuple[pd.DataFrame, IntArray]:
    """Return subject, label and num_cells by row, and the row of each cell."""
    cells = group.cells.groupby(["subject", "label"], sort=False)
    table = cells.size().rename("num_cells").reset_index()
    keys = list(zip(-table["label"], map(natural_key, table["subject"]), strict=True))
    order = sorted(range(len(table)), key=keys.__getitem__)
    return table.iloc[order].reset_index(drop=True), np.argsort(order)[cells.ngroup()]


def _by_row(values: FloatArray, rows: IntArray) -> FloatArray:
    """Average over the cells of each row: (..., N) to (..., S)."""
    members = np.zeros((values.shape[-1], int(rows.max()) + 1))
    members[np.arange(len(rows)), rows] = 1.0
    return np.asarray(values @ (members / members.sum(axis=0)))


def persons(group: Group) -> pd.DataFrame:
    """Return the results of each subject of the reported cells, ALL first, then by name.

    A subject with cells of both classes has two rows. Columns: subject, label, num_cells; over runs
    mean_accuracy of its cells, mean_probability and std_probability (ddof 0) of their mean
    probability of ALL, and wrong_share, the share of runs that put it on the wrong side of 0.5.
    """
    table, rows = _rows(group)
    right = (group.logits > 0.0) == (group.labels == 1)
    labels, probs = person_scores(group)
    table["mean_accuracy"] = _by_row(right.astype(float), rows).mean(axis=0)
    table["mean_probability"] = probs.mean(axis=0)
    table["std_probability"] = probs.std(axis=0)
    table["wrong_share"] = ((probs > 0.5) != (labels == 1)).mean(axis=0)
    return table


def person_scores(group: Group) -> tuple[IntArray, FloatArray]:
    """Return the label of each row of :func:`persons`, and its mean probability by run, (R, S)."""
    table, rows = _rows(group)
    return table["label"].to_numpy(dtype=np.int64), _by_row(sigmoid(group.logits), rows)


def best_and_last(group: Group, position: int) -> pd.DataFrame:
    """Return the accuracy by subject of the run at a position, as in the paper's Figure 3.

    Columns: subject, label, num_cells, best (of the best checkpoint) and last (of the last epoch;
    NaN where the reported cells were evaluated only at the best epoch).
    """
    table, rows = _rows(group)
    run = group.runs[position]
    truth = group.labels == 1
    table["best"] = _by_row(((group.logits[position] > 0.0) == truth).astype(float), rows)
    table["last"] = np.nan
    if run.info.epochs_done in run.reported.epochs:
        last = run.reported.mean(run.info.epochs_done)
        table["last"] = _by_row(((last > 0.0) == truth).astype(float), rows)
    return table


def hardest_cells(group: Group) -> pd.DataFrame:
    """Return the cells that at least one run classifies wrongly, most frequent first.

    Columns: cell_id, subject, label, wrong_share (of runs), mean_probability of ALL over runs.
    """
    wrong = (group.logits > 0.0) != (group.labels == 1)
    table = group.cells.assign(
        wrong_share=wrong.mean(axis=0), mean_probability=sigmoid(group.logits).mean(axis=0)
    )
    # Among cells that equally many runs get wrong, the most confident ones come first.
    surest = (table["mean_probability"] - table["label"]).abs()
    order = np.lexsort((table["cell_id"], -surest, -table["wrong_share"]))
    table = table.iloc[order]
    return table[table["wrong_share"] > 0].reset_index(drop=True)

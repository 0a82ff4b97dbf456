"""What a study showed, as plain text: min, mean ± std, max by metric, and the best runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import evaluate, evaluate_run, reported_role
from cnmc.analysis.statistics import compare
from cnmc.errors import CnmcError
from cnmc.runs import (
    PREDICTIONS,
    RunFolder,
    RunInfo,
    config_hash,
    differing_keys,
    identity,
    logit_columns,
)

METRICS = {
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "auroc": "AUROC",
}
ROTATIONS, NO_ROTATION = "rotations", "no rotation"
_FINGERPRINT_LENGTH = 64
_TOO_FEW = " (so few runs can show nothing)"


@dataclass(frozen=True)
class Summary:
    """What a study showed."""

    text: str
    complete: bool
    """Whether every run is finished, and what it left can be read."""
    runs: pd.DataFrame
    """The rows of :func:`evaluate_finished` behind the text."""


def evaluate_finished(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """Return one row a finished run and view: the metrics of its best epoch on reported cells.

    Columns: experiment, setting (what was swept besides the seed), variant (equal for runs that
    differ in nothing but their seed, also in what was not swept), protocol, manifest and split
    (fingerprints), run, seed, best_epoch, num_cells, majority_f1 (weighted F1 of calling every cell
    by the more frequent class), seconds, checkpoint, view, and the keys of :data:`METRICS`. A run
    that stored the original orientation alone has no row for the view ``rotations``.

    Raises:
        CnmcError: What a finished run left cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders:
        info = folder.read_info()
        if info is not None and info.status == "finished":
            rows += _evaluate(folder, info)
    return pd.DataFrame(rows)


def _evaluate(folder: RunFolder, info: RunInfo) -> list[dict[str, Any]]:
    predictions = folder.read_predictions()
    if predictions is None:
        raise CnmcError(
            f"{folder.path}: {PREDICTIONS} of a finished run is lost; run.overwrite=true trains it "
            "again"
        )
    epoch = info.best_epoch or info.epochs_done
    role = reported_role(predictions)
    chosen = predictions[(predictions["epoch"] == epoch) & (predictions["role"] == role)]
    labels = chosen["label"].to_numpy(dtype=np.int64)
    common = {
        "experiment": info.experiment,
        "setting": info.setting,
        "variant": config_hash(_variant(folder, info)),
        "protocol": info.protocol,
        "manifest": info.manifest_fingerprint,
        "split": info.split_fingerprint,
        "run": info.name,
        "seed": info.seed,
        "best_epoch": epoch,
        "num_cells": len(labels),
        "majority_f1": evaluate(labels, np.full(len(labels), labels.mean() - 0.5))["f1"],
        "seconds": info.seconds,
        "checkpoint": str(folder.best_checkpoint),
    }
    views = [NO_ROTATION] if len(logit_columns(chosen)) == 1 else [ROTATIONS, NO_ROTATION]
    rows = []
    for view in views:
        metrics = evaluate_run(chosen, epoch, role=role, rotations=view == ROTATIONS)
        rows += [{**common, "view": view, **{name: metrics[name] for name in METRICS}}]
    return rows


def _variant(folder: RunFolder, info: RunInfo) -> dict[str, Any]:
    """Return what a run computes, but for its seed, and on which cells."""
    config = {key: value for key, value in identity(folder.read_config()).items() if key != "seed"}
    return {**config, "manifest": info.manifest_fingerprint, "split file": info.split_fingerprint}


def summarise(folders: Sequence[RunFolder], reasons: Mapping[str, str] | None = None) -> Summary:
    """Sum up what runs showed, by experiment and setting, and which of them are not finished.

    The standard deviation is the population's (ddof 0), as in the paper.

    Args:
        folders: The runs, finished or not.
        reasons: By path, why a run is not finished, where its folder does not say so, or is not
            this run's at all; they are not in the table.
    """
    reasons = dict(reasons or {})
    tables: list[pd.DataFrame] = []
    for folder in folders:
        if str(folder.path) not in reasons:
            try:
                tables += [evaluate_finished([folder])]
            except CnmcError as error:
                reasons[str(folder.path)] = str(error)
    lines: list[str] = []
    table = pd.concat(tables) if tables else pd.DataFrame()
    if len(table):
        groups = _groups(table)
        lines += ["", *_table(groups), "", *_notes(table), *_comparisons(groups)]
        for label, part in groups.items():
            rows = _headline(part)
            best = rows.iloc[int(rows["f1"].argmax())]
            epoch = f"F1 {_percent(best['f1'])} at epoch {best['best_epoch']}"
            lines += [f"best run of {label}: {best['run']}, {epoch}", f"  {best['checkpoint']}"]
    unfinished = _unfinished(folders, reasons)
    return Summary("\n".join([*lines, *unfinished]), not unfinished, table)


def _groups(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of runs that are repetitions of each other, by what they are called.

    Runs of one name that differ in what was not swept are told apart by the keys that differ.
    """
    groups: dict[str, pd.DataFrame] = {}
    for names, named in table.groupby(["experiment", "setting"], sort=False):
        label = " ".join(str(name) for name in names if name)
        variants = [part for _, part in named.groupby("variant", sort=False)]
        described = [_stored_variant(part) for part in variants]
        for part, variant in zip(variants, described, strict=True):
            keys = {key for other in described for key in differing_keys(variant, other)}
            differing = [f"{key}={_short(variant.get(key, 'absent'))}" for key in sorted(keys)]
            groups[" ".join([label, *differing])] = part
    return groups


def _stored_variant(part: pd.DataFrame) -> dict[str, Any]:
    folder = RunFolder(Path(part["checkpoint"].iloc[0]).parents[1])
    info = folder.read_info()
    return _variant(folder, info) if info is not None else {}


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == _FINGERPRINT_LENGTH else text


def _headline(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the view that chose the epochs: all rotations that the runs stored."""
    rows: pd.DataFrame = part[part["view"] == part["view"].iloc[0]]
    return rows


def _table(groups: Mapping[str, pd.DataFrame]) -> list[str]:
    width = max(len("experiment"), *map(len, groups))
    line = f"{{:<{width}}}  {{:<11}}  {{:>3}}  {{:<11}}  {{:>6}}  {{:>14}}  {{:>6}}"
    lines = [line.format("experiment", "view", "n", "metric", "min", "mean ± std", "max")]
    for label, part in groups.items():
        first: str = label
        for name_of_view, rows in part.groupby("view", sort=False):
            view, count = str(name_of_view), str(len(rows))
            for name, title in METRICS.items():
                values = rows[name].to_numpy(dtype=float)
                spread = f"{_percent(np.mean(values))} ± {_percent(np.std(values)):>5}"
                low, high = _percent(np.min(values)), _percent(np.max(values))
                lines += [line.format(first, view, count, title, low, spread, high)]
                # Said once, in the first line of theirs.
                first, view, count = "", "", ""
    return lines


def _notes(table: pd.DataFrame) -> list[str]:
    lines = ["in %, over the best epoch of each run; std with ddof 0"]
    for (protocol, num_cells), part in table.groupby(["protocol", "num_cells"], sort=False):
        majority = " or ".join(dict.fromkeys(map(_percent, part["majority_f1"])))
        chosen = "which also chose the epoch" if protocol == "paper" else "which chose nothing"
        lines.append(
            f"protocol {protocol}: reported on {num_cells} cells, {chosen}; F1 of calling every "
            f"cell by the majority class: {majority}"
        )
    if {"proposal", "norot"} <= set(table["experiment"]):
        lines.append(
            "proposal with no rotation is NOROT from the same checkpoints; norot was trained by "
            "itself and chose its own epochs"
        )
    return lines


def _comparisons(groups: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return what rotations add, and how every group stands to the first one on the same cells."""
    lines = []
    for label, part in groups.items():
        if set(part["view"]) == {ROTATIONS, NO_ROTATION}:
            views = {view: rows.set_index("run")["f1"] for view, rows in part.groupby("view")}
            gain = views[ROTATIONS] - views[NO_ROTATION]
            lines.append(
                f"F1 of {label} with rotations less that without, from the same checkpoints: "
                f"{100 * gain.mean():+.2f}; higher in {int((gain > 0).sum())} of {len(gain)} runs"
            )
    first: dict[tuple[Any, ...], str] = {}
    for label, part in groups.items():
        cells = tuple(part[["protocol", "manifest", "split"]].iloc[0])
        against = first.setdefault(cells, label)
        if against == label:
            if len(first) > 1:
                lines.append(f"{label}: other data, split or protocol, so not compared with those")
            continue
        f1 = [_headline(groups[name])["f1"].to_numpy(dtype=float) for name in (label, against)]
        found = compare(*f1)
        lines.append(
            f"F1 of {label} less that of {against}: {100 * found.difference:+.2f}; a run of it "
            f"is the better one with probability {found.superiority:.2f}; "
            f"Mann-Whitney p = {found.p_value:.2g}" + ("" if found.can_tell else _TOO_FEW)
        )
    return lines


def _unfinished(folders: Sequence[RunFolder], reasons: Mapping[str, str]) -> list[str]:
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
    return words if info.best_f1 is None else f"{words}, F1 so far {_percent(info.best_f1)}"


def _percent(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{100 * value:.2f}"

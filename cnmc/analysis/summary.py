"""What a study showed, as plain text: min, mean ± std, max by metric, and the best runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import evaluate, evaluate_run, reported_role
from cnmc.analysis.statistics import FEW_RUNS, compare
from cnmc.runs import RunFolder, RunInfo, logit_columns

METRICS = {
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "auroc": "AUROC",
}
ROTATIONS, NO_ROTATION = "rotations", "no rotation"


def evaluate_finished(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """Return one row a finished run and view: the metrics of its best epoch on reported cells.

    Columns: experiment, setting (what was swept besides the seed), protocol, run, seed,
    best_epoch, num_cells, majority_f1 (weighted F1 of calling every cell by the more frequent
    class), seconds, checkpoint, view, and the keys of :data:`METRICS`. A run that stored the
    original orientation alone has no row for the view ``rotations``.
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
        return []
    epoch = info.best_epoch or info.epochs_done
    role = reported_role(predictions)
    chosen = predictions[(predictions["epoch"] == epoch) & (predictions["role"] == role)]
    labels = chosen["label"].to_numpy(dtype=np.int64)
    common = {
        "experiment": info.experiment,
        "setting": info.setting,
        "protocol": info.protocol,
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


def summary(folders: Sequence[RunFolder], reasons: Mapping[str, str] | None = None) -> str:
    """Return what the runs showed, by experiment and setting, and which of them are not finished.

    The standard deviation is the population's (ddof 0), as in the paper.

    Args:
        folders: The runs, finished or not.
        reasons: By path, why a run is not finished, where its folder does not say so, or is not
            this run's at all; they are not in the table.
    """
    reasons = reasons or {}
    table = evaluate_finished([folder for folder in folders if str(folder.path) not in reasons])
    lines: list[str] = []
    if len(table):
        groups = {
            " ".join(str(name) for name in key if name): part
            for key, part in table.groupby(["experiment", "setting"], sort=False)
        }
        lines += ["", *_table(groups), "", *_notes(table), *_comparisons(groups)]
        for label, part in groups.items():
            rows = _headline(part)
            best = rows.iloc[int(rows["f1"].argmax())]
            epoch = f"F1 {_percent(best['f1'])} at epoch {best['best_epoch']}"
            lines += [f"best run of {label}: {best['run']}, {epoch}", f"  {best['checkpoint']}"]
    return "\n".join([*lines, *_unfinished(folders, reasons)])


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
    """Return how every group stands to the first one."""
    labels = list(groups)
    lines = []
    for label in labels[1:]:
        f1 = [_headline(groups[name])["f1"].to_numpy(dtype=float) for name in (label, labels[0])]
        found = compare(*f1)
        lines += [
            f"F1 of {label} less that of {labels[0]}: {100 * found.difference:+.2f}; a run of it "
            f"is the better one with probability {found.superiority:.2f}; "
            f"Mann-Whitney p = {found.p_value:.2g}"
            + (" (few runs: p means little)" if min(map(len, f1)) < FEW_RUNS else "")
        ]
    return lines


def _unfinished(folders: Sequence[RunFolder], reasons: Mapping[str, str]) -> list[str]:
    lines = []
    for folder in folders:
        info = folder.read_info()
        told = reasons.get(str(folder.path))
        if told is not None and info is not None and info.status == "finished":
            lines += [f"not this run: {told}"]
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

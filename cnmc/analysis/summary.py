"""What a study showed, as plain text: its runs, and mean ± std, min, max by metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import evaluate, evaluate_run, reported_role
from cnmc.runs import RunFolder, logit_columns

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

    Columns: experiment, protocol, run, best_epoch, num_cells, majority_f1 (weighted F1 of calling
    every cell by the more frequent class), view, and the keys of :data:`METRICS`. A run that
    stored the original orientation alone has no row for the view ``rotations``.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders:
        info = folder.read_info()
        predictions = folder.read_predictions()
        if info is None or info.status != "finished" or predictions is None:
            continue
        epoch = info.best_epoch or info.epochs_done
        reported = predictions[
            (predictions["epoch"] == epoch) & (predictions["role"] == reported_role(predictions))
        ]
        labels = reported["label"].to_numpy(dtype=np.int64)
        common = {
            "experiment": info.experiment,
            "protocol": info.protocol,
            "run": info.name,
            "best_epoch": epoch,
            "num_cells": len(labels),
            "majority_f1": evaluate(labels, np.full(len(labels), labels.mean() - 0.5))["f1"],
        }
        views = [NO_ROTATION] if len(logit_columns(predictions)) == 1 else [ROTATIONS, NO_ROTATION]
        for view in views:
            metrics = evaluate_run(predictions, epoch, rotations=view == ROTATIONS)
            rows.append({**common, "view": view, **{name: metrics[name] for name in METRICS}})
    return pd.DataFrame(rows)


def summary(folders: Sequence[RunFolder]) -> str:
    """Return what the runs showed, by experiment, and which of them are not finished.

    The standard deviation is the population's (ddof 0), as in the paper.
    """
    lines: list[str] = []
    table = evaluate_finished(folders)
    if len(table):
        for (experiment, protocol), part in table.groupby(["experiment", "protocol"], sort=False):
            lines += _experiment(str(experiment), str(protocol), part, folders)
    for folder in folders:
        info = folder.read_info()
        if info is None or info.status != "finished":
            reason = (info.error or "").strip().splitlines()[-1:] if info else []
            status = info.status if info else "not started"
            lines += [f"not finished: {folder.path} ({': '.join([status, *reason])})"]
    return "\n".join(lines)


def _experiment(
    experiment: str, protocol: str, part: pd.DataFrame, folders: Sequence[RunFolder]
) -> list[str]:
    views = list(dict.fromkeys(part["view"]))
    num_runs = part["run"].nunique()
    chooser = part[part["view"] == views[0]]
    best = chooser.loc[chooser["f1"].idxmax()]
    folder = next(f for f in folders if f.path.parts[-2:] == (experiment, best["run"]))
    runs = f"{num_runs} {'run' if num_runs == 1 else 'runs'}"
    majority = _percent(best["majority_f1"])
    return [
        "",
        f"{experiment}: {runs}, protocol {protocol}, {best['num_cells']} cells, numbers in %",
        *_runs_table(part, views),
        *_spread_table(part, views),
        f"  for comparison, F1 of calling every cell by the majority class: {majority}",
        f"  best run {best['run']}, F1 {_percent(best['f1'])}: {folder.best_checkpoint}",
        f"  run folders below {folder.path.parent}",
    ]


def _runs_table(part: pd.DataFrame, views: Sequence[str]) -> list[str]:
    epochs = {str(row.run): int(str(row.best_epoch)) for row in part.itertuples()}
    f1 = {view: part[part["view"] == view].set_index("run")["f1"] for view in views}
    width = max(3, *(len(run) for run in epochs))
    lines = [f"  {'run':<{width}}  best epoch" + "".join(f"  {'F1 ' + v:>14}" for v in views)]
    for run, epoch in epochs.items():
        values = "".join(f"  {_percent(f1[view][run]):>14}" for view in views)
        lines += [f"  {run:<{width}}  {epoch:>10}{values}"]
    return lines


def _spread_table(part: pd.DataFrame, views: Sequence[str]) -> list[str]:
    heads = "".join(f"   {view:>14}{'min':>7}{'max':>7}" for view in views)
    lines = [f"  {'mean ± std':<11}{heads}"]
    for name, title in METRICS.items():
        line = f"  {title:<11}"
        for view in views:
            values = part[part["view"] == view][name].to_numpy(dtype=float)
            spread = f"{_percent(np.mean(values))} ± {_percent(np.std(values)):>5}"
            line += f"   {spread:>14}{_percent(values.min()):>7}{_percent(values.max()):>7}"
        lines += [line]
    return lines


def _percent(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{100 * value:.2f}"

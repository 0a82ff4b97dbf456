"""Reading a finished run folder, with the one check of what its files hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_float_dtype, is_integer_dtype, is_numeric_dtype

from cnmc.analysis.metrics import reported_role
from cnmc.analysis.results import UPRIGHT, Logits, Run
from cnmc.errors import CnmcError
from cnmc.runs.folder import (
    CONFIG,
    INFO,
    METRICS,
    PREDICTION_KEYS,
    PREDICTIONS,
    RunFolder,
    RunInfo,
    logit_columns,
)
from cnmc.runs.identity import config_hash


def load_run(folder: RunFolder) -> Run:
    """Read the folder of a finished run.

    Raises:
        CnmcError: The run is not finished, or a file is missing, cannot be read, or
            holds values that do not fit the others. The message names the folder and the file.
    """
    info = folder.read_info()
    if info is None or info.status != "finished":
        raise CnmcError(f"{folder.path}: the run is not finished")
    try:
        return _read(folder, info)
    except _DamageError as damage:
        raise CnmcError(f"{folder.path}: {damage}; run.overwrite=true trains it again") from None


class _DamageError(Exception):
    """A file that is not what a finished run writes."""


def _read(folder: RunFolder, info: RunInfo) -> Run:
    fingerprints = (info.manifest_fingerprint, info.split_fingerprint)
    if info.protocol not in ("paper", "honest") or None in fingerprints:
        raise _DamageError(f"{INFO} has no protocol or no fingerprints")
    config = folder.read_config()
    if config_hash(config) != info.config_hash:
        raise _DamageError(f"{CONFIG} is not the one of {INFO} (config_hash)")
    best_epoch = info.best_epoch or info.epochs_done
    metrics = folder.read_metrics()
    if not is_integer_dtype(metrics["epoch"]) or best_epoch not in set(metrics["epoch"]):
        raise _DamageError(f"{METRICS} has no row of the best epoch, {best_epoch}")
    if not all(map(is_numeric_dtype, metrics.dtypes)) or not metrics["epoch"].is_unique:
        raise _DamageError(f"{METRICS} has a value that is no number, or an epoch twice")
    predictions = folder.read_predictions()
    if predictions is None or predictions.empty:
        raise _DamageError(f"{PREDICTIONS} is missing or empty")
    _check_columns(predictions)
    role = reported_role(predictions)
    if info.protocol == "honest" and role != "test":
        raise _DamageError(f"{PREDICTIONS} has no test cells, but the protocol is honest")
    reported = _logits(predictions, role, best_epoch)
    choosing = reported if role == "val" else _logits(predictions, "val", best_epoch)
    return Run(folder, info, config, metrics, reported, choosing)


def _check_columns(predictions: pd.DataFrame) -> None:
    for name in (*PREDICTION_KEYS, UPRIGHT):
        if name not in predictions:
            raise _DamageError(f"{PREDICTIONS} has no column {name}")
    fits = {
        "epoch": is_integer_dtype(predictions["epoch"]),
        "label": is_integer_dtype(predictions["label"]) and predictions["label"].isin([0, 1]).all(),
    }
    for name in ("role", "cell_id", "subject"):
        fits[name] = infer_dtype(predictions[name], skipna=False) == "string"
    for name in logit_columns(predictions):
        fits[name] = is_float_dtype(predictions[name])
    for name, fit in fits.items():
        if not fit:
            raise _DamageError(f"{PREDICTIONS} has values of another type or range in {name}")


def _logits(predictions: pd.DataFrame, role: str, best_epoch: int) -> Logits:
    """Return the logits of the cells of a role, after checking that each epoch has all cells."""
    rows = predictions[predictions["role"] == role]
    columns = logit_columns(rows)
    epochs, epoch = np.unique(rows["epoch"].to_numpy(dtype=np.int64), return_inverse=True)
    if best_epoch not in epochs:
        raise _DamageError(f"{PREDICTIONS} has no {role} cells of the best epoch, {best_epoch}")
    last = rows[epoch == len(epochs) - 1]
    cells = last[["cell_id", "subject", "label"]].sort_values("cell_id", ignore_index=True)
    index = pd.Index(cells["cell_id"])
    if not index.is_unique or len(rows) != len(epochs) * len(cells):
        raise _DamageError(f"{PREDICTIONS} has a {role} cell twice, or not in every epoch")
    cell = index.get_indexer(pd.Index(rows["cell_id"]))
    filled = np.zeros((len(epochs), len(cells)), dtype=bool)
    filled[epoch, cell] = cell >= 0
    if not filled.all():
        raise _DamageError(f"{PREDICTIONS} has not the same {role} cells in every epoch")
    for name in ("subject", "label"):
        if (cells[name].to_numpy()[cell] != rows[name].to_numpy()).any():
            raise _DamageError(f"{PREDICTIONS} has cells whose {name} differs between epochs")
    values = np.empty((*filled.shape, len(columns)), dtype=np.float32)
    values[epoch, cell] = rows[columns].to_numpy(dtype=np.float32)
    return Logits(cells, epochs, values, tuple(columns))

"""Reading run folders, with the one check of what their files hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_float_dtype, is_integer_dtype, is_numeric_dtype

from cnmc.analysis.results import FINGERPRINTS, REFERENCE, UPRIGHT, Group, Logits, Run, Study
from cnmc.errors import CnmcError
from cnmc.files import printable
from cnmc.runs.folder import (
    CONFIG,
    INFO,
    METRICS_CSV,
    PREDICTIONS,
    RunFolder,
    RunInfo,
    find_runs,
    logit_columns,
)
from cnmc.runs.identity import config_hash, differing_keys

_COLUMNS: dict[str, Callable[[Any], Any]] = {
    "epoch": is_integer_dtype,
    "label": lambda values: is_integer_dtype(values) and values.isin([0, 1]).all(),
    **dict.fromkeys(
        ("role", "cell_id", "subject"), lambda v: infer_dtype(v, skipna=False) == "string"
    ),
}
"""Checks of the columns of the predictions."""


def _expect(good: object, path: Path, problem: str) -> None:
    if not good:
        raise CnmcError(f"{path} {problem}; run.overwrite=true trains this run again")


def load_run(folder: RunFolder, info: RunInfo) -> Run:
    """Read the folder of a finished run.

    Raises:
        CnmcError: A file is missing or damaged, or does not fit the others.
    """
    path = folder.path
    known = info.manifest_fingerprint and info.split_fingerprint
    _expect(known and info.protocol in ("paper", "honest"), path / INFO, "names no cells")
    config = folder.read_config()
    same = config_hash(config) == info.config_hash
    _expect(same, path / CONFIG, f"does not have the config_hash of {INFO}")
    best = info.best_epoch or info.epochs_done
    metrics = folder.read_metrics()
    good = all(map(is_numeric_dtype, metrics.dtypes)) and is_integer_dtype(metrics["epoch"])
    good = good and metrics["epoch"].is_unique and best in set(metrics["epoch"])
    _expect(good, path / METRICS_CSV, f"has text, an epoch twice, or not the best epoch, {best}")
    predictions = folder.read_predictions()
    file = path / PREDICTIONS
    if predictions is None:
        raise CnmcError(f"{file} is missing; run.overwrite=true trains this run again")
    logits = dict.fromkeys([UPRIGHT, *logit_columns(predictions)], is_float_dtype)
    for name, fits in (_COLUMNS | logits).items():
        good = name in predictions and fits(predictions[name])
        _expect(good, file, f"has no column {name}, or values of another type or range in it")
    role = "test" if (predictions["role"] == "test").any() else "val"
    _expect(info.protocol == "paper" or role == "test", file, "has no test cells (protocol honest)")
    reported = _logits(predictions, role, best, file)
    choosing = reported if role == "val" else _logits(predictions, "val", best, file)
    return Run(folder, info, config, metrics, reported, choosing)


def _logits(predictions: pd.DataFrame, role: str, best: int, path: Path) -> Logits:
    """Return the logits of the cells of a role, after checking that each epoch has all cells."""
    rows = predictions[predictions["role"] == role].sort_values(["epoch", "cell_id"])
    epochs = rows["epoch"].unique().astype(np.int64)
    _expect(best in epochs, path, f"has no {role} cells of the best epoch, {best}")
    cells = rows.loc[rows["epoch"] == best, ["cell_id", "subject", "label"]]
    same = cells["cell_id"].is_unique and len(rows) == len(epochs) * len(cells)
    for name in cells if same else ():
        by_epoch = rows[name].to_numpy().reshape(len(epochs), -1)
        same = same and bool((by_epoch == cells[name].to_numpy()).all())
    _expect(same, path, f"does not have the same {role} cells, subjects and labels in every epoch")
    columns = logit_columns(rows)
    values = rows[columns].to_numpy(dtype=np.float32).reshape(len(epochs), len(cells), -1)
    # Not a number poisons every mean, so a run that diverged is left out as a whole.
    _expect(np.isfinite(values).all(), path, "has logits that are not finite: the run diverged")
    return Logits(cells.reset_index(drop=True), epochs, values, tuple(columns))


def load_study(folders: Sequence[RunFolder], reasons: Mapping[str, str] | None = None) -> Study:
    """Read run folders, finished or not.

    A folder that is damaged, whose cells are not those of its group, or that has an entry in
    ``reasons`` (by its path) becomes a gap.
    """
    runs: list[Run] = []
    gaps: dict[Path, str] = {}
    for folder in folders:
        path, reason = folder.path, (reasons or {}).get(str(folder.path))
        try:
            if (name := printable(path)) != str(path):
                raise CnmcError(f"{name}: the name is not UTF-8; rename the folder")
            info = folder.read_info()
            if info is None or info.status != "finished":
                gaps[path] = _unfinished(folder, info, reason)
            elif reason is not None:
                raise CnmcError(f"{path}: {reason}")
            else:
                runs.append(load_run(folder, info))
        except CnmcError as error:
            gaps[path] = f"left out: {error}"
    groups = []
    for label, members in _by_variant(runs).items():
        first = members[0]
        for run in members:
            one, other = run.reported, first.reported
            if one.columns != other.columns or not one.cells.equals(other.cells):
                path = run.folder.path
                gaps[path] = f"left out: {path}: other cells than {first.folder.path}"
        groups.append(Group(label, tuple(run for run in members if run.folder.path not in gaps)))
    groups.sort(key=lambda group: group.experiment != REFERENCE)
    ordered = (gaps[folder.path] for folder in folders if folder.path in gaps)
    return Study(tuple(groups), tuple(ordered))


def _by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the repetitions of each run by their label, which names the keys that differ."""
    named: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        name = f"{run.info.experiment} {run.info.setting}".strip()
        named[name][config_hash(run.variant)].append(run)
    groups: dict[str, list[Run]] = {}
    for name, variants in named.items():
        described = [members[0].variant for members in variants.values()]
        keys = sorted({key for one in described for key in differing_keys(described[0], one)})
        texts = [{key: str(one.get(key, "absent")) for key in keys} for one in described]
        # Fingerprints are shown only where nothing else differs.
        shown = [key for key in keys if key not in FINGERPRINTS]
        if len({tuple(text[key] for key in shown) for text in texts}) < len(texts):
            shown = keys
        for members, text in zip(variants.values(), texts, strict=True):
            pairs = (f"{k}={text[k][:12] if len(text[k]) == 64 else text[k]}" for k in shown)
            groups[" ".join([name, *pairs])] = members
    return groups


def _unfinished(folder: RunFolder, info: RunInfo | None, reason: str | None) -> str:
    """Return the line of a run that is not finished: how far it is, and why."""
    state = "not started" if info is None else "failed"
    if info is not None and info.status == "running":
        state = "running" if folder.is_locked() else "interrupted"
        state += f", epoch {info.epochs_done}/{info.max_epochs}"
        if info.best_f1 is not None:
            state += f", F1 so far {100 * info.best_f1:.2f}"
    reason = reason or (info.reason if info else None)
    return f"not finished: {folder.path} ({state}{f': {reason}' if reason else ''})"


def existing_runs(root: Path, experiments: Sequence[str] | None = None) -> list[RunFolder]:
    """Return the run folders below ``root``, or those of some experiments.

    Raises:
        CnmcError: No run folder was found.
    """
    folders = find_runs(root, experiments)
    if not folders:
        known = ", ".join(sorted({folder.path.parent.name for folder in find_runs(root)}))
        wanted = " or ".join(experiments or ["any experiment"])
        raise CnmcError(f"runs={root}: expected runs of {wanted}, found {known or 'no run folder'}")
    return folders


def read_study(root: Path) -> Study:
    """Read every run folder below ``root``."""
    return load_study(find_runs(root))

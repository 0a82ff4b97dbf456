"""A study: the runs that one command asks for, and what they show together."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cnmc.analysis.metrics import evaluate_run
from cnmc.callbacks.checkpoints import load_checkpoint
from cnmc.config import Config
from cnmc.data.splits import Split
from cnmc.errors import CnmcError
from cnmc.provenance import git_commit, hardware, versions
from cnmc.runs import RunFolder, RunInfo, config_hash, differing_keys, identity, run_name

Action = Literal["train", "resume", "skip"]

SUMMARY_METRICS = ("f1", "sensitivity", "specificity", "accuracy", "auroc")
VIEWS = {"rotations": True, "no rotation": False}


def swept_overrides(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values that a job's overrides give to the swept keys."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = {
        item.get_key_element().lstrip("+~"): item.get_value_element_as_str() for item in parsed
    }
    return {key: values[key] for key in keys if key in values}


def open_run(folder: RunFolder, config: Mapping[str, Any], *, overwrite: bool) -> Action:
    """Decide what to do with a run folder, and store the configuration in a new one.

    Args:
        folder: Where the run belongs.
        config: The resolved configuration.
        overwrite: Remove what is there and start over.

    Returns:
        ``train`` for a new run, ``resume`` for one to go on with, ``skip`` for a finished one.

    Raises:
        CnmcError: The folder holds a run of another configuration; the differing keys are named.
    """
    if overwrite and folder.path.exists():
        shutil.rmtree(folder.path)
    info = folder.read_info()
    if info is None:
        folder.write_config(config)
        return "train"
    check_same_config(folder, config)
    if info.status == "finished":
        return "skip"
    return "resume" if folder.last_checkpoint.is_file() else "train"


def begin_run(
    folder: RunFolder,
    config: Config,
    resolved: Mapping[str, Any],
    manifest_fingerprint: str,
    split: Split,
) -> RunInfo:
    """Write down that a run is being worked on, and return what ``run.json`` then holds.

    What was stored of epochs after the last checkpoint is dropped, since they are repeated.

    Raises:
        CnmcError: The run was begun on other data or another split.
    """
    before = folder.read_info()
    epoch = 0
    if before is not None:
        for what, old, new in (
            ("data set", before.manifest_fingerprint, manifest_fingerprint),
            ("split", before.split_fingerprint, split.fingerprint),
        ):
            if old != new:
                raise CnmcError(
                    f"{folder.path} was begun on another {what} (fingerprint {old[:12]}, now "
                    f"{new[:12]}); give it the old one, or start over with run.overwrite=true"
                )
        if folder.last_checkpoint.is_file():
            epoch = int(load_checkpoint(folder.last_checkpoint)["cnmc"]["epoch"])
        folder.forget_after(epoch if epoch else -1)
    best = folder.best_epoch()
    metrics = folder.read_metrics()
    info = RunInfo(
        status="running",
        experiment=config.experiment,
        name=folder.path.name,
        seed=config.seed,
        protocol=split.protocol,
        config_hash=config_hash(resolved),
        manifest_fingerprint=manifest_fingerprint,
        split_fingerprint=split.fingerprint,
        started=before.started if before else now(),
        seconds=float(metrics["seconds"].sum()) if len(metrics) else 0.0,
        max_epochs=config.trainer.max_epochs,
        epochs_done=epoch,
        best_epoch=best[0] if best else None,
        best_f1=best[1] if best else None,
        git_commit=git_commit(),
        versions=versions(),
        hardware=hardware(),
    )
    folder.write_info(info)
    return info


def job_folder(config: Config, overrides: Sequence[str], params: Mapping[str, Any]) -> RunFolder:
    """Return the run folder of a job.

    Args:
        config: The job's configuration.
        overrides: The job's own overrides, a single value for each key.
        params: ``hydra.sweeper.params``: what a study file sweeps.
    """
    swept = swept_overrides(overrides, [*config.run.swept, *params])
    name = config.run.name or run_name(config.seed, swept)
    return RunFolder(Path(config.run.root) / config.experiment / name)


def check_same_config(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """Refuse a run folder that holds a run of another configuration.

    Raises:
        CnmcError: Names the folder, the differing keys with both values, and the ways out.
    """
    stored = folder.read_config()
    if config_hash(stored) == config_hash(config):
        return
    old, new = identity(stored), identity(config)
    differences = ", ".join(
        f"{key} (there {old.get(key, 'absent')}, now {new.get(key, 'absent')})"
        for key in differing_keys(stored, config)
    )
    raise CnmcError(
        f"{folder.path} holds a run of another configuration: {differences}; choose another "
        "run.name or run.root, sweep the key so that it names the folder, or start over with "
        "run.overwrite=true"
    )


def now() -> str:
    """Return the time as ISO 8601 with its zone."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class StudyPlan(Callback):
    """Knows, in the process that launches a multirun, which run folders it will fill."""

    current: ClassVar[list[RunFolder] | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Work out the run folders from the overrides that are swept."""
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        overrides = [*params, *config.hydra.overrides.task]
        StudyPlan.current = planned_runs(overrides, Path(config.run.root))


def planned_runs(overrides: Sequence[str], root: Path) -> list[RunFolder]:
    """Return the run folders of every combination of swept overrides, in the order of the jobs."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = [item.get_key_element() for item in parsed if item.is_sweep_override()]
    planned: list[RunFolder] = []
    for job in BasicSweeper.split_arguments(parsed, None)[0]:
        values = swept_overrides(job, [item.get_key_element() for item in parsed])
        name = run_name(values.get("seed", "0"), {key: values[key] for key in swept})
        planned.append(RunFolder(root / values.get("experiment", "proposal") / name))
    return planned


def evaluate_finished(folders: Sequence[RunFolder]) -> pd.DataFrame:
    """Return one row a finished run and view: the metrics of its best epoch.

    Columns: experiment, protocol, run, best_epoch, view, and :data:`SUMMARY_METRICS`.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders:
        info = folder.read_info()
        predictions = folder.read_predictions()
        if info is None or info.status != "finished" or predictions is None:
            continue
        epoch = info.best_epoch or info.epochs_done
        for view, rotations in VIEWS.items():
            metrics = evaluate_run(predictions, epoch, rotations=rotations)
            rows.append(
                {
                    "experiment": info.experiment,
                    "protocol": info.protocol,
                    "run": info.name,
                    "best_epoch": epoch,
                    "view": view,
                    **{name: metrics[name] for name in SUMMARY_METRICS},
                }
            )
    return pd.DataFrame(rows)


def summary(folders: Sequence[RunFolder]) -> str:
    """Return, as plain text, what a study showed: its runs, and mean ± std, min, max by metric.

    The standard deviation is the population's (ddof 0), as in the paper.
    """
    table = evaluate_finished(folders)
    lines: list[str] = []
    for (experiment, protocol), part in (
        table.groupby(["experiment", "protocol"], sort=False) if len(table) else ()
    ):
        num_runs = part["run"].nunique()
        lines += [
            "",
            f"{experiment}: {num_runs} runs, protocol {protocol}, best epoch of each, in %",
        ]
        lines += _runs_table(part)
        lines += _spread_table(part)
        best = part[part["view"] == "rotations"].sort_values("f1", ascending=False).iloc[0]
        path = next(
            f for f in folders if (f.path.parent.name, f.path.name) == (experiment, best["run"])
        )
        lines += [f"best run   {best['run']}, F1 {100 * best['f1']:.2f}: {path.best_checkpoint}"]
        lines += [f"run folders below {path.path.parent}"]
    missing = [(f, f.read_info()) for f in folders]
    for folder, info in missing:
        if info is None or info.status != "finished":
            reason = (info.error or "").strip().splitlines()[-1:] if info else []
            status = info.status if info else "not started"
            lines += [f"not finished: {folder.path} ({': '.join([status, *reason])})"]
    return "\n".join(lines)


def _runs_table(part: pd.DataFrame) -> list[str]:
    f1 = part.pivot_table(index="run", columns="view", values="f1", sort=False)
    epochs = part.drop_duplicates("run").set_index("run")["best_epoch"]
    width = max(len("run"), *(len(str(run)) for run in f1.index))
    lines = [f"  {'run':<{width}}  epoch  F1 rotations  F1 no rotation"]
    for run, rotations, none in f1[list(VIEWS)].itertuples():
        lines += [
            f"  {run:<{width}}  {epochs[run]:>5}  {100 * rotations:>12.2f}  {100 * none:>14.2f}"
        ]
    return lines


def _spread_table(part: pd.DataFrame) -> list[str]:
    columns = "  ".join(f"{view:^29}" for view in VIEWS)
    lines = [f"  {'':<11}  {columns}".rstrip()]
    head = f"{'mean ± std':>14}{'min':>7}{'max':>8}"
    lines += [f"  {'':<11}  {head}  {head}"]
    for name in SUMMARY_METRICS:
        cells = []
        for view in VIEWS:
            values = 100 * part[part["view"] == view][name].to_numpy(dtype=float)
            mean, std = np.mean(values), np.std(values)
            cells += [f"{mean:>7.2f} ± {std:>4.2f}{values.min():>8.2f}{values.max():>7.2f}"]
        title = {"f1": "F1", "auroc": "AUROC"}.get(name, name)
        lines += [f"  {title:<11}  " + "  ".join(f"{cell:<29}" for cell in cells).rstrip()]
    return lines


def close_study() -> bool:
    """Print the summary of the multirun that this process launched.

    Returns:
        Whether every planned run is finished; True where there was no multirun.
    """
    folders = StudyPlan.current
    if folders is None:
        return True
    print(summary(folders))
    infos = [folder.read_info() for folder in folders]
    return all(info is not None and info.status == "finished" for info in infos)

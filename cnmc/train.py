"""``python -m cnmc.train``: trains one run, or every run of a study that the overrides sweep."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

import gc
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cnmc.analysis.loading import load_study
from cnmc.analysis.results import Group, Study
from cnmc.analysis.summary import summarise
from cnmc.cli.app import run_app, user_errors
from cnmc.config import CONFIG_DIR, Config, register
from cnmc.data.datamodule import CellDataModule
from cnmc.data.store import CellSplit, CellStore, open_cells, open_split
from cnmc.devices import claim_gpu
from cnmc.errors import CnmcError, is_interruption
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import agent_run_id
from cnmc.runs.lifecycle import (
    begin_run,
    check_origin,
    check_place,
    failure_recorded,
    file_digest,
    find_run,
    start_over,
)
from cnmc.study.plan import close_study, described, run_job, with_multirun
from cnmc.tracking.loggers import log_study, tracked
from cnmc.training.build import build_classifier, build_trainer, device_name
from cnmc.training.progress import Report, RunDisplay
from cnmc.training.recorder import RunRecorder, defined, tidy

register()


def train(
    config: Config, resolved: dict[str, Any], folder: RunFolder, report: Report | None = None
) -> Literal["trained", "skipped"]:
    """Train and evaluate one run, resume it, or skip it if it is finished.

    ``resolved`` is the configuration as plain values. Without ``report``, the progress is shown on
    standard output. Raises CnmcError if the configuration or data are at fault, or the folder
    belongs to another run.
    """
    check_place(folder)
    # The data are opened before the folder is locked: a mistake in them leaves no files behind.
    needed = config.run.overwrite or not folder.is_finished()
    store = open_cells(config.data, config.split) if needed else None
    with folder.lock():
        if config.run.overwrite:
            start_over(folder, config.study.id)
        info = find_run(folder, config, resolved)
        if info.status == "finished":
            _revisit(config, resolved, folder, info, quiet=report is not None)
            return "skipped"
        store = store or open_cells(config.data, config.split)
        for attempt in range(config.study.max_retries + 1):
            info.retries += attempt > 0
            try:
                _run(config, resolved, folder, store, info, report=report)
                break
            except Exception as error:
                last = attempt == config.study.max_retries
                if last or isinstance(error, CnmcError) or is_interruption(error):
                    raise
                print(f"{folder.path}: {type(error).__name__}, trying again", file=sys.stderr)
            # The failed attempt may hold memory that the next one needs.
            gc.collect()
            torch.cuda.empty_cache()
    return "trained"


def _run(
    config: Config,
    resolved: dict[str, Any],
    folder: RunFolder,
    store: CellStore,
    info: RunInfo,
    *,
    report: Report | None,
) -> None:
    """Train a run from its last complete epoch to the end, and log its results."""
    last, best = folder.last_checkpoint, folder.best_checkpoint
    with failure_recorded(folder, info):
        epochs = int(load_checkpoint(last, lazy=True)["cnmc"]["epoch"]) if last.is_file() else 0
        begin_run(folder, info, resolved, _origin(config, store), epochs)
        with tracked(
            config.logger, folder=folder, info=info, config=resolved, quiet=report is not None
        ) as tracker:
            pl.seed_everything(config.seed, workers=True, verbose=False)
            if config.trainer.num_threads is not None:
                torch.set_num_threads(config.trainer.num_threads)
            data = CellDataModule(config, store)
            module = build_classifier(config, data.pos_weight)
            display = RunDisplay()
            recorder = RunRecorder(
                folder,
                info,
                resolved,
                data.evaluated,
                num_rotations=config.tta.num_rotations,
                report=report or (display.update if config.trainer.progress_bar else None),
            )
            with claim_gpu(config.trainer.accelerator) as gpu, display.bars, recorder.first_error():
                trainer = build_trainer(config, [recorder], tracker.loggers, gpu)
                info.hardware["accelerator"] = device_name(trainer)
                if epochs == 0:
                    trainer.validate(module, data, verbose=False)
                trainer.fit(module, data, ckpt_path=last if epochs else None, weights_only=True)
                # Only some splits have test cells.
                if "test" in data.evaluated:
                    module.load_state_dict(load_checkpoint(best)["state_dict"])
                    trainer.test(module, data, verbose=False)
            info.status = "finished"
            folder.write_info(info)
            tidy(folder)
            tracker.conclude(store.pixels)


def _origin(config: Config, cells: CellSplit) -> dict[str, str | None]:
    return {
        "protocol": cells.split.protocol,
        "manifest_fingerprint": cells.manifest.fingerprint,
        "split_fingerprint": cells.split.fingerprint,
        "weights_sha256": file_digest(config.model.weights),
    }


def _revisit(
    config: Config, resolved: dict[str, Any], folder: RunFolder, info: RunInfo, *, quiet: bool
) -> None:
    """Compare a finished run with the data, if they are still there, and log it if it was not."""
    try:
        found = open_split(config.data, config.split)
    except (CnmcError, OSError) as error:
        print(f"{folder.path}: its data were not compared: {error}", file=sys.stderr)
    else:
        check_origin(folder, info, _origin(config, found))
    tidy(folder)
    if config.logger.kind != "wandb" or (info.logged and agent_run_id() is None):
        return
    with tracked(config.logger, folder=folder, info=info, config=resolved, quiet=quiet) as tracker:
        for row in folder.read_metrics().to_dict(orient="records"):
            for logger in tracker.loggers:
                logger.log_metrics(defined(row))
        tracker.conclude(None)


def study_figures(group: Group, root: Path, show_cells: bool) -> list[Any]:
    """Return the figures of the report on a group of runs, images of cells only on request."""
    from cnmc.reporting.assemble import assemble  # noqa: PLC0415 - matplotlib takes a second
    from cnmc.reporting.pictures import PICTURES  # noqa: PLC0415

    figures = assemble(Study((group,), ()), root=root).figures
    return [figure for figure in figures if show_cells or figure.name not in PICTURES]


def close() -> bool:
    """Print and log the results of a study, and return whether every planned run is finished."""
    launched = close_study()
    if launched is None:
        return True
    config, folders, reasons = launched
    study = load_study(folders, reasons)
    print(summarise(study))
    log_study(config.logger, study, Path(config.run.root), study_figures)
    return not study.gaps


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")
def main(node: DictConfig) -> None:
    """Train the run of a composed configuration."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_job(node, train)
        return
    with user_errors():
        config, resolved, folder = described(node)
        if train(config, resolved, folder) == "skipped":
            print(f"{folder.path}: finished already")
        print(summarise(load_study([folder])))


if __name__ == "__main__":
    # Launchers pickle the main function by its name, under which other processes import it.
    run_app(import_module("cnmc.train").main, Config, arguments=with_multirun, close=close)

"""``python -m cnmc.train``: trains one run, or every run of a study that the overrides sweep."""

from __future__ import annotations

import cnmc.cli.needs_train  # isort: skip # noqa: F401

import gc
import logging
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any, Literal

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

from cnmc.analysis.summary import summarise
from cnmc.cli.app import run_app, user_errors
from cnmc.config import CONFIG_DIR, Config, register
from cnmc.data.store import CellSplit, CellStore, open_cells, open_split
from cnmc.devices import claim_gpu
from cnmc.errors import CnmcError, is_interruption
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.lifecycle import (
    Origin,
    begin_run,
    check_origin,
    check_place,
    failure_recorded,
    file_digest,
    find_run,
    start_over,
)
from cnmc.signals import TERMINATED
from cnmc.study.job import described, run_job
from cnmc.study.launch import close_study
from cnmc.study.plan import with_multirun
from cnmc.tracking import agent
from cnmc.tracking.loggers import Tracker, tracked
from cnmc.training.build import build_classifier, build_datamodule, build_trainer, device_name
from cnmc.training.checkpoints import EpochCheckpoints, strip_optimizer
from cnmc.training.ending import first_error
from cnmc.training.progress import Tell
from cnmc.training.recorder import RunRecorder, defined

register()
# Lightning's advice and its notes on the machine would drown the lines about the runs.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="pytorch_lightning")


def train(
    config: Config, resolved: dict[str, Any], folder: RunFolder, tell: Tell | None = None
) -> Literal["trained", "skipped"]:
    """Train and evaluate one run, go on with it, or skip it; all it finds out is in its folder.

    Args:
        config: The configuration.
        resolved: The same as plain values.
        folder: The run folder.
        tell: Is told how far the run is; without it, that is shown.

    Raises:
        CnmcError: The input is at fault, or the folder is another run's.
    """
    check_place(folder)
    # Opened before the folder is locked, so that a mistake in the data leaves nothing behind.
    store = None
    if config.run.overwrite or not folder.is_finished():
        store = open_cells(config.data, config.split)
    with folder.lock():
        if config.run.overwrite:
            start_over(folder, config.study.id)
        for retry in range(config.study.max_retries + 1):
            try:
                return _train_once(config, resolved, folder, store, tell=tell, retry=retry)
            except CnmcError:
                # Trying again mends no mistake.
                raise
            except Exception as error:
                if retry == config.study.max_retries or is_interruption(error):
                    raise
                print(f"{folder.path}: {type(error).__name__}, trying again", file=sys.stderr)
            # The failed attempt may hold the memory that the next one needs.
            gc.collect()
            torch.cuda.empty_cache()
    raise AssertionError("the last attempt returns or raises")


def _train_once(
    config: Config,
    resolved: dict[str, Any],
    folder: RunFolder,
    store: CellStore | None,
    *,
    tell: Tell | None,
    retry: int,
) -> Literal["trained", "skipped"]:
    info = find_run(folder, config, resolved)
    if info.status == "finished":
        try:
            found = open_split(config.data, config.split)
        except (CnmcError, OSError) as error:
            # Data that have moved since are not needed either.
            print(f"{folder.path}: its data were not compared: {error}", file=sys.stderr)
        else:
            check_origin(folder, info, _origin(config, found))
        _tidy(folder)
        if config.logger.kind == "wandb" and (agent.run_id() is not None or not info.logged):
            _log_again(config, resolved, folder, info, quiet=tell is not None)
        return "skipped"
    info.retries += retry > 0
    store = store or open_cells(config.data, config.split)
    with failure_recorded(folder, info):
        last = folder.last_checkpoint
        epochs = int(load_checkpoint(last, lazy=True)["cnmc"]["epoch"]) if last.is_file() else 0
        begin_run(folder, info, resolved, _origin(config, store), epochs)
        with tracked(
            config.logger, folder=folder, info=info, config=resolved, quiet=tell is not None
        ) as tracker:
            try:
                fit(
                    config,
                    resolved,
                    folder,
                    store,
                    info,
                    tracker=tracker,
                    resume=epochs > 0,
                    tell=tell,
                )
            except SIGTERMException:
                # Lightning stops between two batches, and would end as if all were done.
                sys.exit(TERMINATED)
            info.status = "finished"
            folder.write_info(info)
            _tidy(folder)
            tracker.conclude(store.pixels)
    _note_logged(folder, info, tracker)
    return "trained"


def _origin(config: Config, cells: CellSplit) -> Origin:
    return Origin(
        cells.split.protocol,
        cells.manifest.fingerprint,
        cells.split.fingerprint,
        file_digest(config.model.weights),
    )


def _log_again(
    config: Config, resolved: dict[str, Any], folder: RunFolder, info: RunInfo, *, quiet: bool
) -> None:
    """Log what a finished run stored.

    An agent waits for its numbers under a name of its own; or W&B failed at the end of the run, or
    another logger was chosen for it.
    """
    with tracked(config.logger, folder=folder, info=info, config=resolved, quiet=quiet) as tracker:
        for row in folder.read_metrics().to_dict(orient="records"):
            for logger in tracker.loggers:
                logger.log_metrics(defined(row))
        tracker.conclude(None)
    _note_logged(folder, info, tracker)


def _note_logged(folder: RunFolder, info: RunInfo, tracker: Tracker) -> None:
    """Write down that W&B was told everything; where that fails, it is told once more."""
    if tracker.complete and not info.logged:
        info.logged = True
        with suppress(OSError):
            folder.write_info(info)


def _tidy(folder: RunFolder) -> None:
    """Leave a finished run with what it is worth; an interrupted one needs the optimiser's state.

    Where it fails (a full disk), or the process dies before, it is made up for when the run is
    skipped.
    """
    with suppress(CnmcError, OSError, RuntimeError):
        folder.remove_temporaries()
        strip_optimizer(folder.last_checkpoint)


def fit(
    config: Config,
    resolved: dict[str, Any],
    folder: RunFolder,
    store: CellStore,
    info: RunInfo,
    *,
    tracker: Tracker,
    resume: bool,
    tell: Tell | None = None,
) -> None:
    """Fit a run to its last epoch, then evaluate the best checkpoint on the cells kept for it."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    data = build_datamodule(config, store)
    module = build_classifier(config, data.pos_weight)
    recorder = RunRecorder(folder, info, data.evaluated, config.tta.num_rotations)
    checkpoints = EpochCheckpoints(folder, info, resolved)
    with claim_gpu(config.trainer.accelerator) as gpu, first_error():
        trainer = build_trainer(
            config,
            callbacks=[recorder, checkpoints],
            recorder=recorder,
            loggers=tracker.loggers,
            terminal=sys.stdout.isatty(),
            tell=tell,
            gpu=gpu,
        )
        info.hardware["accelerator"] = device_name(trainer)
        if not resume:
            trainer.validate(module, data, verbose=False)
        last = folder.last_checkpoint if resume else None
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
        if data.has_test:
            module.load_state_dict(load_checkpoint(folder.best_checkpoint)["state_dict"])
            trainer.test(module, data, verbose=False)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="config")
def main(node: DictConfig) -> None:
    """Train the run that a composed configuration describes."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_job(node, train)
        return
    with user_errors():
        config, resolved, folder = described(node)
        if train(config, resolved, folder) == "skipped":
            print(f"{folder.path}: finished already")
        print(summarise([folder]).text)


if __name__ == "__main__":
    # A launcher sends the main function to other processes: by its name, which they import.
    run_app(import_module("cnmc.train").main, Config, arguments=with_multirun, close=close_study)

"""``python -m cnmc.train``: trains one run, or every run of a study that the overrides sweep."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

import gc
import logging
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import SIGTERMException

from cnmc.analysis.loading import load_study
from cnmc.analysis.results import Group, Study
from cnmc.analysis.summary import summarise
from cnmc.cli.app import run_app, user_errors
from cnmc.config import CONFIG_DIR, Config, register
from cnmc.data.store import CellSplit, CellStore, open_cells, open_split
from cnmc.devices import claim_gpu
from cnmc.errors import CnmcError, is_interruption
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs import sweep_agent
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
from cnmc.tracking.loggers import Tracker, log_study, tracked
from cnmc.training.build import build_classifier, build_datamodule, build_trainer, device_name
from cnmc.training.checkpoints import EpochCheckpoints, strip_optimizer
from cnmc.training.ending import EarlyEnd
from cnmc.training.progress import ProgressReporter, Report, RunDisplay
from cnmc.training.recorder import RunRecorder, defined

if TYPE_CHECKING:
    from cnmc.reporting.document import Figure

register()


def train(
    config: Config, resolved: dict[str, Any], folder: RunFolder, report: Report | None = None
) -> Literal["trained", "skipped"]:
    """Train and evaluate one run, resume it, or skip it if it is finished.

    Args:
        config: The configuration.
        resolved: The same as plain values.
        folder: The run folder, which receives all results.
        report: Receives the progress; by default it is shown on standard output.

    Raises:
        CnmcError: The configuration or data are at fault, or the folder belongs to another run.
    """
    # Lightning's advice would drown the lines about the runs.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    check_place(folder)
    # The data are opened before the folder is locked: a mistake in them leaves no files behind.
    needed = config.run.overwrite or not folder.is_finished()
    store = open_cells(config.data, config.split) if needed else None
    with folder.lock():
        if config.run.overwrite:
            start_over(folder, config.study.id)
        info = find_run(folder, config, resolved)
        if info.status == "finished":
            _check_finished(config, folder, info)
            if config.logger.kind == "wandb" and (
                sweep_agent.run_id() is not None or not info.logged
            ):
                _log_again(config, resolved, folder, info, quiet=report is not None)
            return "skipped"
        store = store or open_cells(config.data, config.split)
        _train_with_retries(config, resolved, folder, store, info, report=report)
    return "trained"


def _train_with_retries(
    config: Config,
    resolved: dict[str, Any],
    folder: RunFolder,
    store: CellStore,
    info: RunInfo,
    *,
    report: Report | None,
) -> None:
    """Train a run; try again ``study.max_retries`` times if it fails."""
    for attempt in range(config.study.max_retries + 1):
        info.retries += attempt > 0
        try:
            with failure_recorded(folder, info):
                epochs = _begin(config, resolved, folder, store, info)
                with tracked(
                    config.logger,
                    folder=folder,
                    info=info,
                    config=resolved,
                    quiet=report is not None,
                ) as tracker:
                    fit(
                        config,
                        resolved,
                        folder,
                        store,
                        info,
                        epochs=epochs,
                        tracker=tracker,
                        report=report,
                    )
                    info.status = "finished"
                    folder.write_info(info)
                    _tidy(folder)
                    tracker.conclude(store.pixels)
            _note_logged(folder, info, tracker)
            return
        except CnmcError:
            raise
        except Exception as error:
            if attempt == config.study.max_retries or is_interruption(error):
                raise
            print(f"{folder.path}: {type(error).__name__}, trying again", file=sys.stderr)
        # The failed attempt may hold memory that the next one needs.
        gc.collect()
        torch.cuda.empty_cache()


def _begin(
    config: Config, resolved: dict[str, Any], folder: RunFolder, store: CellStore, info: RunInfo
) -> int:
    """Begin or resume a run, and return the number of epochs that its last checkpoint holds."""
    last = folder.last_checkpoint
    epochs = int(load_checkpoint(last, lazy=True)["cnmc"]["epoch"]) if last.is_file() else 0
    begin_run(folder, info, resolved, _origin(config, store), epochs)
    return epochs


def fit(
    config: Config,
    resolved: dict[str, Any],
    folder: RunFolder,
    store: CellStore,
    info: RunInfo,
    *,
    epochs: int,
    tracker: Tracker,
    report: Report | None,
) -> None:
    """Train a run from its last epoch to the end, then evaluate the best checkpoint.

    The best checkpoint is evaluated only where the split has test cells.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)
    data = build_datamodule(config, store)
    module = build_classifier(config, data.pos_weight)
    recorder = RunRecorder(folder, info, data.evaluated, config.tta.num_rotations)
    display = RunDisplay(epoch_lines=True)
    ending = EarlyEnd()
    callbacks = [recorder, EpochCheckpoints(folder, info, resolved), ending]
    if report is not None or config.trainer.progress_bar:
        callbacks.append(ProgressReporter(recorder, report or display.update))
    with claim_gpu(config.trainer.accelerator) as gpu, display, ending.first_error():
        trainer = build_trainer(config, callbacks=callbacks, loggers=tracker.loggers, gpu=gpu)
        info.hardware["accelerator"] = device_name(trainer)
        try:
            if epochs == 0:
                trainer.validate(module, data, verbose=False)
            trainer.fit(
                module,
                data,
                ckpt_path=folder.last_checkpoint if epochs else None,
                weights_only=True,
            )
            if "test" in data.evaluated:
                module.load_state_dict(load_checkpoint(folder.best_checkpoint)["state_dict"])
                trainer.test(module, data, verbose=False)
        except SIGTERMException:
            # Lightning stops between two batches and would end with status 0.
            sys.exit(TERMINATED)


def _origin(config: Config, cells: CellSplit) -> Origin:
    return Origin(
        cells.split.protocol,
        cells.manifest.fingerprint,
        cells.split.fingerprint,
        file_digest(config.model.weights),
    )


def _check_finished(config: Config, folder: RunFolder, info: RunInfo) -> None:
    """Check that a finished run was trained on these data, if they are still there."""
    try:
        found = open_split(config.data, config.split)
    except (CnmcError, OSError) as error:
        print(f"{folder.path}: its data were not compared: {error}", file=sys.stderr)
    else:
        check_origin(folder, info, _origin(config, found))
    _tidy(folder)


def _tidy(folder: RunFolder) -> None:
    """Remove temporary files and the optimizer's state, which only a resumed run needs.

    If this fails (a full disk), it is repeated when the finished run is skipped.
    """
    with suppress(CnmcError, OSError, RuntimeError):
        folder.remove_temporaries()
        strip_optimizer(folder.last_checkpoint)


def _log_again(
    config: Config, resolved: dict[str, Any], folder: RunFolder, info: RunInfo, *, quiet: bool
) -> None:
    """Log the results of a finished run to W&B, which were not logged or not for this agent."""
    with tracked(config.logger, folder=folder, info=info, config=resolved, quiet=quiet) as tracker:
        for row in folder.read_metrics().to_dict(orient="records"):
            for logger in tracker.loggers:
                logger.log_metrics(defined(row))
        tracker.conclude(None)
    _note_logged(folder, info, tracker)


def _note_logged(folder: RunFolder, info: RunInfo, tracker: Tracker) -> None:
    if tracker.complete and not info.logged:
        info.logged = True
        with suppress(OSError):
            folder.write_info(info)


def close() -> bool:
    """Print and log the results of the study that this process launched, if it did.

    Returns:
        Whether every planned run is finished.
    """
    study = close_study()
    if study is None:
        return True
    loaded = load_study(study.folders, study.reasons)
    print(summarise(loaded))
    log_study(study.logger, loaded, study.root, study_figures)
    return not loaded.gaps


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


def study_figures(group: Group, root: Path, show_cells: bool) -> list[Figure]:
    """Return the figures of the report on one group of runs.

    Args:
        group: The runs.
        root: Folder of the run folders.
        show_cells: Include the figures that are made of images of cells.
    """
    from cnmc.reporting.assemble import assemble  # noqa: PLC0415 - matplotlib takes a second
    from cnmc.reporting.pictures import PICTURES  # noqa: PLC0415

    figures = assemble(Study((group,), ()), root=root).figures
    return [figure for figure in figures if show_cells or figure.name not in PICTURES]


if __name__ == "__main__":
    # Launchers pickle the main function by its name, under which other processes import it.
    run_app(import_module("cnmc.train").main, Config, arguments=with_multirun, close=close)

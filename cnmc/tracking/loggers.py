"""Loggers beside the run folder's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from cnmc.analysis.results import Study
from cnmc.config import LoggerConfig
from cnmc.data.images import Pixels
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.tracking import keys as names
from cnmc.tracking.guard import Guard, GuardedLogger
from cnmc.tracking.run_results import run_results

_IN_FOLDER = "the training goes on, and its numbers are in the run folder"


@dataclass
class Tracker:
    """Where a run is followed while it lasts.

    Attributes:
        loggers: For Lightning's trainer.
        conclude: Logs what the finished run shows. It is given a function that returns the image
            of a cell by its id, or None where no image is at hand.
        complete: Whether, once it is closed, W&B was told everything; its own files may have to be
            sent yet.
    """

    loggers: list[Logger]
    conclude: Callable[[Callable[[str], Pixels] | None], None] = lambda _pixels: None
    complete: bool = False


@contextmanager
def tracked(
    options: LoggerConfig,
    *,
    folder: RunFolder,
    info: RunInfo,
    config: Mapping[str, Any],
    quiet: bool = False,
) -> Iterator[Tracker]:
    """Yield what follows a run, and close it however the run ends.

    Nothing that a logger raises gets out of here.

    Args:
        options: Which logger, and where to.
        folder: The run folder; loggers keep their files below it.
        info: Identity and progress of the run. Its id is that of the W&B run, so that a resumed
            run goes on in the same one.
        config: The resolved configuration.
        quiet: Print nothing but failures, as one of many runs.

    """
    if options.kind == "wandb":
        with _at_wandb(options, folder, info, config, quiet=quiet) as tracker:
            yield tracker
        return
    guard = Guard(f"logger={options.kind}", _IN_FOLDER)
    logger: Logger | None = None
    if options.kind == "csv":
        logger = guard(lambda: CSVLogger(folder.path, name="", version=_steps(folder)))
    elif options.kind == "tensorboard":
        logger = guard(lambda: ScalarLogger(folder.path))
    yield Tracker([GuardedLogger(logger, guard)] if logger else [])


def _steps(folder: RunFolder) -> str:
    """Return a folder for the steps; a resumed run has a second one, or it would lose the first."""
    taken = len(list(folder.path.glob("steps*")))
    return f"steps-{taken + 1}" if taken else "steps"


class ScalarLogger(TensorBoardLogger):
    """Scalars for TensorBoard, epochs under their own count; the configuration is in the folder.

    Args:
        folder: The run folder; the files come into ``tensorboard/``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="tensorboard", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch of the recorder, or what Lightning logs within one."""
        scalars = {name: value for name, value in metrics.items() if name != names.EPOCH}
        within = names.LOSS_STEP in metrics
        super().log_metrics(scalars, step if within else int(metrics[names.EPOCH]))

    def save(self) -> None:
        """Write the scalars out; there are no hyperparameters to be stored."""
        self.experiment.flush()


@contextmanager
def _at_wandb(
    options: LoggerConfig,
    folder: RunFolder,
    info: RunInfo,
    config: Mapping[str, Any],
    *,
    quiet: bool,
) -> Iterator[Tracker]:
    from cnmc.tracking import wandb_run  # noqa: PLC0415 - takes a second, for this logger alone

    guard = Guard("W&B", _IN_FOLDER)
    run = guard(lambda: wandb_run.start_run(options, folder, info, config))
    if run is None:
        yield Tracker([])
        return
    concluded = False

    def conclude(pixels: Callable[[str], Pixels] | None) -> None:
        nonlocal concluded
        with wandb_run.staged_below(folder.path):
            results = guard(lambda: run_results(folder))
            if results is None:
                return
            number = options.num_images
            guard(lambda: wandb_run.log_results(run, results, num_images=number, pixels=pixels))
            if options.log_model:
                summary, last = results.summary, options.log_last
                guard(lambda: wandb_run.log_checkpoints(run, folder, info, summary, last=last))
        concluded = True

    tracker = Tracker([], conclude)
    try:
        logger = guard(lambda: wandb_run.RunLogger(run, info))
        tracker.loggers = [GuardedLogger(logger, guard)] if logger else []
        yield tracker
    finally:
        # What comes after the training is no failure of it.
        exit_code = 0 if info.status == "finished" else 1
        sent = guard(lambda: wandb_run.finish(run, exit_code)) is not None
        tracker.complete = concluded and not guard.failed
        if not quiet:
            guard(lambda: print(wandb_run.whereabouts(run, sent=sent)))


def log_study(options: LoggerConfig, study: Study, root: Path) -> None:
    """Log each group of a study as a run at W&B of its own, and say once how to send what is here.

    Nothing that W&B raises gets out of here.

    Args:
        options: Which logger, and where to; nothing happens with another logger than W&B.
        study: The groups.
        root: Where the run folders lie.
    """
    if options.kind != "wandb" or not study.groups:
        return
    from cnmc.tracking import study_run  # noqa: PLC0415 - takes a second, for this logger alone

    guard = Guard("W&B", "the study's own run there is not complete; its report needs none")
    runs = [guard(partial(study_run.log_group, options, group, root)) for group in study.groups]
    for run in filter(None, runs):
        if not run.offline:
            guard(partial(print, f"W&B: {run.url}"))
    here = "/wandb/offline-run-*"
    patterns = [pattern for pattern in (f"*/*{here}", here[1:]) if any(root.glob(pattern))]
    if patterns:
        where = " ".join(str(root / pattern) for pattern in patterns)
        print(f"W&B: what was logged offline is sent by: wandb sync {where}")

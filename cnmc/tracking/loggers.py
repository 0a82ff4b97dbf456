"""Loggers beside the run folder's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from cnmc.analysis.results import Group, Study
from cnmc.config import LoggerConfig
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.tracking import keys
from cnmc.tracking.guard import Guard, GuardedLogger

Pixels = Callable[[str], Any]
"""Returns the image of a cell by its id, uint8, shape (H, W, 3)."""


class StudyFigure(Protocol):
    """A figure of a study's report."""

    @property
    def name(self) -> str:
        """Name of its file."""

    @property
    def title(self) -> str:
        """Title for readers."""

    @property
    def png(self) -> bytes:
        """Content of its PNG file."""


Figures = Callable[[Group, Path, bool], Sequence[StudyFigure]]
"""Returns the figures of a group of runs, given the folder of the runs, and whether images of cells
may be among them."""


@dataclass
class Tracker:
    """The loggers of one run.

    Attributes:
        loggers: For Lightning's trainer.
        conclude: Logs the results of the finished run. The argument returns the image of a cell by
            its id; None if the images are not available.
        complete: After closing: whether everything was handed to W&B.
    """

    loggers: list[Logger]
    conclude: Callable[[Pixels | None], None] = lambda _pixels: None
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
    """Yield the loggers of a run, and close them at its end.

    A failure of a logger is reported on stderr and stops nothing.

    Args:
        options: The logger and its settings.
        folder: The run folder; loggers keep their files in it.
        info: Identity and progress of the run. A resumed run continues the same W&B run.
        config: The resolved configuration.
        quiet: Print nothing but failures.
    """
    lost = "the training continues, and its numbers are in the run folder"
    if options.kind == "wandb":
        from cnmc.tracking.wandb_run import tracked_at_wandb  # noqa: PLC0415 - takes a second

        with tracked_at_wandb(
            options, Guard("W&B", lost), folder=folder, info=info, config=config, quiet=quiet
        ) as tracker:
            yield tracker
        return
    guard = Guard(f"logger={options.kind}", lost)
    logger: Logger | None = None
    if options.kind == "csv":
        logger = guard(lambda: CSVLogger(folder.path, name="", version=_steps(folder)))
    elif options.kind == "tensorboard":
        logger = guard(lambda: ScalarLogger(folder.path))
    yield Tracker([GuardedLogger(logger, guard)] if logger else [])


def _steps(folder: RunFolder) -> str:
    """Return a new folder name for the steps, so that a resumed run keeps the first ones."""
    taken = len(list(folder.path.glob("steps*")))
    return f"steps-{taken + 1}" if taken else "steps"


class ScalarLogger(TensorBoardLogger):
    """Logs scalars to TensorBoard, epochs by their own count.

    Args:
        folder: The run folder; the files are written to ``tensorboard/``.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="tensorboard", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch of the recorder, or a step of Lightning."""
        scalars = {name: value for name, value in metrics.items() if name != keys.EPOCH}
        within = keys.LOSS_STEP in metrics
        super().log_metrics(scalars, step if within else int(metrics[keys.EPOCH]))

    def save(self) -> None:
        """Write the scalars, but no hyperparameters: the configuration is in the run folder."""
        self.experiment.flush()


def log_study(
    options: LoggerConfig,
    study: Study,
    root: Path,
    figures: Figures,
) -> None:
    """Log each group of a study as a W&B run of its own.

    Args:
        options: The logger and its settings; any logger but W&B does nothing.
        study: The groups.
        root: Folder of the run folders.
        figures: Returns the figures of a group.
    """
    if options.kind != "wandb" or not study.groups:
        return
    from cnmc.tracking import study_run  # noqa: PLC0415 - takes a second

    guard = Guard("W&B", "the study's own run there is incomplete; its report is not affected")
    for group in study.groups:
        run = guard(partial(study_run.log_group, options, group, root, figures))
        if run is not None and not run.offline:
            print(f"W&B: {run.url}")
    offline = "wandb/offline-run-*"
    patterns = [pattern for pattern in (f"*/*/{offline}", offline) if any(root.glob(pattern))]
    if patterns:
        where = " ".join(str(root / pattern) for pattern in patterns)
        print(f"W&B: logged offline; wandb sync {where} sends it")

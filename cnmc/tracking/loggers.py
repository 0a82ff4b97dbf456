"""The loggers of a run. Their failures do not stop the training."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from cnmc.analysis.results import Group, Study
from cnmc.config.groups import LoggerConfig
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.tracking import keys

Pixels = Callable[[str], Any]
"""Returns the image of a cell by its id, uint8, shape (H, W, 3)."""


@dataclass
class Guard:
    """Context manager that suppresses the errors of a logger, and warns of the first one.

    The messages of other packages are not shown, because those of W&B contain addresses.
    """

    name: str
    remedy: str
    failed: bool = False

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        """Return whether the error is suppressed."""
        if not isinstance(error, Exception):
            return False
        if not self.failed:
            why = str(error) if isinstance(error, CnmcError) else type(error).__name__
            sys.stderr.write(f"warning: {self.name} failed ({why}); {self.remedy}\n")
        self.failed = True
        return True


class GuardedLogger(Logger):
    """A Lightning logger whose failures do not stop the training."""

    name = version = None
    """Lightning makes paths of these for its own checkpoints, which are not used here."""

    def __init__(self, logger: Logger, guard: Guard) -> None:
        super().__init__()
        self.logger = logger
        self.guard = guard

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log metrics."""
        with self.guard:
            self.logger.log_metrics(metrics, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Log nothing: the configuration is in the run folder."""

    def save(self) -> None:
        """Write buffered metrics."""
        with self.guard:
            self.logger.save()

    def finalize(self, status: str) -> None:
        """End the logging of one fit, validation or test."""
        with self.guard:
            self.logger.finalize(status)


class ScalarLogger(TensorBoardLogger):
    """Logs scalars to ``tensorboard/`` in the run folder, epochs by their own count."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="tensorboard", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch of the recorder, or a step of Lightning."""
        scalars = {name: value for name, value in metrics.items() if name != keys.EPOCH}
        within = keys.LOSS_STEP in metrics
        super().log_metrics(scalars, step if within else int(metrics[keys.EPOCH]))

    def save(self) -> None:
        """Write the scalars, without hyperparameters."""
        self.experiment.flush()


@dataclass
class Tracker:
    """The loggers of one run."""

    loggers: list[Logger] = field(default_factory=list)
    """For Lightning's trainer."""
    conclude: Callable[[Pixels | None], None] = lambda _pixels: None
    """Logs the results of the finished run, with images of cells if they are available."""


@contextmanager
def tracked(
    options: LoggerConfig,
    *,
    folder: RunFolder,
    info: RunInfo,
    config: Mapping[str, Any],
    quiet: bool = False,
) -> Iterator[Tracker]:
    """Yield the loggers of a run, which keep their files in its folder, and close them at its end.

    A resumed run continues the same W&B run. With ``quiet``, only failures are printed.
    """
    name = "W&B" if options.kind == "wandb" else f"logger={options.kind}"
    guard = Guard(name, "the training continues, and its numbers are in the run folder")
    loggers: list[Logger] = []
    if options.kind == "wandb":
        from cnmc.tracking.wandb_run import tracked_at_wandb  # noqa: PLC0415 - takes a second

        with tracked_at_wandb(options, guard, folder, info, config, quiet=quiet) as tracker:
            yield tracker
        return
    if options.kind == "csv":
        # A resumed run keeps the steps of its first part.
        taken = len(list(folder.path.glob("steps*")))
        version = f"steps-{taken + 1}" if taken else "steps"
        loggers = [CSVLogger(folder.path, name="", version=version)]
    elif options.kind == "tensorboard":
        loggers = [ScalarLogger(folder.path)]
    yield Tracker([GuardedLogger(logger, guard) for logger in loggers])


def log_study(
    options: LoggerConfig,
    study: Study,
    root: Path,
    figures: Callable[[Group, Path, bool], Sequence[Any]],
) -> None:
    """Log each group of a study below ``root`` as a W&B run; do nothing with any other logger.

    ``figures`` returns the report of a group, with images of cells or without.
    """
    if options.kind != "wandb" or not study.groups:
        return
    from cnmc.tracking.wandb_run import log_group  # noqa: PLC0415 - takes a second

    guard = Guard("W&B", "the study's own run there is incomplete; its report is not affected")
    for group in study.groups:
        with guard:
            log_group(options, group, root, figures)
    patterns = ("*/*/wandb/offline-run-*", "wandb/offline-run-*")
    if offline := [str(root / pattern) for pattern in patterns if any(root.glob(pattern))]:
        print(f"W&B: logged offline; wandb sync {' '.join(offline)} sends it")

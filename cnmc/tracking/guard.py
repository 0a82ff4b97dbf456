"""Keeps the failures of what a run could do without from stopping it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger

from cnmc.errors import CnmcError


class Guard:
    """Does what may fail; the first failure is told, and the work goes on.

    The message of a foreign error is not shown: W&B's hold addresses, and may hold what was sent.

    Args:
        name: What may fail, as users call it.
        remedy: What is lost, and what to do about it.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self.name = name
        self.remedy = remedy
        self.failed = False
        """Whether anything failed yet."""

    def __call__(self, action: Callable[[], Any]) -> Any:
        """Return what an action returns; None where it fails."""
        try:
            return action()
        except Exception as error:
            if not self.failed:
                why = str(error) if isinstance(error, CnmcError) else type(error).__name__
                sys.stderr.write(f"warning: {self.name} failed ({why}); {self.remedy}\n")
            self.failed = True
            return None


class GuardedLogger(Logger):
    """A logger of Lightning whose failures do not stop the training.

    A call that fails is lost; the next one is tried again.

    Args:
        logger: The logger.
        guard: Takes its failures.
    """

    def __init__(self, logger: Logger, guard: Guard) -> None:
        super().__init__()
        self.logger = logger
        self.guard = guard

    @property
    def name(self) -> str | None:
        """Name of the logger, None where that fails."""
        name: str | None = self.guard(lambda: self.logger.name)
        return name

    @property
    def version(self) -> int | str | None:
        """Version of what is logged, None where that fails."""
        version: int | str | None = self.guard(lambda: self.logger.version)
        return version

    @property
    def save_dir(self) -> str | None:
        """Where the logger keeps its files, None where that fails."""
        path: str | None = self.guard(lambda: self.logger.save_dir)
        return path

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log metrics."""
        self.guard(lambda: self.logger.log_metrics(metrics, step))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log hyperparameters."""
        self.guard(lambda: self.logger.log_hyperparams(params, *args, **kwargs))

    def save(self) -> None:
        """Write what is not written yet."""
        self.guard(self.logger.save)

    def finalize(self, status: str) -> None:
        """End the logging of one fit, validation or test."""
        self.guard(lambda: self.logger.finalize(status))

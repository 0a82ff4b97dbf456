"""Keeps failures of a logger from stopping the training."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger

from cnmc.errors import CnmcError


class Guard:
    """Calls functions that may fail, and warns of the first failure only.

    The message of a foreign error is not shown, because W&B's messages contain addresses.

    Args:
        name: What may fail.
        remedy: What is lost, and what to do about it.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self.name = name
        self.remedy = remedy
        self.failed = False

    def __call__(self, action: Callable[[], Any]) -> Any:
        """Return the result of an action, or None if it fails."""
        try:
            return action()
        except Exception as error:
            if not self.failed:
                why = str(error) if isinstance(error, CnmcError) else type(error).__name__
                sys.stderr.write(f"warning: {self.name} failed ({why}); {self.remedy}\n")
            self.failed = True
            return None


class GuardedLogger(Logger):
    """A Lightning logger whose failures do not stop the training.

    Args:
        logger: The logger.
        guard: Handles its failures.
    """

    name = version = None
    """Lightning makes paths of these for its own checkpoints, which are not used here."""

    def __init__(self, logger: Logger, guard: Guard) -> None:
        super().__init__()
        self.logger = logger
        self.guard = guard

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log metrics."""
        self.guard(lambda: self.logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Log nothing: the configuration is in the run folder."""

    def save(self) -> None:
        """Write what is not yet written."""
        self.guard(self.logger.save)

    def finalize(self, status: str) -> None:
        """End the logging of one fit, validation or test."""
        self.guard(lambda: self.logger.finalize(status))

"""What the jobs of a study need wherever a launcher of Hydra starts them."""

from __future__ import annotations

import os
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class JobSetup(Callback):
    """Gives a job the working folder of the command, so that relative paths mean the same."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Ask Ray, before it is imported, for every line of every run, and to report nothing."""
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Change to the folder of the command: Ray's workers start where its cluster did."""
        os.chdir(config.hydra.runtime.cwd)

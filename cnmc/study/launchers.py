"""What the jobs of a study need wherever a launcher of Hydra starts them."""

from __future__ import annotations

import os
import re
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_PACKAGES = {
    "joblib": ("hydra-joblib-launcher", "launchers"),
    "submitit_local": ("hydra-submitit-launcher", "launchers"),
    "submitit_slurm": ("hydra-submitit-launcher", "launchers"),
    "ray": ("hydra-ray-launcher", "ray"),
}
"""Package and extra that bring each launcher which a preset builds on."""

_ABSENT = re.compile(r"In 'hydra/launcher/(\w+)': Could not load 'hydra/launcher/(\w+)'")


class JobSetup(Callback):
    """Gives a job the working folder of the command, so that relative paths mean the same."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002
        """Ask Ray, before it is imported, for every line of every run, and to report nothing."""
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Change to the folder of the command: Ray's workers start where its cluster did."""
        os.chdir(config.hydra.runtime.cwd)


def missing_package(message: str) -> str | None:
    """Return what to install where a message of Hydra says that a preset's launcher is missing."""
    found = _ABSENT.search(message)
    if found is None or found[2] not in _PACKAGES:
        return None
    package, extra = _PACKAGES[found[2]]
    return f"hydra/launcher={found[1]} needs the package {package}: pip install 'cnmc[{extra}]'"

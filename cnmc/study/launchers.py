"""What the jobs of a study need wherever a launcher of Hydra starts them."""

from __future__ import annotations

import os
import re
from functools import partial
from importlib import import_module
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cnmc.signals import end_with_parent
from cnmc.streams import never_fail_to_print

_PACKAGES = {
    "joblib": ("hydra-joblib-launcher", "launchers"),
    "submitit_local": ("hydra-submitit-launcher", "launchers"),
    "submitit_slurm": ("hydra-submitit-launcher", "launchers"),
    "ray": ("hydra-ray-launcher", "ray"),
}
"""Package and extra that bring each launcher which a preset builds on."""

_ABSENT = re.compile(r"In 'hydra/launcher/(\w+)': Could not load 'hydra/launcher/(\w+)'")


class JobSetup(Callback):
    """Sets up the launcher of a study and the process of each job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Let joblib's processes end with this one, and Ray print all lines of all runs."""
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if "joblib" in config.hydra.launcher._target_:
            joblib = import_module("joblib")
            loky = partial(
                joblib.parallel.BACKENDS["loky"],
                initializer=end_with_parent,
                initargs=(os.getpid(),),
            )
            joblib.register_parallel_backend("loky", loky)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Change to the folder of the command, where Ray does not start its processes."""
        os.chdir(config.hydra.runtime.cwd)
        never_fail_to_print()


def missing_package(message: str) -> str | None:
    """Return what to install where a message of Hydra says that a preset's launcher is missing."""
    found = _ABSENT.search(message)
    if found is None or found[2] not in _PACKAGES:
        return None
    package, extra = _PACKAGES[found[2]]
    return f"hydra/launcher={found[1]} needs the package {package}: pip install 'cnmc[{extra}]'"

"""Setup of the processes in which Hydra's launchers run the jobs of a study."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cnmc.signals import end_with_parent
from cnmc.streams import never_fail_to_print


class JobSetup(Callback):
    """Sets up the launcher of a study and the process of each job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Let joblib's processes end with this one, and let Ray print all lines of all runs."""
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if "joblib" in config.hydra.launcher._target_:
            joblib = import_module("joblib")
            loky = joblib.parallel.BACKENDS["loky"]
            parent = (os.getpid(),)
            loky = partial(loky, initializer=end_with_parent, initargs=parent)
            joblib.register_parallel_backend("loky", loky)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Change to the folder of the command, which is not where Ray starts its processes."""
        os.chdir(config.hydra.runtime.cwd)
        never_fail_to_print()

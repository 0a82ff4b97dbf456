"""What the agent of a W&B sweep gives to a process that it starts."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from cnmc.errors import CnmcError

_SWEEP, _RUN, _FILE = "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"


def _file() -> str | None:
    """Return the path of the agent's parameters; None if no agent started this process."""
    return os.environ.get(_FILE) or None if os.environ.get(_SWEEP) else None


def run_id() -> str | None:
    """Return the id that the agent gave to this run; None if no agent started this process."""
    return os.environ.get(_RUN) or None if _file() else None


def parameters() -> list[str] | None:
    """Return the keys that the sweep sets; None if no agent started this process.

    Raises:
        CnmcError: The agent's file cannot be read.
    """
    path = _file()
    if path is None:
        return None
    try:
        keys = dict(yaml.safe_load(Path(path).read_text()))
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise CnmcError(
            f"{_FILE}={path} is not a file of parameters of a W&B agent "
            f"({' '.join(str(error).split())}); unset it if no agent is running"
        ) from error
    return [key for key in keys if key != "wandb_version"]

"""What the agent of a W&B sweep tells a process that it starts."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from cnmc.errors import CnmcError

_SWEEP, _RUN, _FILE = "WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"


def _file() -> str | None:
    """Return the agent's file of parameters; None where no agent started this process."""
    return os.environ.get(_FILE) or None if os.environ.get(_SWEEP) else None


def run_id() -> str | None:
    """Return what the agent calls the run of this process; None where no agent started it."""
    return os.environ.get(_RUN) or None if _file() else None


def parameters() -> list[str] | None:
    """Return the keys that the sweep gives values to; None where no agent started this process.

    Raises:
        CnmcError: The agent's file of parameters cannot be read.
    """
    path = _file()
    if path is None:
        return None
    try:
        return [
            key for key in dict(yaml.safe_load(Path(path).read_text())) if key != "wandb_version"
        ]
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise CnmcError(
            f"{_FILE}={path} is not a file of parameters of W&B's agent "
            f"({' '.join(str(error).split())}); unset it where no agent is at work"
        ) from error

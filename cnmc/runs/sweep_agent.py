"""What the agent of a W&B sweep gives to a process that it starts."""

from __future__ import annotations

import os
from pathlib import Path

import yaml


def _file() -> str | None:
    """Return the path of the agent's parameters; None if no agent started this process."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    return path if path and os.environ.get("WANDB_SWEEP_ID") else None


def run_id() -> str | None:
    """Return the id that the agent gave to this run; None if no agent started this process."""
    return os.environ.get("WANDB_RUN_ID") or None if _file() else None


def parameters() -> list[str] | None:
    """Return the keys that the sweep sets; None if no agent started this process."""
    path = _file()
    if path is None:
        return None
    return [key for key in yaml.safe_load(Path(path).read_text()) if key != "wandb_version"]

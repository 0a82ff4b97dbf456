"""Where a run comes from: its code, its packages, and the W&B agent that started it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import yaml

_PACKAGES = (
    *("cnmc", "torch", "pytorch-lightning", "torchmetrics", "timm", "albumentations"),
    *("opencv-python-headless", "numpy", "pandas"),
)
"""Packages that can change a result."""


def git_commit() -> str | None:
    """Return the commit of the checkout, with ``-dirty`` if it has changes; None of a wheel."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.PIPE).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    found = {name: next(iter(distributions(name=name)), None) for name in _PACKAGES}
    installed = {name: item.version for name, item in found.items() if item is not None}
    return {"python": platform.python_version(), **installed}


def agent_run_id() -> str | None:
    """Return the id that a W&B agent gave to this run; None if no agent started this process."""
    return os.environ.get("WANDB_RUN_ID") or None if agent_parameters() is not None else None


def agent_parameters() -> list[str] | None:
    """Return the keys that a W&B sweep sets; None if no agent started this process."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if not path or not os.environ.get("WANDB_SWEEP_ID"):
        return None
    return [key for key in yaml.safe_load(Path(path).read_text()) if key != "wandb_version"]

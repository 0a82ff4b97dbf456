"""Where a result comes from: code, packages, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("cnmc", "torch", "pytorch-lightning", "torchmetrics", "timm", "albumentations"),
    *("opencv-python-headless", "numpy", "pandas"),
)
"""Packages that can change a result."""


def git_commit() -> str | None:
    """Return the commit of the checkout that runs, ``-dirty`` appended if it has changes.

    None if the package does not run from a git checkout (an installed wheel).
    """
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    found = {name: next(iter(distributions(name=name)), None) for name in _PACKAGES}
    installed = {name: item.version for name, item in found.items() if item is not None}
    return {"python": platform.python_version(), **installed}


def hardware() -> dict[str, Any]:
    """Return the machine's architecture and its number of cores."""
    return {"machine": platform.machine(), "cores": os.cpu_count()}

"""Where a result comes from: code, packages, machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "cnmc",
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "pandas",
)
"""Packages that can change a result."""


def git_commit() -> str | None:
    """Return the commit of the checkout that runs, ``-dirty`` appended where it has changes.

    None where the package does not run from a git checkout (an installed wheel).
    """
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    if not (Path(__file__).parents[2] / ".git").exists():
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the machine's architecture and its number of cores."""
    return {"machine": platform.machine(), "cores": os.cpu_count()}

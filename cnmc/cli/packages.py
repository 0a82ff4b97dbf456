"""Packages that the presets of `hydra/launcher` need."""

from __future__ import annotations

import re

_PACKAGES = {
    "joblib": ("hydra-joblib-launcher", "launchers"),
    "submitit_local": ("hydra-submitit-launcher", "launchers"),
    "submitit_slurm": ("hydra-submitit-launcher", "launchers"),
    "ray": ("hydra-ray-launcher", "ray"),
}
"""Package and extra that bring each launcher which a preset builds on."""

_ABSENT = re.compile(r"In 'hydra/launcher/(\w+)': Could not load 'hydra/launcher/(\w+)'")


def missing_package(message: str) -> str | None:
    """Return what to install where a message of Hydra says that a preset's launcher is missing."""
    found = _ABSENT.search(message)
    if found is None or found[2] not in _PACKAGES:
        return None
    package, extra = _PACKAGES[found[2]]
    return f"hydra/launcher={found[1]} needs the package {package}: pip install 'cnmc[{extra}]'"

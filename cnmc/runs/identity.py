"""What identifies a run: its configuration, its code, and the W&B agent that started it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

_NOT_IDENTITY = (
    *("run", "study", "logger", "data.root", "data.work_dir", "data.num_workers"),
    *("data.eval_batch_size", "model.weights", "split.path"),
    *("trainer.accelerator", "trainer.num_threads", "trainer.progress_bar"),
)
"""Keys and groups that decide only where a run is stored, how it is shown and how fast it is. The
data, the split and the weights are identified by their fingerprints."""

_PACKAGES = (
    *("cnmc", "torch", "pytorch-lightning", "torchmetrics", "timm", "albumentations"),
    *("opencv-python-headless", "numpy", "pandas"),
)
"""Packages that can change a result."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a resolved configuration that decide what a run computes."""
    others = tuple(f"{name}." for name in _NOT_IDENTITY)
    flat = flatten(config).items()
    return {key: value for key, value in flat if not f"{key}.".startswith(others)}


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits over the :func:`identity` of a resolved configuration."""
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the sorted keys in which the :func:`identity` differs, and the two values of each."""
    a, b = identity(one), identity(other)
    pairs = {key: (a.get(key, "absent"), b.get(key, "absent")) for key in sorted(a | b)}
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new}


def run_name(seed: int | str, swept: Mapping[str, str]) -> str:
    """Return the name of a run folder: the seed, then every other swept override, sorted by key."""
    others = sorted(item for item in swept.items() if item[0] not in ("seed", "experiment"))
    name = ",".join(f"{key}={value}" for key, value in [("seed", seed), *others])
    return re.sub(r"[^\w.=+,@-]", "_", name)


def without_folders(value: Any) -> Any:
    """Return plain values in which each absolute path is replaced by its last part.

    Checkpoints and W&B get these values, since they leave the machine.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    is_path = isinstance(value, str) and Path(value).expanduser().is_absolute()
    return Path(value).name if is_path else value


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

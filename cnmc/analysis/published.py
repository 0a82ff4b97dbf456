"""The numbers that Prellberg & Kramer (2019) published, for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

VALUES: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
"""The content of ``published.yaml``, which describes it."""


def published(experiment: str, protocol: str, metric: str) -> dict[str, float]:
    """Return what the paper has of a metric of an experiment, in %; empty if it has nothing.

    Returns:
        mean and std over 24 runs, and of PROPOSAL also min and max. All are of protocol ``paper``.
    """
    runs = VALUES["runs"] if protocol == "paper" else {}
    found: dict[str, float] = runs.get(experiment, {}).get(metric, {})
    return found

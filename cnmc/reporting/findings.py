"""What several tables and figures of a report have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.bootstrap import SubjectBootstrap
from cnmc.analysis.metrics import FloatArray, decision_metrics
from cnmc.analysis.results import Group, Study, run_table
from cnmc.analysis.statistics import std
from cnmc.analysis.summary import comparisons
from cnmc.data.manifest import Manifest, load_manifest

MAX_READS = 4000
"""A report reads at most this many files to identify the cells: about ten seconds. It reads none
if the manifest of the training is available."""


@dataclass(frozen=True)
class Findings:
    """A study with at least one finished run."""

    study: Study
    data: Path | None = None
    """Folder of the cells; None looks where the runs found them."""

    @cached_property
    def runs(self) -> pd.DataFrame:
        """The rows of :func:`cnmc.analysis.results.run_table`."""
        return run_table(self.study.groups)

    @cached_property
    def bootstraps(self) -> dict[tuple[str, ...], SubjectBootstrap]:
        """The resampled subjects of each set of reported cells."""
        return {
            group.cells_key: SubjectBootstrap(group.labels, group.subjects)
            for group in self.study.groups
        }

    @cached_property
    def compared(self) -> tuple[pd.DataFrame, list[str]]:
        """All comparisons, and why others were refused."""
        return comparisons(self.study, self.bootstraps)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self.study.reference.runs[0].config.get("data") or {}

    @property
    def is_generated(self) -> bool:
        """Whether the runs were trained on generated cells."""
        return self._config.get("synthetic") is not None

    @property
    def crop(self) -> int:
        """Side of the central square that the network sees, in pixels."""
        return int(self._config.get("crop") or 300)

    @cached_property
    def cells(self) -> Manifest | str:
        """The manifest of the cells, or the reason why they are not available."""
        root = self.data or self._config.get("root")
        if root is None:
            return "the runs do not name the folder of their cells; give data.root=DIR"
        expected = self.study.reference.runs[0].info.manifest_fingerprint or ""
        try:
            manifest = load_manifest(
                Path(root),
                Path(self._config.get("work_dir") or ""),
                num_workers=min(os.cpu_count() or 1, 8),
                max_reads=MAX_READS,
            )
        except (OSError, ValueError) as error:
            return " ".join(str(error).split())
        if manifest.fingerprint == expected:
            return manifest
        return (
            f"data.root={root}: these are not the cells of the runs (fingerprint "
            f"{manifest.fingerprint[:12]}, expected {expected[:12]})"
        )


def head(group: Group) -> dict[str, Any]:
    """Return the first columns of a row: experiment, protocol and number of runs."""
    return {"experiment": group.label, "protocol": group.protocol, "n": len(group.runs)}


def moments(prefix: str, values: FloatArray | Sequence[float]) -> dict[str, float]:
    """Return mean and standard deviation (ddof 0) in percent: ``<prefix>mean``, ``<prefix>std``."""
    return {
        f"{prefix}mean": 100 * float(np.mean(values)),
        f"{prefix}std": 100 * std(np.asarray(values)),
    }


def ends(prefix: str, interval: tuple[float, float]) -> dict[str, float]:
    """Return an interval in percent: ``<prefix>low`` and ``<prefix>high``."""
    return {f"{prefix}low": 100 * interval[0], f"{prefix}high": 100 * interval[1]}


def in_percent(frame: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return a frame with some columns of fractions in percent."""
    return frame.assign(**{name: 100 * frame[name] for name in names if name in frame})


def f1_of(group: Group, *, rotations: bool = True) -> FloatArray:
    """Return the F1 of each run at its best epoch as fractions of 1, shape (R,)."""
    return decision_metrics(group.labels, group.logits if rotations else group.upright)["f1"]

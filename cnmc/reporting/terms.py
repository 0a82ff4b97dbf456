"""How metrics, groups and runs are called wherever a report shows them."""

from __future__ import annotations

import numpy as np

from cnmc.analysis.metrics import FloatArray, decision_metrics
from cnmc.analysis.results import Group
from cnmc.reporting.document import column

TITLES = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "auroc": "AUROC",
}
GROUP = (column("experiment", "experiment"), column("protocol", "protocol"))
"""The columns that say whose a row is."""

CLASSES = ("HEM", "ALL")
"""Names of the classes, by label."""


def f1_of(group: Group, *, rotations: bool = True) -> FloatArray:
    """Return the F1 of each run at its best epoch, shape (R,), as fractions of 1."""
    logits = group.logits if rotations else group.upright
    return decision_metrics(group.labels, logits)["f1"]


def best_position(group: Group) -> int:
    """Return the position of the run with the highest F1; the first of equals."""
    return int(np.argmax(f1_of(group)))


def is_generated(group: Group) -> bool:
    """Tell whether a group was trained on generated cells."""
    return (group.runs[0].config.get("data") or {}).get("synthetic") is not None

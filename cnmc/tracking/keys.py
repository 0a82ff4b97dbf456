"""The names under which W&B keeps runs, their numbers and their checkpoints.

Dashboards, sweeps, ``python -m cnmc.best`` and other people's scripts rely on them. The history of
a run has the columns of ``metrics.csv`` against :data:`EPOCH`, the run of a study
``<metric>/mean``, ``std``, ``min``, ``max``, ``ci_low`` and ``ci_high``, and the figures of the
report as ``figures/<name>``. All metrics are fractions of 1.
"""

from __future__ import annotations

EPOCH, LOSS_STEP = "epoch", "train/loss_step"
"""The loss of a step is logged against ``trainer/global_step``."""

TRAIN, STUDY = "train", "study"
"""Job types: one training, and the summary of a study."""

ORIGIN = "origin"
"""Key of the config that holds ``RunInfo.identity``, package versions and hardware."""

MODEL, BEST, LAST, BEST_OF_STUDY = "model", "best", "last", "best-of-study"
"""Type of the artifacts that hold checkpoints, and their aliases; another is ``seed-<n>``."""

CONFUSION_MATRIX, ROC, PRECISION_RECALL = "confusion_matrix", "roc", "precision_recall"
"""Charts of a run, of its best checkpoint."""

SUBJECTS, WRONG_CELLS, METRICS_TABLE = "subjects", "wrong_cells", "metrics"
"""Tables: one row a subject and one row a wrong cell of a run; one row a metric of a study."""


def best(metric: str) -> str:
    """Return the summary key of a validation metric at the best epoch: ``best/f1``."""
    return f"best/{metric}"


def test(metric: str) -> str:
    """Return the summary key of a metric on the test cells: ``test/f1``."""
    return f"test/{metric}"


def artifact_name(run_id: str) -> str:
    """Return the name of the artifact with a run's checkpoints."""
    return f"model-{run_id}"

"""The names under which W&B keeps runs, their numbers and their checkpoints.

Dashboards, sweeps, ``python -m cnmc.best`` and other people's scripts rely on them.

=================  ================================================================================
run                id: ``run_id`` of ``run.json``, or the id that a sweep's agent gives; name:
                   ``<experiment>/<name of the run folder>``; group: the experiment; job type:
                   :data:`TRAIN`; tags: protocol and network
config             the resolved configuration without folders, and :data:`ORIGIN`
history            the columns of ``metrics.csv`` against :data:`EPOCH`, 0 before training
summary            ``best/epoch``, ``best/f1`` and every other validation metric at the best epoch;
                   ``test/f1`` and the others if other cells are reported (protocol honest)
artifact           :func:`artifact_name`, of type :data:`MODEL`, with the file ``best.ckpt`` and the
                   aliases :data:`BEST` and :func:`seed_alias`; metadata: ``epoch``, ``summary``
                   and ``RunInfo.identity``, including the fingerprints
tables             of a run: :data:`SUBJECTS`, :data:`WRONG_CELLS`; charts :data:`CONFUSION_MATRIX`,
                   :data:`ROC`, :data:`PRECISION_RECALL`; of a study: :data:`METRICS_TABLE`
run of a study     job type :data:`STUDY`, one for each group of runs, with its group and tags:
                   ``n``, and of each metric ``<metric>/mean``, ``std``, ``min``, ``max``,
                   ``ci_low``, ``ci_high``; images ``figures/<name>`` of the report
=================  ================================================================================

All metrics are fractions of 1.
"""

from __future__ import annotations

EPOCH = "epoch"

LOSS_STEP = "train/loss_step"
"""Logged within an epoch, against ``trainer/global_step``."""

TRAIN, STUDY = "train", "study"
"""Job types: one training, and the summary of a study."""

ORIGIN = "origin"
"""Key of the config that holds ``RunInfo.identity``, package versions and hardware."""

BEST, LAST, BEST_OF_STUDY = "best", "last", "best-of-study"
"""Aliases of checkpoints."""

MODEL = "model"
"""Type of the artifacts that hold checkpoints."""

SUBJECTS, WRONG_CELLS = "subjects", "wrong_cells"
"""Tables of a run: one row a subject; one row a cell that the best checkpoint gets wrong."""

CONFUSION_MATRIX, ROC, PRECISION_RECALL = "confusion_matrix", "roc", "precision_recall"
"""Charts of a run, of its best checkpoint."""

METRICS_TABLE = "metrics"
"""Table of a study: one row a metric."""


def best(metric: str) -> str:
    """Return the summary key of a validation metric at the best epoch: ``best/f1``."""
    return f"best/{metric}"


def test(metric: str) -> str:
    """Return the summary key of a metric on the test cells: ``test/f1``."""
    return f"test/{metric}"


def figure(name: str) -> str:
    """Return the key of a figure of the report: ``figures/figure2``."""
    return f"figures/{name}"


def artifact_name(run_id: str) -> str:
    """Return the name of the artifact with a run's checkpoints."""
    return f"model-{run_id}"


def seed_alias(seed: int) -> str:
    """Return the alias that gives the seed of a checkpoint's run."""
    return f"seed-{seed}"

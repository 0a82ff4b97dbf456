"""The names under which W&B knows runs, their numbers and their checkpoints.

They are a contract: dashboards, sweeps, ``python -m cnmc.best`` and other people's scripts look for
them.

=================  ================================================================================
run                id: ``run_id`` of ``run.json``, or what a sweep's agent calls the run; name:
                   ``<experiment>/<name of the run folder>``; group: the experiment; job type:
                   :data:`TRAIN`; tags: protocol and network
config             the resolved configuration, and :data:`ORIGIN`: protocol, fingerprints, ...
history            the columns of ``metrics.csv`` against :data:`EPOCH`, 0 before training
summary            ``best/epoch``, ``best/f1`` and every other validation metric at the best epoch;
                   ``test/f1`` and the others, where other cells are reported (protocol honest)
artifact           :func:`artifact_name`, of type :data:`MODEL`, with the file ``best.ckpt`` and the
                   aliases :data:`BEST` and :func:`seed_alias`; metadata: ``epoch``, ``summary``
                   and ``RunInfo.identity``, fingerprints included
tables             of a run: :data:`SUBJECTS`, :data:`WRONG_CELLS`; charts :data:`CONFUSION_MATRIX`,
                   :data:`ROC`, :data:`PRECISION_RECALL`; of a study: :data:`METRICS`
a study's run      job type :data:`STUDY`, one a group of runs, whose group and tags it has: ``n``,
                   and of each metric ``<metric>/mean``, ``std``, ``min``, ``max``, ``ci_low``,
                   ``ci_high``; images ``figures/<name>`` of the report
=================  ================================================================================

All metrics are fractions of 1.
"""

from __future__ import annotations

EPOCH = "epoch"

LOSS_STEP = "train/loss_step"
"""What is logged within an epoch, against ``trainer/global_step``."""

TRAIN, STUDY = "train", "study"
"""Job types: a training, and the summary of a study."""

ORIGIN = "origin"
"""Key of the config below which stands where a run comes from: ``RunInfo.identity`` and more."""

BEST, LAST, BEST_OF_STUDY = "best", "last", "best-of-study"
"""Aliases of checkpoints."""

MODEL = "model"
"""Type of the artifacts that hold checkpoints."""

SUBJECTS, WRONG_CELLS = "subjects", "wrong_cells"
"""Tables of a run: one row a subject; one row a cell that its best checkpoint gets wrong."""

CONFUSION_MATRIX, ROC, PRECISION_RECALL = "confusion_matrix", "roc", "precision_recall"
"""Charts of a run, of its best checkpoint."""

METRICS = "metrics"
"""Table of a study: one row a metric."""


def val(metric: str) -> str:
    """Return the history's name of a validation metric: ``val/f1``."""
    return f"val/{metric}"


def learning_rate(stage: str) -> str:
    """Return the history's name of the learning rate of a stage: ``lr/head``."""
    return f"lr/{stage}"


def best(metric: str) -> str:
    """Return the summary's name of a validation metric at the best epoch: ``best/f1``."""
    return f"best/{metric}"


def test(metric: str) -> str:
    """Return the summary's name of a metric of the cells that the best checkpoint is tried on."""
    return f"test/{metric}"


def over_runs(metric: str, statistic: str) -> str:
    """Return a study's name of a statistic of a metric over its runs: ``f1/mean``."""
    return f"{metric}/{statistic}"


def figure(name: str) -> str:
    """Return a study's name of a figure of the report: ``figures/figure2``."""
    return f"figures/{name}"


def artifact_name(run_id: str) -> str:
    """Return the name of the artifacts with a run's checkpoints."""
    return f"model-{run_id}"


def seed_alias(seed: int) -> str:
    """Return the alias that tells the seed of a checkpoint's run."""
    return f"seed-{seed}"

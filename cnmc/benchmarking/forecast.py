"""Forecast the duration of the paper's study."""

from __future__ import annotations

from collections.abc import Sequence

from cnmc.benchmarking.measure import Row

NUM_RUNS, NUM_EPOCHS = 24, 6
NUM_TRAIN, NUM_EVALUATED = 10_661, 1_867
"""Cells of the training part, and of the preliminary test part (Table 1 of the paper)."""

TRAINING = "training, against the published way"
EVALUATION = "evaluation, against the published way"
"""Names of the rows that measure whole runs."""


def hours(images_per_second: float, cells_per_second: float) -> float:
    """Return the duration of the 24 runs of PROPOSAL, one after another.

    Args:
        images_per_second: Rate of training.
        cells_per_second: Rate of evaluation with eight rotations; a run evaluates once before
            training and after every epoch.
    """
    training = NUM_EPOCHS * NUM_TRAIN / images_per_second
    evaluation = (NUM_EPOCHS + 1) * NUM_EVALUATED / cells_per_second
    return NUM_RUNS * (training + evaluation) / 3600


def forecast(rows: Sequence[Row], network: str) -> str:
    """Return how long the study takes with the network that was measured, as a sentence."""
    rates = {row.name: row.ours for row in rows}
    if TRAINING not in rates or EVALUATION not in rates:
        return "The stages train and eval together forecast how long the study takes here."
    duration = hours(rates[TRAINING], rates[EVALUATION])
    return (
        f"{NUM_RUNS} runs of the study with {network} take about {duration:,.1f} hours on this "
        "machine, one after another"
    )

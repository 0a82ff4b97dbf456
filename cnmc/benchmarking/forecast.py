"""Forecast the duration of the paper's study."""

from __future__ import annotations

from collections.abc import Sequence

from cnmc.benchmarking.measure import Row

NUM_RUNS, NUM_EPOCHS = 24, 6
NUM_TRAIN, NUM_EVALUATED = 10_661, 1_867
"""Cells of the training part, and of the preliminary test part (Table 1 of the paper)."""

TRAIN_ROWS = {
    "paper": "trainer=paper, against the published way",
    "fast": "trainer=fast, against the published way",
}
EVAL_ROWS = {
    "paper": "trainer=paper, against eight bare passes",
    "fast": "trainer=fast, against those",
}
"""By preset, the rows of the stages ``train`` and ``eval`` that measure whole runs."""


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


def forecast(rows: Sequence[Row], study: str = "PROPOSAL") -> list[str]:
    """Return a line with the duration of the study for each preset that was measured.

    Args:
        rows: The measurements.
        study: Name of the network and recipe that were measured.
    """
    rates = {row.name: row.ours for row in rows}
    lines = [
        f"{study} x {NUM_RUNS} takes about {hours(rates[train], rates[evaluation]):,.1f} hours on "
        f"this machine with trainer={preset}, one run after another"
        for (preset, train), evaluation in zip(TRAIN_ROWS.items(), EVAL_ROWS.values(), strict=True)
        if train in rates and evaluation in rates
    ]
    return lines or ["The stages train and eval together forecast how long the study takes here."]

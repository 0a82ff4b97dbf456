"""What the study of the paper will take on a machine."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cnmc.benchmarking.measure import Row

NUM_RUNS, NUM_EPOCHS = 24, 6
NUM_TRAIN, NUM_EVALUATED = 10_661, 1_867
"""Cells of the training part, and of the preliminary test part (Table 1 of the paper)."""

PAPER, FAST = "trainer=paper, against the published way", "trainer=fast, against the published way"
"""Names of the rows of stage ``train`` that are rates of whole runs."""

PAPER_CELLS, FAST_CELLS = "trainer=paper, against eight bare passes", "trainer=fast, against those"
"""Names of the rows of stage ``eval`` that are rates of their evaluations."""

_AT_ONCE = re.compile(r"(\d+) runs of trainer=fast at once, against the published way")


def at_once(number: int) -> str:
    """Return the name of the row of several runs that share a device."""
    return f"{number} runs of trainer=fast at once, against the published way"


def hours(images_per_second: float, cells_per_second: float) -> float:
    """Return how long the 24 runs of PROPOSAL take one after another.

    Args:
        images_per_second: Of training.
        cells_per_second: Of evaluation, eight views a cell; once more than there are epochs.
    """
    training = NUM_EPOCHS * NUM_TRAIN / images_per_second
    evaluation = (NUM_EPOCHS + 1) * NUM_EVALUATED / cells_per_second
    return NUM_RUNS * (training + evaluation) / 3600


def forecast(rows: Sequence[Row], study: str = "PROPOSAL") -> list[str]:
    """Return what the study will take, as far as training and evaluation were measured.

    Runs that share a device are taken to gain by it in evaluation as they do in training.

    Args:
        rows: What was measured.
        study: The name of what was measured, where it is not the paper's network.
    """
    rates = {row.name: row.ours for row in rows}
    lines = []
    for preset, training, evaluation in (
        ("trainer=paper", PAPER, PAPER_CELLS),
        ("trainer=fast", FAST, FAST_CELLS),
    ):
        if training in rates and evaluation in rates:
            time = hours(rates[training], rates[evaluation])
            lines.append(_line(study, time, f"{preset}, one run after another"))
    if FAST in rates and FAST_CELLS in rates:
        for name, total in rates.items():
            if found := _AT_ONCE.fullmatch(name):
                gain = total / rates[FAST]
                time = hours(rates[FAST], rates[FAST_CELLS]) / gain
                lines.append(_line(study, time, f"trainer=fast and {found[1]} runs at once"))
    return lines or ["How long the study will take here is told by the stages train and eval."]


def _line(study: str, time: float, how: str) -> str:
    return f"{study} x {NUM_RUNS} will take about {time:,.1f} hours on this machine with {how}"

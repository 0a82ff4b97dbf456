"""What the study of the paper will take on a machine."""

from __future__ import annotations

from collections.abc import Sequence

from cnmc.benchmarking.measure import Row
from cnmc.benchmarking.stages import EIGHT, FAST, PAPER

NUM_RUNS, NUM_EPOCHS = 24, 6
NUM_TRAIN, NUM_EVALUATED = 10_661, 1_867
"""Cells of the training part, and of the preliminary test part (Table 1 of the paper)."""


def hours(images_per_second: float, cells_per_second: float) -> float:
    """Return how long the 24 runs of PROPOSAL take one after another.

    Args:
        images_per_second: Of training.
        cells_per_second: Of evaluation, eight views a cell; once more than there are epochs.
    """
    training = NUM_EPOCHS * NUM_TRAIN / images_per_second
    evaluation = (NUM_EPOCHS + 1) * NUM_EVALUATED / cells_per_second
    return NUM_RUNS * (training + evaluation) / 3600


def forecast(rows: Sequence[Row]) -> list[str]:
    """Return a line for each preset that was measured with the evaluation."""
    found = {row.name: row for row in rows}
    if EIGHT not in found:
        return []
    lines = []
    for name, preset in ((PAPER, "trainer=paper"), (FAST, "trainer=fast")):
        if name in found:
            time = hours(found[name].ours, found[EIGHT].ours)
            lines.append(
                f"PROPOSAL x {NUM_RUNS} will take about {time:,.1f} hours on this machine with "
                f"{preset}, one run after another"
            )
    return lines

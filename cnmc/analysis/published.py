"""What Prellberg & Kramer (2019) published, for comparison. In % where the paper has %."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Minimum, mean, standard deviation (ddof 0) and maximum over 24 runs; NaN: not published."""

    mean: float
    std: float
    min: float = float("nan")
    max: float = float("nan")


NUM_SEEDS = 24

TABLE2 = {
    "accuracy": Spread(87.96, 0.90, 86.40, 89.88),
    "sensitivity": Spread(92.01, 1.44, 88.43, 94.50),
    "specificity": Spread(80.36, 2.39, 75.31, 84.72),
    "f1": Spread(87.89, 0.90, 86.28, 89.81),
    "precision": Spread(87.91, 0.90, 86.27, 89.81),
    "recall": Spread(87.96, 0.90, 86.40, 89.88),
}
"""Table 2: the best epoch of each run of PROPOSAL on the preliminary test set."""

ABLATIONS = {"norot": Spread(86.92, 0.81), "nospeclr": Spread(87.20, 0.70)}
"""F1 of the ablations (section 4.4)."""

P_VALUES = {"norot": "< 0.001", "nospeclr": "< 0.002"}
"""One-sided Mann-Whitney U tests against PROPOSAL (section 4.4)."""

CURVE_F1 = (0.1789, 0.7860, 0.8916, 0.8978, 0.8857, 0.8981, 0.8874)
"""F1 of the best run by epoch, 0 to 6, as a fraction (the authors' code; Figure 2)."""

FINAL_F1 = 88.91
"""F1 of the best run on the final test set (section 4.3)."""

SUBJECT_ACCURACY = {
    "53": 0.925,
    "54": 0.991,
    "55": 0.979,
    "57": 0.996,
    "58": 0.833,
    "59": 0.833,
    "60": 0.833,
    "61": 0.714,
    "62": 1.0,
    "63": 0.855,
    "64": 0.768,
    "65": 0.986,
    "66": 0.963,
    "H25": 0.263,
    "H26": 0.6,
    "H27": 0.769,
    "H28": 0.556,
    "H29": 0.5,
    "H30": 0.829,
    "H31": 0.792,
    "H32": 0.907,
    "H33": 0.6,
    "H34": 0.8,
    "H35": 0.710,
    "H36": 0.745,
    "H39": 0.964,
    "H49": 0.901,
    "H50": 0.724,
}
"""Share of right cells by subject of the preliminary test set after the best run's last epoch (the
authors' code; Figure 3)."""


def published(experiment: str, protocol: str, metric: str) -> Spread | None:
    """Return what the paper has of a metric of an experiment; None where it has nothing.

    All of it is of the protocol ``paper``.
    """
    if protocol != "paper":
        return None
    if experiment == "proposal":
        return TABLE2.get(metric)
    return ABLATIONS.get(experiment) if metric == "f1" else None

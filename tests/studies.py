"""Run folders of made-up studies, whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnmc.analysis.metrics import evaluate, mean_logits
from cnmc.runs.folder import RunFolder, RunInfo, logit_column
from cnmc.runs.identity import config_hash

CONFIG: dict[str, Any] = {
    "experiment": "proposal",
    "seed": 0,
    "data": {"root": "nowhere", "work_dir": "nowhere", "crop": 300, "synthetic": None},
    "split": {"kind": "official"},
    "optimizer": {"lr": 1e-4},
    "tta": {"num_rotations": 8},
}


@dataclass
class Subjects:
    """Names and numbers of cells of the subjects of a part."""

    all: dict[str, int] = field(default_factory=lambda: {"53": 9, "54": 6, "55": 7, "57": 8})
    hem: dict[str, int] = field(default_factory=lambda: {"H25": 5, "H26": 8, "H27": 6, "H28": 4})

    def cells(self, part: str = "prelim") -> pd.DataFrame:
        """Return cell_id, subject and label of each cell."""
        rows = [
            (f"{part}/UID_{subject}_{number}_{label}", subject, label)
            for label, members in ((1, self.all), (0, self.hem))
            for subject, size in members.items()
            for number in range(size)
        ]
        return pd.DataFrame(rows, columns=["cell_id", "subject", "label"])


def draw_logits(
    cells: pd.DataFrame,
    rng: np.random.Generator,
    *,
    signal: float,
    subject_std: float = 0.6,
    seed_std: float = 0.2,
    num_views: int = 8,
    truth: int = 7,
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw the logits of one run and epoch, shape (N, V).

    Effects of subjects and cells are the same for each run of a ``truth``; those of the run are its
    own, and each view has some noise.
    """
    shared = np.random.default_rng(truth)
    names, numbers = np.unique(cells["subject"], return_inverse=True)
    person = shared.normal(0, subject_std, len(names))[numbers]
    cell = shared.normal(0, 0.8, len(cells))
    sign = 2 * cells["label"].to_numpy() - 1
    own = rng.normal(0, seed_std) + rng.normal(0, 0.4, len(cells))
    views = rng.normal(0, 0.7, (len(cells), num_views))
    logits: np.ndarray[Any, np.dtype[np.float32]] = (
        (sign * signal + person + cell + own)[:, None] + views
    ).astype(np.float32)
    return logits


def write_run(
    root: Path,
    experiment: str,
    seed: int,
    *,
    signal: float = 1.0,
    subjects: Subjects | None = None,
    num_epochs: int = 3,
    num_views: int = 8,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> RunFolder:
    """Write a finished run whose classes are ``2 * signal`` apart in its last epoch.

    An ``honest`` run has cells of role ``val`` at every epoch and ``test`` at the best one.
    """
    honest = changes.get("protocol") == "honest"
    reported = (subjects or Subjects()).cells()
    choosing = Subjects({"1": 12, "2": 9}, {"H1": 8, "H2": 7}).cells("train")
    rng = np.random.default_rng([seed, *experiment.encode()])
    columns = [logit_column(position * (8 // num_views)) for position in range(num_views)]
    parts, metrics = [], []
    for epoch in range(num_epochs + 1):
        strength = signal * (0.0 if epoch == 0 else 0.7 + 0.3 * epoch / num_epochs)
        cells = choosing if honest else reported
        logits = draw_logits(cells, rng, signal=strength, num_views=num_views)
        table = cells.assign(**dict(zip(columns, logits.T, strict=True)))
        parts.append(table.assign(epoch=epoch, role="val"))
        scores = evaluate(table["label"].to_numpy(), mean_logits(table))
        metrics.append(
            {
                "epoch": epoch,
                "train/loss": 0.7 / (epoch + 1) if epoch else np.nan,
                **{f"val/{name}": value for name, value in scores.items()},
                "val/loss": 0.8 / (epoch + 1),
                "seconds": 60.0,
            }
        )
    course = pd.DataFrame(metrics)
    best = 1 + int(course["val/f1"][1:].argmax())
    if honest:
        logits = draw_logits(reported, rng, signal=signal, num_views=num_views)
        table = reported.assign(**dict(zip(columns, logits.T, strict=True)))
        parts.append(table.assign(epoch=best, role="test"))
    predictions = pd.concat(parts, ignore_index=True).astype({"label": "int8"})
    folder = RunFolder(root / experiment / f"seed={seed}")
    whole = {**CONFIG, **(config or {}), "experiment": experiment, "seed": seed}
    values: dict[str, Any] = {
        "status": "finished",
        "experiment": experiment,
        "name": folder.path.name,
        "seed": seed,
        "protocol": "paper",
        "config_hash": config_hash(whole),
        "manifest_fingerprint": "a" * 64,
        "split_fingerprint": ("c" if honest else "b") * 64,
        "started": "2026-01-01T00:00:00+00:00",
        "best_epoch": best,
        "best_f1": float(course["val/f1"].iloc[best]),
        "epochs_done": num_epochs,
        "max_epochs": num_epochs,
        "seconds": 60.0 * num_epochs,
    }
    folder.write_info(RunInfo(**{**values, **changes}))
    folder.write_config(whole)
    folder.add_predictions(predictions[["epoch", "role", "cell_id", "subject", "label", *columns]])
    folder._write_metrics(course)
    return folder

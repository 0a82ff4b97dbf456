"""Stores the logits and metrics of every epoch in the run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor

from cnmc.analysis.metrics import evaluate, mean_logits
from cnmc.model.tta import rotation_columns
from cnmc.runs.folder import F1, F1_NOROT, RunFolder, RunInfo, logit_column


class RunRecorder(pl.Callback):
    """Store logits and metrics after every evaluation, and log the metrics.

    Epoch 0 is the network before training, as in the paper's figures.

    Args:
        folder: The run folder.
        info: The run's identity and progress; the progress is stored after every epoch.
        cells: By role (``val``, ``test``): cell_id, subject, label in the order of evaluation.
        num_rotations: Number of logits of an evaluated cell.
    """

    def __init__(
        self, folder: RunFolder, info: RunInfo, cells: dict[str, pd.DataFrame], num_rotations: int
    ) -> None:
        self.folder = folder
        self.info = info
        self.cells = cells
        self.columns = [logit_column(eighths) for eighths in rotation_columns(num_rotations)]
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._rates: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._clock = time.monotonic()
        self.last_f1: tuple[float | None, float | None] = (None, None)
        """F1 of the last stored epoch, with all rotations and without."""

    def on_train_epoch_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Keep the learning rates of this epoch, which the scheduler changes before it ends."""
        self._rates = {
            f"lr/{group['name']}": float(group["lr"])
            for group in trainer.optimizers[0].param_groups
        }

    def on_validation_batch_end(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Collect the logits of a batch."""
        self._batches.append((batch.positions.cpu(), outputs.cpu()))

    def on_test_batch_end(self, *args: Any) -> None:
        """Collect the logits of a batch."""
        self.on_validation_batch_end(*args)

    def on_validation_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Store the logits of this epoch."""
        self._store_logits("val", _epoch(trainer))

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Store the metrics of the network before training."""
        if _epoch(trainer) == 0:
            self._store_metrics(trainer, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Store the metrics of this epoch."""
        self._store_metrics(trainer, _epoch(trainer))

    def on_test_epoch_end(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Store the logits of the test cells under the chosen epoch."""
        best = self.folder.best_epoch()
        self._store_logits("test", best[0] if best else self.info.epochs_done)

    def _store_logits(self, role: str, epoch: int) -> None:
        batches, self._batches = self._batches, []
        index = torch.cat([index for index, _ in batches]).numpy()
        logits = torch.cat([logits for _, logits in batches]).numpy()
        table = self.cells[role].iloc[index].reset_index(drop=True)
        table.insert(0, "epoch", epoch)
        table.insert(1, "role", role)
        table["label"] = table["label"].astype("int8")
        for position, column in enumerate(self.columns):
            table[column] = logits[:, position]
        if role == "val":
            self._scores = evaluate(table["label"].to_numpy(), mean_logits(table))
        self.folder.add_predictions(table)

    def _store_metrics(self, trainer: pl.Trainer, epoch: int) -> None:
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        # Lightning keeps float32, which hold seven digits.
        logged = {name: float(f"{value:.7g}") for name, value in trainer.callback_metrics.items()}
        row: dict[str, float] = {"epoch": epoch}
        row["train/loss"] = logged.get("train/loss", float("nan")) if epoch else float("nan")
        row |= {name: value for name, value in logged.items() if name.startswith("val/")}
        # The classifier logs the paper's metrics; any other comes from the stored logits.
        for name, value in self._scores.items():
            row.setdefault(f"val/{name}", value)
        # There are no rates before training, but every row has the same columns.
        row |= self._rates or {f"lr/{g}": float("nan") for g in _group_names(trainer)}
        row["seconds"] = round(seconds, 3)
        self.folder.add_metrics(row)
        self.last_f1 = (row.get(F1), row.get(F1_NOROT))
        self.info.epochs_done = epoch
        self.info.seconds = round(self.info.seconds + seconds, 3)
        best = self.folder.best_epoch()
        if best is not None:
            self.info.best_epoch, self.info.best_f1 = best
        self.folder.write_info(self.info)
        for logger in trainer.loggers:
            logger.log_metrics(defined(row), step=trainer.global_step)


def defined(row: Mapping[Any, float]) -> dict[str, float]:
    """Return a row of ``metrics.csv`` without undefined values."""
    return {str(name): value for name, value in row.items() if not math.isnan(value)}


def _epoch(trainer: pl.Trainer) -> int:
    """Return the epoch that was just finished, 0 before training."""
    return trainer.current_epoch + 1 if trainer.state.fn == "fit" else 0


def _group_names(trainer: pl.Trainer) -> list[str]:
    groups = getattr(trainer.lightning_module, "groups", [])
    return [str(group["name"]) for group in groups]

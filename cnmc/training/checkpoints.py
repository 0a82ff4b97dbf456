"""Writes the best and the last checkpoint of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from cnmc.analysis.calibration import choose_of_epoch
from cnmc.files import replacing
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import without_folders


def strip_optimizer(path: Path) -> None:
    """Remove the state of optimizer and trainer from a checkpoint, two thirds of its size."""
    if load_checkpoint(path, lazy=True).keys() != {"state_dict", "cnmc"}:
        checkpoint = load_checkpoint(path)
        _save_network(path, checkpoint["state_dict"], checkpoint["cnmc"])


def _save_network(path: Path, state_dict: dict[str, Any], origin: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        torch.save({"state_dict": state_dict, "cnmc": origin}, temporary)


class EpochCheckpoints(pl.callbacks.Checkpoint):
    """Write ``last.ckpt`` after every epoch, and ``best.ckpt`` if its F1 is the highest so far.

    ``last.ckpt`` is written first. If the process dies between the two, :meth:`on_fit_start` of the
    resumed run writes ``best.ckpt`` from the weights of ``last.ckpt``. Lightning's own
    ``ModelCheckpoint`` would keep the best score inside the checkpoint; here the metrics of the run
    folder decide, which the analysis reads too.

    Args:
        folder: The run folder.
        info: The run's progress, which the recorder updates; the recorder must come first.
        config: The resolved configuration, which is stored in the checkpoints.
    """

    def __init__(self, folder: RunFolder, info: RunInfo, config: dict[str, Any]) -> None:
        self.folder = folder
        self.info = info
        self.config = without_folders(config)

    def on_save_checkpoint(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add configuration, run and epoch."""
        checkpoint["cnmc"] = self._origin()

    def on_fit_start(self, _trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write a best checkpoint that a killed process did not write."""
        if self.info.epochs_done > 0:
            self._save_if_best(module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write the checkpoints of this epoch."""
        with replacing(self.folder.last_checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        self._save_if_best(module)

    def _save_if_best(self, module: pl.LightningModule) -> None:
        if self.info.best_epoch == self.info.epochs_done:
            decision = choose_of_epoch(self.folder.read_predictions(), self.info.epochs_done)
            origin = self._origin() | {"decision": asdict(decision)}
            _save_network(self.folder.best_checkpoint, module.state_dict(), origin)

    def _origin(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "run": self.info.identity(),
            "epoch": self.info.epochs_done,
        }

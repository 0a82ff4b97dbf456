"""Keeps the best network and what a run needs to go on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from cnmc.analysis.choosing import choose_of_epoch
from cnmc.files import replacing
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import without_folders


def strip_optimizer(path: Path) -> None:
    """Leave the network and where it comes from in a finished run's checkpoint: a third of it."""
    if load_checkpoint(path, lazy=True).keys() != {"state_dict", "cnmc"}:
        checkpoint = load_checkpoint(path)
        _save_network(path, checkpoint["state_dict"], checkpoint["cnmc"])


def _save_network(path: Path, state_dict: dict[str, Any], origin: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        torch.save({"state_dict": state_dict, "cnmc": origin}, temporary)


class EpochCheckpoints(pl.callbacks.Checkpoint):
    """Writes ``last.ckpt`` after every epoch and ``best.ckpt`` when F1 is the highest so far.

    ``best.ckpt`` also holds the temperature and thresholds that the epoch's predictions choose.

    ``last.ckpt`` is written first. A process that dies between the two leaves a run whose best
    network is the one in ``last.ckpt``, from which :meth:`on_fit_start` makes ``best.ckpt`` when
    the run is resumed; so the pair can never lose the best network.

    Lightning's own ``ModelCheckpoint`` keeps the score of the best in its state inside a
    checkpoint; here the run folder's metrics decide, which also the analysis reads.

    Args:
        folder: The run folder.
        info: The run's identity and progress; the recorder, which must come first, keeps it.
        config: The resolved configuration. Checkpoints hold it without the folders of this machine.
    """

    def __init__(self, folder: RunFolder, info: RunInfo, config: dict[str, Any]) -> None:
        self.folder = folder
        self.info = info
        self.config = without_folders(config)

    def on_save_checkpoint(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add where the network comes from, and the epoch as the run folder counts it."""
        checkpoint["cnmc"] = self._origin()

    def on_fit_start(self, _trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Make up for a best network that was not written before the process died.

        The weights of ``last.ckpt`` are loaded by now, also where no epoch is left to train.
        """
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

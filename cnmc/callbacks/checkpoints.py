"""Keeps the best network and what a run needs to go on."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch

from cnmc.errors import CnmcError
from cnmc.runs import RunFolder, replacing


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        CnmcError: The file is missing, truncated, or holds more than tensors and plain values.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if "cnmc" not in checkpoint:
            raise ValueError("it has no cnmc metadata")
    except (OSError, RuntimeError, ValueError, EOFError, TypeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CnmcError(f"{path} is no checkpoint of cnmc: {reason}") from error
    return checkpoint


def strip_optimizer(path: Path) -> None:
    """Leave a finished run's network and metadata in a checkpoint: a third of its size."""
    checkpoint = load_checkpoint(path)
    if not checkpoint.get("optimizer_states"):
        return
    for key in ("optimizer_states", "lr_schedulers", "loops", "callbacks"):
        checkpoint.pop(key, None)
    with replacing(path) as temporary:
        torch.save(checkpoint, temporary)


class EpochCheckpoints(pl.callbacks.Checkpoint):
    """Writes ``last.ckpt`` after every epoch and ``best.ckpt`` when F1 is the highest so far.

    ``last.ckpt`` is written first. A process that dies between the two leaves a run whose best
    network is the one in ``last.ckpt``, from which :meth:`on_train_start` makes ``best.ckpt`` when
    the run is resumed; so the pair can never lose the best network.

    Lightning's own ``ModelCheckpoint`` keeps the score of the best in its state inside a
    checkpoint; here the run folder's metrics decide, which also the analysis reads.

    Args:
        folder: The run folder; its metrics of the epoch must have been stored before.
        metadata: Plain values that make a checkpoint speak for itself, stored under ``cnmc``.
    """

    def __init__(self, folder: RunFolder, metadata: dict[str, Any]) -> None:
        self.folder = folder
        self.metadata = metadata

    def on_save_checkpoint(
        self, trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metadata and the epoch as the run folder counts it."""
        checkpoint["cnmc"] = {**self.metadata, "epoch": _epochs_done(trainer)}

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Make up for a best network that was not written before the process died."""
        epoch = trainer.current_epoch
        best = self.folder.best_epoch()
        if epoch > 0 and best is not None and best[0] == epoch:
            self._save(trainer, self.folder.best_checkpoint, weights_only=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Write the checkpoints of this epoch."""
        self._save(trainer, self.folder.last_checkpoint, weights_only=False)
        best = self.folder.best_epoch()
        if best is not None and best[0] == _epochs_done(trainer):
            self._save(trainer, self.folder.best_checkpoint, weights_only=True)

    @staticmethod
    def _save(trainer: pl.Trainer, path: Path, *, weights_only: bool) -> None:
        with replacing(path) as temporary:
            trainer.save_checkpoint(temporary, weights_only=weights_only)


def _epochs_done(trainer: pl.Trainer) -> int:
    return trainer.fit_loop.epoch_progress.current.processed

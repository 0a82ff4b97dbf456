"""Progress on a terminal, and where there is none to draw a bar on."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

from cnmc.callbacks.recorder import RunRecorder


class BarProgress(TQDMProgressBar):
    """A bar with loss, F1 and the time left; a line stays when an epoch is done.

    Args:
        recorder: Knows the metrics of the last epoch; must come before this in the trainer's list.
    """

    def __init__(self, recorder: RunRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Name the run, and count epochs as everything else here does."""
        super().on_train_epoch_start(trainer)
        info = self.recorder.info
        self.train_progress_bar.set_description(
            f"{info.experiment}/{info.name} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the metrics of the epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        self.print(self.recorder.progress_line(int(trainer.max_epochs or 0)))


class SparseProgress(pl.Callback):
    """Prints one line an epoch, and one a minute within it, with the time that is left.

    Args:
        recorder: Knows the metrics of the last epoch; must come before this in the trainer's list.
        every: Seconds between two lines within an epoch.
    """

    def __init__(self, recorder: RunRecorder, every: float = 60.0) -> None:
        self.recorder = recorder
        self.every = every
        self._start = self._last = time.monotonic()
        self._first_step = 0

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = self._last = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Print a line when the last one is old."""
        batches = int(trainer.num_training_batches)
        if self._is_due():
            self._print(
                f"epoch {trainer.current_epoch + 1} "
                f"batch {trainer.global_step % batches or batches}/{batches}  "
                f"loss {float(outputs['loss']):.4f}  {self._left(trainer)}"
            )

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        _module: pl.LightningModule,
        _outputs: Any,
        _batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Print a line when the last one is old."""
        if self._is_due():
            self._print(f"evaluated batch {batch_idx + 1}/{int(trainer.num_val_batches[0])}")

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Print the metrics of the network before training."""
        if trainer.state.fn != "fit":
            print(self.recorder.progress_line(int(trainer.max_epochs or 0)), flush=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Print the metrics of the epoch."""
        self._last = time.monotonic()
        line = self.recorder.progress_line(int(trainer.max_epochs or 0))
        print(f"{line}  {self._left(trainer)}", flush=True)

    def _is_due(self) -> bool:
        if time.monotonic() - self._last < self.every:
            return False
        self._last = time.monotonic()
        return True

    def _print(self, text: str) -> None:
        print(f"{self.recorder.info.experiment}/{self.recorder.info.name} {text}", flush=True)

    def _left(self, trainer: pl.Trainer) -> str:
        done = trainer.global_step - self._first_step
        remaining = int(trainer.estimated_stepping_batches) - trainer.global_step
        seconds = round((time.monotonic() - self._start) / max(done, 1) * remaining)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

"""How far a run is: a bar on a terminal, and states to print or hand on where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

from cnmc.training.recorder import RunRecorder

SECONDS_BETWEEN_LINES = 60.0
"""Within an epoch, where there is no terminal: a line each so often, so that logs stay short."""

_SECONDS_BETWEEN_LOSSES = 0.5
"""On a terminal."""


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass(frozen=True)
class RunProgress:
    """How far a run is at one moment."""

    name: str
    """Experiment and name of the run folder."""
    epoch: int
    """The last epoch that was evaluated; 0 is the network before training."""
    max_epochs: int
    share: float
    """Share of the run that is done, 0 to 1, by the number of images that pass the network."""
    f1: float | None = None
    """F1 of ``epoch``, with all rotations, as a fraction of 1."""
    f1_norot: float | None = None
    """The same, in the original orientation alone."""
    best_f1: float | None = None
    """The highest F1 of epochs 1 to ``epoch``."""
    seconds_left: float | None = None
    doing: str | None = None
    """What is done within the next epoch; None where ``epoch`` was just evaluated."""

    def line(self) -> str:
        """Return all of it in one line."""
        parts = [f"{self.name} epoch {self.epoch}/{self.max_epochs}"]
        if self.f1 is not None:
            parts += [f"F1 {100 * self.f1:.2f}"]
        if self.f1_norot is not None and self.doing is None:
            parts += [f"without rotations {100 * self.f1_norot:.2f}"]
        if self.best_f1 is not None:
            parts += [f"best {100 * self.best_f1:.2f}"]
        if self.doing is not None:
            parts += [self.doing]
        if self.seconds_left is not None:
            parts += [f"{clock(self.seconds_left)} left"]
        return "  ".join(parts)


Tell = Callable[[RunProgress], None]
"""What a run tells its progress to."""


class BarProgress(TQDMProgressBar):
    """A bar with loss, F1 and the time left; a line stays when an epoch is done.

    Args:
        recorder: Knows the metrics of the last epoch; must come before this in the trainer's list.
    """

    def __init__(self, recorder: RunRecorder) -> None:
        super().__init__()
        self.recorder = recorder
        self._shown = 0.0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Show the batch, but not every one of many: a GPU is waited for to tell the loss."""
        last = batch_idx + 1 == trainer.num_training_batches
        if last or time.monotonic() - self._shown >= _SECONDS_BETWEEN_LOSSES:
            self._shown = time.monotonic()
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Name the run, and count epochs as everything else here does."""
        super().on_train_epoch_start(trainer)
        info = self.recorder.info
        self.train_progress_bar.set_description(
            f"{info.label} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the metrics of the epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        self.print(_progress(self.recorder, trainer, share=0.0).line())


class StateProgress(pl.Callback):
    """Tells how far the run is after every epoch, and now and then within it.

    Args:
        recorder: Knows the metrics of the last epoch; must come before this in the trainer's list.
        tell: Called with the state.
        every: Seconds between two states within an epoch.
    """

    def __init__(
        self,
        recorder: RunRecorder,
        tell: Tell,
        every: float = SECONDS_BETWEEN_LINES,
    ) -> None:
        self.recorder = recorder
        self.tell = tell
        self.every = every
        self._start = self._last = time.monotonic()
        self._first_share: float | None = None

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = time.monotonic()
        self._first_share = trainer.current_epoch / max(int(trainer.max_epochs or 0), 1)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        _module: pl.LightningModule,
        outputs: Any,
        _batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell the state when the last one is old."""
        if self._is_due():
            batches = int(trainer.num_training_batches)
            doing = f"training batch {batch_idx + 1}/{batches} loss {float(outputs['loss']):.4f}"
            self._tell(trainer, batch_idx + 1, doing)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        _module: pl.LightningModule,
        _outputs: Any,
        _batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Tell the state when the last one is old."""
        if self._is_due():
            doing = f"evaluated batch {batch_idx + 1}/{_num_val_batches(trainer)}"
            # Before training their number is not known yet.
            trained = int(trainer.num_training_batches) if trainer.state.fn == "fit" else 0
            self._tell(trainer, trained, doing, batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Tell the metrics of the network before training."""
        if trainer.state.fn != "fit":
            self._tell(trainer, 0, None)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Tell the metrics of the epoch."""
        self._last = time.monotonic()
        self._tell(trainer, int(trainer.num_training_batches), None, _num_val_batches(trainer))

    def _is_due(self) -> bool:
        if time.monotonic() - self._last < self.every:
            return False
        self._last = time.monotonic()
        return True

    def _tell(
        self, trainer: pl.Trainer, trained: int, doing: str | None, evaluated: int = 0
    ) -> None:
        """Tell the state after so many training and evaluation batches of the current epoch."""
        share, left = 0.0, None
        if trainer.state.fn == "fit" and self._first_share is not None:
            whole = self._images(trainer, int(trainer.num_training_batches), 0)
            whole += self._images(trainer, 0, _num_val_batches(trainer))
            of_epoch = self._images(trainer, trained, evaluated) / whole
            share = (trainer.current_epoch + of_epoch) / max(int(trainer.max_epochs or 0), 1)
            done = max(share - self._first_share, 1e-9)
            left = (time.monotonic() - self._start) / done * max(1.0 - share, 0.0)
        self.tell(_progress(self.recorder, trainer, share=share, left=left, doing=doing))

    def _images(self, trainer: pl.Trainer, trained: int, evaluated: int) -> float:
        """Return the number of images that pass the network in so many batches.

        A training image counts three times, since it also passes backwards.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        views = len(self.recorder.columns)
        return float(3 * data.batch_size * trained + views * data.eval_batch_size * evaluated)


def _num_val_batches(trainer: pl.Trainer) -> int:
    return int(sum(trainer.num_val_batches))


def _progress(
    recorder: RunRecorder,
    trainer: pl.Trainer,
    *,
    share: float,
    left: float | None = None,
    doing: str | None = None,
) -> RunProgress:
    f1, f1_norot = recorder.last_f1
    return RunProgress(
        name=recorder.info.label,
        epoch=recorder.info.epochs_done,
        max_epochs=int(trainer.max_epochs or 0),
        share=share,
        f1=f1,
        f1_norot=f1_norot,
        best_f1=recorder.info.best_f1,
        seconds_left=left,
        doing=doing,
    )

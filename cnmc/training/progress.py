"""Progress of runs: measured by a callback, shown as bars on a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cnmc.training.recorder import RunRecorder

SECONDS_BETWEEN_LINES = 60.0
"""How often a line is printed within an epoch where there is no terminal."""

_SECONDS_BETWEEN_REPORTS = 1.0
"""How often a run reports its progress within an epoch; each report waits for the GPU."""


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run at one moment."""

    name: str
    """Experiment and name of the run folder."""
    epoch: int
    """The last evaluated epoch; 0 is the network before training."""
    max_epochs: int
    share: float
    """Finished share of the run, 0 to 1, measured in images that pass the network."""
    f1: float | None = None
    """F1 of ``epoch`` with all rotations, 0 to 1."""
    f1_norot: float | None = None
    """F1 of ``epoch`` in the original orientation, 0 to 1."""
    best_f1: float | None = None
    """The highest F1 of epochs 1 to ``epoch``."""
    seconds_left: float | None = None
    doing: str | None = None
    """The current batch; None if ``epoch`` was just evaluated."""

    def line(self) -> str:
        """Return all fields as one line."""
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


Report = Callable[[RunProgress], None]
"""A function that receives the progress of a run."""


class RunDisplay:
    """Shows the progress of runs on standard output.

    On a terminal each run has a bar. Elsewhere there is a line for each epoch, and one a minute
    within an epoch.

    Args:
        console: Where to print.
        epoch_lines: Print the line of an epoch on a terminal too.
    """

    def __init__(self, console: Console | None = None, *, epoch_lines: bool = False) -> None:
        self.console = console or Console(highlight=False)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[line]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._epoch_lines = epoch_lines or not self.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, tuple[int, float]] = {}

    def __enter__(self) -> None:
        """Allow bars."""

    def __exit__(self, *_: object) -> None:
        """Remove the bars."""
        self.bars.stop()

    def print(self, line: str) -> None:
        """Print a line above the bars."""
        self.console.print(line, markup=False, soft_wrap=True)

    def show_bar(self, title: str, share: float, line: str) -> None:
        """Show a bar, or move the one with this title."""
        if title not in self._tasks:
            self.bars.start()
            self._tasks[title] = self.bars.add_task(title, total=1.0, line="")
        self.bars.update(self._tasks[title], completed=share, line=line)

    def remove_bar(self, title: str) -> None:
        """Remove the bar with this title, if there is one."""
        if title in self._tasks:
            self.bars.remove_task(self._tasks.pop(title))

    def update(self, progress: RunProgress, title: str = "", note: str = "") -> None:
        """Show the progress of a run.

        Args:
            progress: The progress.
            title: Words before it, if there are several runs.
            note: Words after it on a printed line.
        """
        self.show_bar(title, progress.share, progress.line())
        epoch, when = self._printed.get(title, (-1, time.monotonic()))
        evaluated = progress.f1 is not None and progress.epoch != epoch
        waited = time.monotonic() - when >= SECONDS_BETWEEN_LINES
        if self._epoch_lines and (evaluated or (waited and not self.console.is_terminal)):
            epoch = progress.epoch if progress.f1 is not None else epoch
            self._printed[title] = (epoch, time.monotonic())
            self.print("  ".join(filter(None, [title, progress.line()])) + note)
        else:
            self._printed.setdefault(title, (epoch, when))


class ProgressReporter(pl.Callback):
    """Reports the progress of a run after every epoch, and regularly within it.

    Args:
        recorder: Knows the metrics of the last epoch; must come before this in the trainer's list.
        report: Receives the progress.
    """

    def __init__(self, recorder: RunRecorder, report: Report) -> None:
        self.recorder = recorder
        self.report = report
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
        """Report a batch if the last report is old."""
        if self._is_due():
            batches = int(trainer.num_training_batches)
            doing = f"training batch {batch_idx + 1}/{batches} loss {float(outputs['loss']):.4f}"
            self._report(trainer, batch_idx + 1, doing)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, _module: Any, _outputs: Any, _batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Report a batch if the last report is old."""
        if self._is_due():
            doing = f"evaluated batch {batch_idx + 1}/{_num_val_batches(trainer)}"
            # Their number is not known before training.
            trained = int(trainer.num_training_batches) if trainer.state.fn == "fit" else 0
            self._report(trainer, trained, doing, batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Report the metrics of the network before training."""
        if trainer.state.fn != "fit":
            self._report(trainer, 0, None)

    def on_train_epoch_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Report the metrics of the epoch."""
        self._report(trainer, int(trainer.num_training_batches), None, _num_val_batches(trainer))

    def _is_due(self) -> bool:
        return time.monotonic() - self._last >= _SECONDS_BETWEEN_REPORTS

    def _report(
        self, trainer: pl.Trainer, trained: int, doing: str | None, evaluated: int = 0
    ) -> None:
        """Report after so many training and evaluation batches of the current epoch."""
        self._last = time.monotonic()
        max_epochs = max(int(trainer.max_epochs or 0), 1)
        share, left = 0.0, None
        if trainer.state.fn == "fit" and self._first_share is not None:
            whole = self._images(trainer, int(trainer.num_training_batches), 0)
            whole += self._images(trainer, 0, _num_val_batches(trainer))
            of_epoch = self._images(trainer, trained, evaluated) / whole
            share = (trainer.current_epoch + of_epoch) / max_epochs
            done = max(share - self._first_share, 1e-9)
            left = (time.monotonic() - self._start) / done * max(1.0 - share, 0.0)
        info, (f1, f1_norot) = self.recorder.info, self.recorder.last_f1
        progress = RunProgress(
            name=info.label,
            epoch=info.epochs_done,
            max_epochs=max_epochs,
            share=share,
            f1=f1,
            f1_norot=f1_norot,
            best_f1=info.best_f1,
            seconds_left=left,
            doing=doing,
        )
        self.report(progress)

    def _images(self, trainer: pl.Trainer, trained: int, evaluated: int) -> float:
        """Return the images in so many batches; a training image counts three times."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        views = len(self.recorder.columns)
        return float(3 * data.batch_size * trained + views * data.eval_batch_size * evaluated)


def _num_val_batches(trainer: pl.Trainer) -> int:
    return int(sum(trainer.num_val_batches))

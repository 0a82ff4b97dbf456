"""Writes the run folder during training, and reports the progress of the run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from cnmc.analysis.calibration import choose_of_epoch
from cnmc.analysis.metrics import evaluate, mean_logits
from cnmc.errors import CnmcError
from cnmc.files import replacing
from cnmc.model.checkpoint import load_checkpoint
from cnmc.model.tta import rotation_columns
from cnmc.runs.folder import F1, F1_NOROT, RunFolder, RunInfo, logit_column
from cnmc.runs.identity import without_folders
from cnmc.signals import TERMINATED, end_if_received
from cnmc.training.progress import Report, RunProgress

_SECONDS_BETWEEN_REPORTS = 1.0
"""How often a run reports its progress within an epoch; each report waits for the GPU."""


class RunRecorder(pl.Callback):
    """Store the results of every evaluation in the run folder, and log the metrics.

    Epoch 0 is the network before training, as in the paper's figures. ``last.ckpt`` is written
    after every epoch, then ``best.ckpt`` if the F1 in ``metrics.csv`` is the highest so far. If the
    process dies between the two, the resumed run writes ``best.ckpt`` from ``last.ckpt``.

    ``cells`` has the cell_id, subject and label of the cells of each role (``val``, ``test``), in
    the order of evaluation, and an evaluated cell has ``num_rotations`` logits. ``report`` receives
    the progress after every epoch, and every second within it.
    """

    def __init__(
        self,
        folder: RunFolder,
        info: RunInfo,
        config: Mapping[str, Any],
        cells: dict[str, pd.DataFrame],
        *,
        num_rotations: int,
        report: Report | None,
    ) -> None:
        self.folder = folder
        self.info = info
        self.config = without_folders(config)
        self.cells = cells
        self.columns = [logit_column(eighths) for eighths in rotation_columns(num_rotations)]
        self.report = report
        self._f1: tuple[float | None, float | None] = (None, None)
        self._error: BaseException | None = None
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._rates: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._clock = self._start = self._reported = time.monotonic()
        self._first_share = 0.0

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Raise the exception of a signal again, which a library may have lost."""
        end_if_received()

    on_validation_batch_start = on_test_batch_start = on_train_batch_start

    def on_exception(self, _trainer: Any, _module: Any, exception: BaseException) -> None:
        """Keep the error that ends the training."""
        self._error = exception

    @contextmanager
    def first_error(self) -> Iterator[None]:
        """Raise the error that ended the training, not one of Lightning's clean-up after it."""
        try:
            yield
        except SIGTERMException:
            # Lightning stops between two batches and would end with status 0.
            sys.exit(TERMINATED)
        except Exception as error:
            if isinstance(self._error, Exception) and self._error is not error:
                raise self._error from None
            raise

    def on_fit_start(self, _trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Write a best checkpoint that a killed process did not write."""
        if self.info.epochs_done > 0:
            self._save_if_best(module)

    def on_train_epoch_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Keep the learning rates of this epoch, which the scheduler changes before it ends."""
        groups = trainer.optimizers[0].param_groups
        self._rates = {f"lr/{group['name']}": float(group["lr"]) for group in groups}

    def on_train_start(self, trainer: Any, _module: Any) -> None:
        """Start the clock of the progress."""
        self._start = time.monotonic()
        self._first_share = trainer.current_epoch / trainer.max_epochs

    def on_train_batch_end(
        self, trainer: Any, _module: Any, outputs: Any, _batch: Any, batch_idx: int
    ) -> None:
        """Report a batch if the last report is old."""
        if self._is_due():
            done = f"{batch_idx + 1}/{trainer.num_training_batches}"
            doing = f"training batch {done} loss {float(outputs['loss']):.4f}"
            self._report(trainer, batch_idx + 1, 0, doing)

    def on_test_batch_end(
        self, _trainer: Any, _module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Collect the logits of a batch."""
        self._batches.append((batch.positions.cpu(), outputs.cpu()))

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Collect the logits of a batch, and report it if the last report is old."""
        self.on_test_batch_end(trainer, module, outputs, batch)
        if self._is_due():
            doing = f"evaluated batch {batch_idx + 1}/{sum(trainer.num_val_batches)}"
            self._report(trainer, trainer.num_training_batches, batch_idx + 1, doing)

    def on_validation_end(self, trainer: Any, _module: Any) -> None:
        """Store the logits of this epoch, and the metrics of the network before training."""
        self._store_logits("val", _epoch(trainer))
        if _epoch(trainer) == 0:
            self._store_metrics(trainer, 0)
            self._report(trainer, 0, 0)

    def on_train_epoch_end(self, trainer: Any, module: pl.LightningModule) -> None:
        """Store the metrics and the checkpoints of this epoch, and report it."""
        self._store_metrics(trainer, _epoch(trainer))
        with replacing(self.folder.last_checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        self._save_if_best(module)
        self._report(trainer, trainer.num_training_batches, sum(trainer.num_val_batches))

    def on_test_epoch_end(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Store the logits of the test cells under the best epoch."""
        best = self.folder.best_epoch()
        self._store_logits("test", best[0] if best else self.info.epochs_done)

    def on_save_checkpoint(
        self, _trainer: pl.Trainer, _module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add configuration, run and epoch."""
        checkpoint["cnmc"] = self._origin()

    def _is_due(self) -> bool:
        due = time.monotonic() - self._reported >= _SECONDS_BETWEEN_REPORTS
        return due and self.report is not None

    def _report(self, trainer: Any, trained: int, evaluated: int, doing: str | None = None) -> None:
        """Report after so many training and evaluation batches of the current epoch."""
        if self.report is None:
            return
        self._reported = time.monotonic()
        share, left = 0.0, None
        if trainer.state.fn == "fit":
            # A trained image takes as long as three that only pass the network.
            of_train = 3 * trainer.datamodule.batch_size
            of_eval = len(self.columns) * trainer.datamodule.eval_batch_size
            whole = of_train * trainer.num_training_batches + of_eval * sum(trainer.num_val_batches)
            done = (of_train * trained + of_eval * evaluated) / whole
            share = (trainer.current_epoch + done) / trainer.max_epochs
            pace = (self._reported - self._start) / max(share - self._first_share, 1e-9)
            left = pace * (1.0 - share)
        moment = (self.info.label, self.info.epochs_done, trainer.max_epochs, share)
        self.report(RunProgress(*moment, *self._f1, self.info.best_f1, left, doing))

    def _store_logits(self, role: str, epoch: int) -> None:
        index, logits = (torch.cat(parts).numpy() for parts in zip(*self._batches, strict=True))
        self._batches = []
        table = self.cells[role].iloc[index].reset_index(drop=True).astype({"label": "int8"})
        table.insert(0, "epoch", epoch)
        table.insert(1, "role", role)
        table[self.columns] = logits
        if role == "val":
            self._scores = evaluate(table["label"].to_numpy(), mean_logits(table))
        self.folder.add_predictions(table)

    def _store_metrics(self, trainer: pl.Trainer, epoch: int) -> None:
        now = time.monotonic()
        seconds, self._clock = now - self._clock, now
        # Lightning keeps float32, which hold seven digits.
        logged = {name: float(f"{value:.7g}") for name, value in trainer.callback_metrics.items()}
        loss = logged.get("train/loss", math.nan) if epoch else math.nan
        row: dict[str, float] = {"epoch": epoch, "train/loss": loss}
        row |= {name: value for name, value in logged.items() if name.startswith("val/")}
        # The classifier logs the paper's metrics; any other comes from the stored logits.
        for name, value in self._scores.items():
            row.setdefault(f"val/{name}", value)
        # There are no rates before training, but every row has the same columns.
        groups: Any = trainer.lightning_module.groups
        row |= self._rates or {f"lr/{group['name']}": math.nan for group in groups}
        row["seconds"] = round(seconds, 3)
        self.folder.add_metrics(row)
        self._f1 = (row.get(F1), row.get(F1_NOROT))
        self.info.epochs_done = epoch
        self.info.seconds = round(self.info.seconds + seconds, 3)
        self.info.best_epoch, self.info.best_f1 = self.folder.best_epoch() or (None, None)
        self.folder.write_info(self.info)
        for logger in trainer.loggers:
            logger.log_metrics(defined(row), step=trainer.global_step)

    def _save_if_best(self, module: pl.LightningModule) -> None:
        if self.info.best_epoch == self.info.epochs_done:
            decision = choose_of_epoch(self.folder.read_predictions(), self.info.epochs_done)
            origin = self._origin() | {"decision": asdict(decision)}
            _save_network(self.folder.best_checkpoint, module.state_dict(), origin)

    def _origin(self) -> dict[str, Any]:
        epoch = self.info.epochs_done
        return {"config": self.config, "run": self.info.identity(), "epoch": epoch}


def defined(row: Mapping[Any, float]) -> dict[str, float]:
    """Return a row of ``metrics.csv`` without undefined values."""
    return {str(name): value for name, value in row.items() if not math.isnan(value)}


def tidy(folder: RunFolder) -> None:
    """Remove temporary files and the optimizer's state, which only a resumed run needs.

    If this fails (a full disk), it is repeated when the finished run is skipped.
    """
    with suppress(CnmcError, OSError, RuntimeError):
        folder.remove_temporaries()
        if load_checkpoint(folder.last_checkpoint, lazy=True).keys() != {"state_dict", "cnmc"}:
            checkpoint = load_checkpoint(folder.last_checkpoint)
            _save_network(folder.last_checkpoint, checkpoint["state_dict"], checkpoint["cnmc"])


def _save_network(path: Path, state_dict: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        torch.save({"state_dict": state_dict, "cnmc": origin}, temporary)


def _epoch(trainer: pl.Trainer) -> int:
    """Return the epoch that was just finished, 0 before training."""
    return trainer.current_epoch + 1 if trainer.state.fn == "fit" else 0

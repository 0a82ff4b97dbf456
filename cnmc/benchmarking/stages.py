"""The measurements of each stage."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cnmc.benchmarking import baselines
from cnmc.benchmarking.bench import Bench
from cnmc.benchmarking.forecast import EVAL_ROWS, NUM_EVALUATED, NUM_TRAIN, TRAIN_ROWS
from cnmc.benchmarking.measure import Comparison, Rate, Row, counted, timed
from cnmc.config import BenchmarkConfig
from cnmc.data.dataset import CellBatch
from cnmc.data.store import CellStore
from cnmc.deploy.backends import BACKENDS, make_backend, obstacle
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.runtime import GraphInfo
from cnmc.model.module import CellClassifier
from cnmc.model.tta import images_at_once, predict_logits
from cnmc.training.build import build_datamodule, precision

SECONDS = 5.0
"""Duration of one measurement of training."""
LIMIT_LOGITS = 1e-4
"""Largest accepted difference between the logits of a backend and those of PyTorch."""
LIMIT_GB = 6.0
"""Largest accepted host memory."""
_WARM_UP = 2
"""Training steps that are not measured."""

Measurements = list[Comparison | Row]


class _Clock(pl.Callback):
    """Count the steps of a fit for a given time and then stop it, or time an evaluation."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.steps = -_WARM_UP
        self.seconds = 0.0
        self._start = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == 0:
            self.on_validation_start()
        elif self.steps > 0 and time.perf_counter() - self._start >= SECONDS:
            self.on_validation_end()
            trainer.should_stop = True

    def on_validation_start(self, *_: Any) -> None:
        """Start the clock."""
        self.bench.wait()
        self._start = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.bench.wait()
        self.seconds = time.perf_counter() - self._start


def _trainer(bench: Bench, config: BenchmarkConfig, clock: _Clock) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu" if bench.gpu is None else "gpu",
        devices=1 if bench.gpu is None else [bench.gpu],
        precision=precision(config.trainer),  # type: ignore[arg-type]
        max_epochs=1,
        limit_val_batches=None if isinstance(clock, _EvaluationClock) else 0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )

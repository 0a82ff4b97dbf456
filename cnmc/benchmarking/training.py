"""What training is measured by: the loop, the presets beside the published way, runs at once."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any, Protocol

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cnmc.benchmarking import baselines
from cnmc.benchmarking.apart import apart
from cnmc.benchmarking.bench import Bench
from cnmc.benchmarking.forecast import FAST, NUM_TRAIN, PAPER, at_once
from cnmc.benchmarking.measure import Comparison, Rate, Row, timed
from cnmc.config import BenchmarkConfig
from cnmc.data.datamodule import CellDataModule
from cnmc.data.dataset import CellBatch
from cnmc.devices import cores_per_job, num_cores
from cnmc.errors import CnmcError
from cnmc.model.module import CellClassifier
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.training.build import build_datamodule, build_trainer
from cnmc.training.checkpoints import EpochCheckpoints
from cnmc.training.recorder import RunRecorder

SECONDS = 5.0
"""Training is measured for so long, and for one step at least."""

_PATIENCE = 600.0
"""Seconds that runs wait for the slowest of them to be ready."""


_WARM_UP = 2
"""Steps that are not measured: after the workers begin, the process copies what they share."""


class _Company(Protocol):
    """The other runs that are measured at the same time."""

    def begin(self) -> None:
        """Return when all of them are warm."""

    def has_ended(self) -> bool:
        """Say that this run was measured, and return whether all of them were."""


class _Clock(pl.Callback):
    """Times the steps after the first of a fit, and ends it when they took long enough.

    Args:
        bench: What to measure with.
        company: Those that train meanwhile, until each of them was measured; None trains alone.
        each: Wait for the device after each step.
    """

    def __init__(self, bench: Bench, company: _Company | None = None, *, each: bool) -> None:
        self.bench = bench
        self.company = company
        self.each = each
        self.steps = -_WARM_UP
        self.seconds = 0.0
        self._start = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start after the first steps, count the others, and stop after the last."""
        if self.seconds >= SECONDS:
            trainer.should_stop = self.company is None or self.company.has_ended()
            return
        self.steps += 1
        if self.steps < 0:
            return
        if self.each or not self.steps:
            self.bench.wait()
        if not self.steps:
            if self.company is not None:
                self.company.begin()
            self._start = time.perf_counter()
        elif time.perf_counter() - self._start >= SECONDS:
            self.bench.wait()
            self.seconds = time.perf_counter() - self._start
            trainer.should_stop = self.company is None or self.company.has_ended()


def fit_rate(
    bench: Bench,
    config: BenchmarkConfig,
    module: CellClassifier,
    data: Any,
    company: _Company | None = None,
    *,
    each: bool = False,
) -> Rate:
    """Return the images a second that Lightning trains, as a run of this program does.

    Args:
        bench: What to measure with.
        config: Of the run.
        module: Its network, which is trained further each time.
        data: Its data module, or a loader of batches that are ready; an epoch must last.
        company: Runs that are measured at the same time.
        each: Wait for the device after each step, which a run does not.
    """

    def rate() -> float:
        clock = _Clock(bench, company, each=each)
        with short_trainer(bench, config, clock, {}) as trainer:
            trainer.fit(module, data)
        return clock.steps * config.data.batch_size / clock.seconds

    return rate


@contextmanager
def short_trainer(
    bench: Bench, config: BenchmarkConfig, clock: pl.Callback, cells: dict[str, pd.DataFrame]
) -> Iterator[pl.Trainer]:
    """Yield a trainer as a run has it, with a run folder that is thrown away afterwards.

    Args:
        bench: What to measure with.
        config: Of the run.
        clock: Measures.
        cells: Those to evaluate, as :attr:`CellDataModule.evaluated` has them; none leaves
            evaluation out.
    """
    short = replace(config, trainer=replace(config.trainer, max_epochs=1, progress_bar=False))
    with tempfile.TemporaryDirectory() as folder:
        info = RunInfo("running", "benchmark", "benchmark", 0, "", "")
        kept = RunFolder(Path(folder))
        recorder = RunRecorder(kept, info, cells, config.tta.num_rotations)
        trainer = build_trainer(
            short,
            callbacks=[recorder, clock] if cells else [EpochCheckpoints(kept, info, {}), clock],
            gpu=bench.gpu,
        )
        trainer.limit_val_batches = 1.0 if cells else 0
        yield trainer


def again(batch: CellBatch) -> DataLoader[CellBatch]:
    """Return a loader that gives the same batch again and again, which costs nothing."""
    batches: Any = [batch] * 100_000
    return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


def _bare_rate(bench: Bench, module: CellClassifier, batch: CellBatch) -> Rate:
    """Return the images a second of the same steps in a bare loop."""
    optimizer = module.configure_optimizers()["optimizer"]

    def step() -> None:
        loss = module.loss(module(batch.images), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        bench.wait()

    several = timed(step, len(batch.images), at_least=SECONDS)

    def rate() -> float:
        # Lightning brings a network back to the host when it is done.
        module.train().to(bench.device)
        step()
        return several()

    return rate


def _usual_training(bench: Bench) -> Rate:
    """Return the images a second of the recipe as published: files, floats, 32 bits."""
    config = bench.config
    network = bench.classifier(bench.preset("paper")).network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    size = config.data.batch_size
    loader = baselines.batches_of(
        baselines.FileDataset(bench.files, crop=config.data.crop, resize=config.data.resize),
        size,
        config.data.num_workers,
    )
    labels = torch.arange(size, device=bench.device).remainder(2).float()
    weight = torch.tensor(0.5, device=bench.device)

    def images() -> Iterator[Tensor]:
        while True:
            yield from loader

    stream = images()

    def step() -> None:
        batch = next(stream).to(bench.device)
        baselines.train_step(network, optimizer, batch, labels, weight)

    several = timed(step, size, at_least=SECONDS, wait=bench.wait)

    def rate() -> float:
        # What the workers fetched ahead while nobody waited for it is not measured.
        for _ in range(_WARM_UP):
            step()
        bench.wait()
        return several()

    return rate


def run_rate(bench: Bench, config: BenchmarkConfig, company: _Company | None = None) -> Rate:
    """Return the images a second of a run of this program, its input included."""
    data = _long_epoch(bench, config)
    return fit_rate(bench, config, bench.classifier(config), data, company)


def _long_epoch(bench: Bench, config: BenchmarkConfig) -> CellDataModule:
    """Return cells for an epoch as long as the paper's: what is done at its end is not measured."""
    return build_datamodule(config, bench.repeated("train", NUM_TRAIN))


def together_rate(bench: Bench, config: BenchmarkConfig, number: int) -> Rate:
    """Return the images a second of several runs on one device, each in a process, in total.

    Raises:
        CnmcError: A run fails, such as for want of memory on the GPU.
    """

    def rate() -> float:
        if bench.gpu is not None:
            torch.cuda.empty_cache()
        context = multiprocessing.get_context("spawn")
        together = _Together(context.Barrier(number), context.Value("i", 0), number)
        with ProcessPoolExecutor(number, context, _share, (together, bench.gpu)) as pool:
            runs = [pool.submit(_one_of_several, config, bench.gpu) for _ in range(number)]
        errors = [error for run in runs if (error := run.exception()) is not None]
        # One that fails leaves the others at the barrier, which breaks.
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            if isinstance(error, CnmcError):
                raise error
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CnmcError(
                f"runs_at_once={number}: they do not run at once here ({reason}); give fewer"
            ) from error
        return sum(run.result() for run in runs)

    return rate


@dataclass
class _Together:
    """Runs of several processes: measured from one moment on, all training until the last was.

    Attributes:
        ready: Holds those that are warm until all are.
        measured: How many have been.
        number: Of the runs.
    """

    ready: Barrier
    measured: Any
    number: int
    _said: bool = False

    def begin(self) -> None:
        """Return when all of them are warm."""
        self.ready.wait(_PATIENCE)

    def has_ended(self) -> bool:
        """Say that this run was measured, and return whether all of them were."""
        with self.measured.get_lock():
            self.measured.value += not self._said
            self._said = True
            # Where one was lost, the others are not to train for ever.
            return bool(self.measured.value >= self.number) or self.ready.broken


_together: _Together


def _share(together: _Together, gpu: int | None) -> None:
    """Set a process up as one of several on this machine."""
    global _together  # noqa: PLW0603 - an initializer has no other way to its process
    _together = together
    alone = max(1, num_cores() // together.number)
    torch.set_num_threads(alone if gpu is None else cores_per_job())


def _one_of_several(config: BenchmarkConfig, gpu: int | None) -> float:
    """Return the rate of a run, measured while all of them train."""
    try:
        return run_rate(Bench.opened(config, gpu), config, _together)()
    except BaseException:
        _together.ready.abort()
        raise


def train_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure training: the loop, the presets beside the published way, and the input's share."""
    paper, fast = bench.preset("paper"), bench.preset("fast")
    on_device = replace(fast, augment=replace(fast.augment, device=True))
    constant = bench.batch(bench.config.data.batch_size)
    usual = apart(_usual_training, bench)
    # One network for all rows of the preset: compiling takes longer than measuring.
    network = bench.classifier(fast)
    fed = fit_rate(bench, fast, network, _long_epoch(bench, fast))

    def compared(name: str, baseline: Rate, ours: Rate) -> Comparison:
        return Comparison("train", name, "images/s", baseline, ours)

    comparisons = [
        compared(
            "fit loop, against a bare loop of the same steps",
            _bare_rate(bench, bench.classifier(paper), constant),
            fit_rate(bench, paper, bench.classifier(paper), again(constant), each=True),
        ),
        compared(PAPER, usual, run_rate(bench, paper)),
        compared(FAST, usual, fed),
        compared(
            "trainer=fast, against itself with a constant batch",
            fit_rate(bench, fast, network, again(constant)),
            fed,
        ),
        compared(
            "trainer=fast with augment.device=true, against itself without",
            fed,
            fit_rate(bench, on_device, network, _long_epoch(bench, on_device)),
        ),
    ]
    number = bench.runs_at_once
    if number > 1:
        comparisons.append(compared(at_once(number), usual, together_rate(bench, fast, number)))
    return [], comparisons

"""What is measured in each stage."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cnmc.benchmarking import baselines
from cnmc.benchmarking.apart import apart
from cnmc.benchmarking.bench import Bench
from cnmc.benchmarking.forecast import FAST_CELLS, NUM_EVALUATED, PAPER_CELLS
from cnmc.benchmarking.measure import (
    Comparison,
    Rate,
    Row,
    counted,
    doing,
    left_out,
    timed,
)
from cnmc.benchmarking.memory import watched
from cnmc.benchmarking.training import again, fit_rate, short_trainer, train_stage
from cnmc.config import BenchmarkConfig
from cnmc.data.dataset import SampleKey, collate
from cnmc.data.store import CellStore
from cnmc.deploy.backends import BACKENDS, make_backend, obstacle
from cnmc.deploy.exported import GraphInfo, Images
from cnmc.deploy.graph import CellGraph
from cnmc.model.module import CellClassifier
from cnmc.model.tta import images_at_once, predict_logits
from cnmc.training.build import build_datamodule

LEAST_SECONDS = 1.0
"""A rate of something quick is measured for so long."""


def _on_one_core(work: Callable[[], None], items: int) -> Rate:
    """Return a rate that is measured with a single thread, as a worker process has.

    By the time that the process is at work: what else the machine does is not counted.
    """
    rate = timed(work, items, at_least=LEAST_SECONDS, clock=time.process_time)

    def measured() -> float:
        threads = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        try:
            return rate()
        finally:
            torch.set_num_threads(threads[0])
            cv2.setNumThreads(threads[1])

    return measured


def _walk(bench: Bench, config: BenchmarkConfig, number: int) -> Rate:
    """Return the training images a second that one core makes of the cache, in batches."""
    dataset: Any = build_datamodule(config, bench.store).train_dataloader().dataset
    epoch = iter(range(1_000_000))

    def work() -> None:
        seen = next(epoch)
        for batch in _batches(number, config.data.batch_size):
            collate([dataset[SampleKey(seen, position)] for position in batch])

    return _on_one_core(work, number)


def _batches(number: int, size: int) -> list[range]:
    """Return the positions of each batch."""
    return [range(first, min(first + size, number)) for first in range(0, number, size)]


def data_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure the input: images a second and core, batches, and bytes to the device."""
    config = bench.config
    data = build_datamodule(config, bench.store)
    crop, resize = config.data.crop, config.data.resize
    usual = baselines.FileDataset(bench.files, crop=crop, resize=resize)

    def open_each() -> None:
        for batch in _batches(len(usual), config.data.batch_size):
            torch.stack([usual[position] for position in batch])

    one_core = Comparison(
        "data",
        "training input, one core",
        "images/s",
        _on_one_core(open_each, len(usual)),
        _walk(bench, config, len(usual)),
    )
    on_device = replace(config, augment=replace(config.augment, device=True))
    copied = Comparison(
        "data",
        "host's share of it with augment.device=true",
        "images/s",
        one_core.baseline,
        _walk(bench, on_device, len(usual)),
    )
    workers = config.data.num_workers
    whole = len(usual) // config.data.batch_size * config.data.batch_size
    theirs = baselines.batches_of(usual, config.data.batch_size, workers)
    own = data.train_dataloader()
    loaded = Comparison(
        "data",
        f"training batches, {workers} workers",
        "images/s",
        timed(lambda: sum(1 for _ in theirs), whole, at_least=LEAST_SECONDS),
        timed(lambda: sum(1 for _ in own), whole, at_least=LEAST_SECONDS),
    )
    views = baselines.RotatedDataset(bench.files[:1], crop=crop, resize=resize)[0]
    evaluated = next(iter(data.val_dataloader()))
    sent = counted(
        "data",
        "bytes to the device, one evaluated cell",
        "MB",
        baseline=views.nbytes / 1e6,
        ours=evaluated.images.nbytes / len(evaluated.images) / 1e6,
    )
    return [sent], [one_core, copied, loaded]


class _EvaluationClock(pl.Callback):
    """Times a whole evaluation, what is done with its logits included."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.seconds = 0.0

    def on_validation_start(self, *_: Any) -> None:
        """Start."""
        self.seconds = -time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Stop."""
        self.bench.wait()
        self.seconds += time.perf_counter()


def _evaluation(bench: Bench, config: BenchmarkConfig) -> Rate:
    """Return the cells a second that a run evaluates."""
    module = bench.classifier(config)
    data = build_datamodule(config, _evaluated(bench, config))

    def rate() -> float:
        clock = _EvaluationClock(bench)
        with short_trainer(bench, config, clock, data.evaluated) as trainer:
            trainer.validate(module, data, verbose=False)
        return len(data.evaluated["val"]) / clock.seconds

    return rate


def _evaluated(bench: Bench, config: BenchmarkConfig) -> CellStore:
    """Return cells enough for an evaluation that can be timed."""
    # A GPU is done with some cells before its clock can tell, and a compiled network takes whole
    # batches: a last one that is mostly filled up would be rare among the paper's cells.
    if bench.gpu is not None:
        return bench.repeated("val", NUM_EVALUATED)
    return bench.repeated("val", config.data.eval_batch_size if config.trainer.compile else 1)


def eval_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure evaluation: eight views a cell, and what feeding them costs."""
    config = bench.preset("paper")
    module = bench.classifier(config).eval()
    network = module.network
    # As many at a time as ours: how the program cuts its batches is no part of the comparison.
    side = config.data.resize or config.data.crop
    size = images_at_once(side) if bench.gpu is None else config.data.eval_batch_size
    ready = module.to_input(bench.batch(size).images.permute(0, 3, 1, 2))
    views = config.tta.num_rotations

    def passes() -> None:
        with torch.no_grad():
            for _ in range(views):
                network(ready)
        bench.wait()

    rotated = baselines.RotatedDataset(
        replace(bench, store=_evaluated(bench, config)).files_of("val"),
        crop=config.data.crop,
        resize=config.data.resize,
    )
    together = min(len(rotated), max(1, config.data.eval_batch_size // views))
    theirs = baselines.batches_of(rotated, together, config.data.num_workers)

    def usual() -> None:
        for batch in theirs:
            baselines.mean_logits(network, batch.to(bench.device)).cpu()

    bare = timed(passes, size, at_least=LEAST_SECONDS)
    host = timed(usual, len(theirs) * together, at_least=LEAST_SECONDS)
    ours = _evaluation(bench, config)

    def compared(name: str, baseline: Rate, ours: Rate) -> Comparison:
        return Comparison("eval", name, "cells/s", baseline, ours)

    return [], [
        compared(PAPER_CELLS, bare, ours),
        compared("trainer=paper, against views made by the host", host, ours),
        compared(FAST_CELLS, bare, _evaluation(bench, bench.preset("fast"))),
    ]


def scale_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure how the cost grows: rates that stay the same mean time that grows linearly."""
    config = bench.preset("paper")
    many = len(bench.files)
    few = many // 4
    module = bench.classifier(config).eval()
    images = bench.batch(8).images

    def views(number: int) -> Rate:
        def work() -> None:
            with torch.no_grad():
                predict_logits(module.network, images.permute(0, 3, 1, 2), number, module.to_input)
            bench.wait()

        return timed(work, number * len(images), at_least=LEAST_SECONDS)

    def workers(number: int) -> Rate:
        chosen = replace(config, data=replace(config.data, num_workers=number))
        loader = build_datamodule(chosen, bench.store).train_dataloader()
        size = config.data.batch_size
        return timed(lambda: sum(1 for _ in loader), len(loader) * size, at_least=LEAST_SECONDS)

    def runs(number: int) -> Rate:
        batch = bench.batch(config.data.batch_size)

        def work() -> None:
            for _ in range(number):
                with short_trainer(bench, config, pl.Callback(), {}) as trainer:
                    trainer.limit_train_batches = 2
                    trainer.fit(bench.classifier(config), again(batch))

        return timed(work, number)

    most = config.tta.num_rotations
    return _memory(bench, config), [
        Comparison(
            "scale",
            f"{many} cells, against {few}",
            "images/s",
            _walk(bench, config, few),
            _walk(bench, config, many),
        ),
        Comparison("scale", f"{most} views a cell, against 1", "views/s", views(1), views(most)),
        Comparison("scale", "2 workers, against 1", "images/s", workers(1), workers(2)),
        Comparison("scale", "3 runs in one process, against 1", "runs/s", runs(1), runs(3)),
    ]


def predict_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure prediction on the CPU by every backend that can run here, against PyTorch as it is.

    The baseline is the network alone over floats that are ready, the views of a cell at a time.
    Beside the rates, how far the logits of a backend of full precision lie from PyTorch's.
    """
    config = bench.preset("paper")
    module = bench.classifier(config).cpu()
    shown = _shown(bench)
    _settle(module.network, _ready(bench, module))
    info = GraphInfo(
        network=config.model.name,
        crop=config.data.crop,
        resize=config.data.resize,
        num_rotations=config.tta.num_rotations,
        mean=tuple(config.model.mean) if config.model.normalize else None,
        std=tuple(config.model.std) if config.model.normalize else None,
        run={},
        epoch=0,
    )
    graph = CellGraph(module.network, info)
    folder = Path(config.output) / "backends"
    folder.mkdir(parents=True, exist_ok=True)
    views = len(shown) * config.tta.num_rotations

    rows, comparisons = [], []
    baseline = apart(_usual_prediction, bench)
    expected = make_backend("eager", graph, folder=folder).predict(shown)
    for name in BACKENDS[1:]:
        if obstacle(name) is not None:
            continue
        with doing(f"predict: {name} made ready"):
            backend = make_backend(name, graph, folder=folder, calibration=shown)
        ours = timed(partial(backend.predict, shown), views)
        comparisons.append(
            Comparison("predict", f"{name}, against eager PyTorch", "views/s", baseline, ours)
        )
        if name != "openvino_int8":
            distance = float(np.abs(backend.predict(shown) - expected).max())
            label = f"{name}: largest difference of a logit; baseline: the limit"
            rows.append(
                counted("predict", label, "logits", baseline=LIMIT_LOGITS, ours=max(distance, 1e-9))
            )
    return rows, comparisons


def _shown(bench: Bench) -> Images:
    cells = len(bench.store.cache.images)
    return np.array(bench.store.cache.images[: min(bench.config.data.eval_batch_size, cells, 8)])


def _ready(bench: Bench, module: CellClassifier) -> Tensor:
    """Return the cells that are shown as the network takes them."""
    return module.to_input(torch.from_numpy(_shown(bench)).permute(0, 3, 1, 2)).contiguous()


def _usual_prediction(bench: Bench) -> Rate:
    """Return the views a second of the network as it is, with as many at a time as a cell has."""
    module = bench.classifier(bench.preset("paper")).cpu()
    ready = _ready(bench, module)
    _settle(module.network, ready)
    cells, views = len(ready), bench.config.tta.num_rotations
    ready = ready[torch.arange(views) % cells]

    def passes() -> None:
        with torch.no_grad():
            for _ in range(cells):
                module.network(ready)

    return timed(passes, views * cells)


def _settle(network: nn.Module, images: Tensor) -> None:
    """Let the statistics of a network that was never trained fit its input.

    Its logits are then of the size of a trained network's; else all would be equal to a millionth.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(images)
    network.eval()


LIMIT_LOGITS = 1e-4
"""How far another way to compute the same logits may lie from PyTorch's."""

LIMIT_GB = 6.0
"""Of host memory a run beyond the shared cache."""


def _memory(bench: Bench, config: BenchmarkConfig) -> list[Row]:
    """Return the memory of a run: the input of an epoch, some steps, a batch that is evaluated."""
    name = f"host memory beyond the cache, {len(bench.files)} cells; baseline: the limit"
    context = multiprocessing.get_context("spawn")
    try:
        # In a process of its own, as a run is one; this one has held other networks.
        with doing("scale: a run that is watched"), ProcessPoolExecutor(1, context) as pool:
            taken = pool.submit(_bytes_of_a_run, config, bench.gpu).result()
    except BrokenProcessPool:
        left_out("scale", name, "the process was lost (out of memory?)")
        return []
    if not taken:
        left_out("scale", name, "the kernel does not tell it")
        return []
    return [counted("scale", name, "GB", baseline=LIMIT_GB, ours=taken / 1e9)]


def _bytes_of_a_run(config: BenchmarkConfig, gpu: int | None) -> int:
    bench = Bench.opened(config, gpu)
    with watched() as peak:
        for _ in build_datamodule(config, bench.store).train_dataloader():
            pass
        batch = bench.batch(config.data.batch_size)
        module = bench.classifier(config)
        fit_rate(bench, config, module, again(batch))()
        data = build_datamodule(config, bench.repeated("val", config.data.eval_batch_size))
        with short_trainer(bench, config, pl.Callback(), data.evaluated) as trainer:
            trainer.limit_val_batches = 1
            trainer.validate(module, data, verbose=False)
    return peak.bytes


STAGES = {
    "data": data_stage,
    "train": train_stage,
    "eval": eval_stage,
    "predict": predict_stage,
    "scale": scale_stage,
}
"""What is measured, in this order."""

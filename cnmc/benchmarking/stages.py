"""The measurements of each stage, both sides of a comparison in this process."""

from __future__ import annotations

import copy
import math
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cnmc.benchmarking import measure
from cnmc.benchmarking.baselines import ImageFiles, train_steps
from cnmc.benchmarking.measure import EVALUATION, NUM_EVALUATED, TRAINING, Comparison, Row, timed
from cnmc.config import EXPORT_SUFFIXES, BenchmarkConfig
from cnmc.config.groups import TrainerConfig
from cnmc.data.store import CellStore
from cnmc.deploy.formats import write_network
from cnmc.deploy.graph import CellGraph, describe
from cnmc.deploy.networks import Images, open_network
from cnmc.errors import CnmcError
from cnmc.model.module import CellClassifier
from cnmc.model.tta import predict_logits
from cnmc.training.build import build_classifier, build_datamodule, build_trainer

LIMIT_GB = 6.0
"""Largest accepted host memory."""

Measurements = Iterator[Comparison | Row]


@dataclass(frozen=True)
class Bench:
    """What the stages measure with."""

    config: BenchmarkConfig
    store: CellStore
    """Generated cells."""
    gpu: int | None = None
    """Index of the GPU to use; None uses the CPU."""

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return torch.device("cpu" if self.gpu is None else f"cuda:{self.gpu}")

    def classifier(self) -> CellClassifier:
        """Return a new classifier on the device."""
        torch.manual_seed(self.config.seed)
        return build_classifier(self.config, pos_weight=0.5).to(self.device)

    def plain_network(self) -> nn.Module:
        """Return the network of the baselines: 32 bits, not compiled."""
        plain = replace(self.config, trainer=TrainerConfig())
        return replace(self, config=plain).classifier().network

    def trainer(self) -> pl.Trainer:
        """Return a trainer that stops after :data:`cnmc.benchmarking.measure.SECONDS`."""
        unlimited = replace(self.config.trainer, max_epochs=-1)
        timer = pl.callbacks.Timer(timedelta(seconds=measure.SECONDS))
        return build_trainer(replace(self.config, trainer=unlimited), [timer], gpu=self.gpu)

    def loader(self, num_workers: int) -> DataLoader[Any]:
        """Return the training batches of this package."""
        data = replace(self.config.data, num_workers=num_workers)
        return build_datamodule(replace(self.config, data=data), self.store).train_dataloader()

    def baseline_loader(self, role: str, batch_size: int, num_workers: int) -> DataLoader[Any]:
        """Return the baseline's batches: augmented ``train`` cells, or rotated ``val`` cells."""
        split = self.store.split.cells
        paths = self.store.cells.set_index("cell_id")["path"]
        chosen = paths.loc[split.loc[split["role"] == role, "cell_id"]]
        files = [self.store.manifest.root / path for path in chosen]
        data = self.config.data
        return DataLoader(
            ImageFiles(files, crop=data.crop, resize=data.resize, rotated=role == "val"),
            batch_size=min(batch_size, len(files)),
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )

    def repeated(self, role: str, number: int) -> Bench:
        """Return a bench whose cells of a role are repeated until there are at least ``number``."""
        split = self.store.split
        part = split.cells[split.cells["role"] == role]
        more = [part] * (math.ceil(number / len(part)) - 1)
        cells = pd.concat([split.cells, *more], ignore_index=True)
        return replace(self, store=replace(self.store, split=replace(split, cells=cells)))


def _passes(loader: DataLoader[Any]) -> Callable[[], float]:
    """Return a function that measures the images per second of a loader."""
    return timed(lambda: sum(1 for _ in loader), len(loader) * int(loader.batch_size or 1))


def data_stage(bench: Bench) -> Measurements:
    """Measure the input: training batches, and the bytes that are sent to the device."""
    data = bench.config.data
    side = data.resize or data.crop
    sent = 8 * 3 * side**2 * 4 / 1e6, 3 * side**2 / 1e6
    yield Row("data", "bytes to the device, one evaluated cell", "MB", *sent, sent[0] / sent[1])
    for workers in sorted({1, data.num_workers}):
        baseline = bench.baseline_loader("train", data.batch_size, workers)
        name = f"training batches, data.num_workers={workers}"
        yield Comparison(name, "images/s", _passes(baseline), _passes(bench.loader(workers)))


def train_stage(bench: Bench) -> Measurements:
    """Measure training, input included, beside the published way in 32 bits."""
    size, workers = bench.config.data.batch_size, bench.config.data.num_workers
    network = bench.plain_network().train()
    step = train_steps(network, bench.baseline_loader("train", size, workers))
    module, loader = bench.classifier(), bench.loader(workers)

    def ours() -> float:
        trainer, start = bench.trainer(), time.perf_counter()
        trainer.fit(module, loader)
        measure.wait()
        return trainer.global_step * size / (time.perf_counter() - start)

    baseline = timed(step, size)
    yield Comparison(TRAINING, "images/s", baseline, ours)


def eval_stage(bench: Bench) -> Measurements:
    """Measure evaluation with eight rotations, which the baseline's workers make on the host."""
    config = bench.config
    # Enough cells to time a GPU, and a whole batch for a compiled network.
    number = config.data.eval_batch_size if config.trainer.compile else 1
    cells = bench.repeated("val", number if bench.gpu is None else NUM_EVALUATED)
    module, data = bench.classifier(), build_datamodule(config, cells.store)
    network = bench.plain_network().eval()
    together = max(1, config.data.eval_batch_size // 8)
    loader = cells.baseline_loader("val", together, config.data.num_workers)

    @torch.no_grad()
    def usual() -> None:
        for views in loader:
            network(views.flatten(0, 1).to(bench.device)).reshape(-1, 8).mean(dim=1).cpu()

    def ours() -> float:
        trainer, start = bench.trainer(), time.perf_counter()
        trainer.validate(module, data, verbose=False)
        measure.wait()
        return len(data.evaluated["val"]) / (time.perf_counter() - start)

    baseline = timed(usual, len(loader) * int(loader.batch_size or 1))
    yield Comparison(EVALUATION, "cells/s", baseline, ours)


def predict_stage(bench: Bench) -> Measurements:
    """Measure prediction on the CPU in each way that can run here, beside plain PyTorch."""
    config = bench.config
    module = bench.classifier().cpu().eval()
    cells = np.array(bench.store.cache.images[:8])
    inputs = module.to_input(torch.from_numpy(cells).permute(0, 3, 1, 2))
    num_views = len(cells) * config.tta.num_rotations
    graph = CellGraph(module.network, describe(asdict(config)))
    folder = Path(config.output) / "backends"
    folder.mkdir(parents=True, exist_ok=True)

    @torch.no_grad()
    def passes() -> None:
        for _ in range(config.tta.num_rotations):
            module.network(inputs)

    for name, predict in _backends(graph, cells, folder):
        ours = timed(partial(predict, cells), num_views)
        label = f"{name}, against eager PyTorch"
        yield Comparison(label, "views/s", timed(passes, num_views), ours)


def _backends(
    graph: CellGraph, cells: Images, folder: Path
) -> Iterator[tuple[str, Callable[[Images], Any]]]:
    """Yield the ways to predict that this machine has, from the plainest to the fastest."""
    last = copy.deepcopy(graph)
    last.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def one_by_one(forward: Callable[[Tensor], Tensor], images: Images) -> None:
        with torch.no_grad():
            for cell in torch.split(torch.from_numpy(images), 1):
                forward(cell)

    yield "channels_last", partial(one_by_one, last)
    if shutil.which(os.environ.get("CXX", "g++")):
        compiled = torch.compile(last, dynamic=False, fullgraph=True, options={"freezing": True})
        yield "compiled", partial(one_by_one, compiled)
    for kind, suffix in EXPORT_SUFFIXES.items():
        path = folder / f"{kind}{suffix}"
        with suppress(CnmcError):  # a package is not installed
            write_network(graph, kind, path, cells)
            yield kind, open_network(path).logits


def scale_stage(bench: Bench) -> Measurements:
    """Measure how the cost grows: equal rates mean that it grows in proportion."""
    few = int((bench.store.split.cells["role"] == "train").sum())
    many = bench.repeated("train", 4 * few).loader(1)
    one, two = _passes(bench.loader(1)), _passes(bench.loader(2))
    yield Comparison(f"{4 * few} cells, against {few}", "images/s", one, _passes(many))
    yield Comparison("2 workers, against 1", "images/s", one, two)

    module = bench.classifier().eval()
    images = torch.from_numpy(np.array(bench.store.cache.images[:8])).permute(0, 3, 1, 2)
    images = images.to(bench.device)

    @torch.no_grad()
    def views(number: int) -> None:
        predict_logits(module.network, images, number, module.to_input)

    one, eight = (timed(partial(views, number), number * len(images)) for number in (1, 8))
    yield Comparison("8 views a cell, against 1", "views/s", one, eight)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    label = "peak host memory of this process so far; baseline: the limit"
    yield Row("scale", label, "GB", LIMIT_GB, peak, LIMIT_GB / peak)


STAGES = {
    "data": data_stage,
    "train": train_stage,
    "eval": eval_stage,
    "predict": predict_stage,
    "scale": scale_stage,
}
"""The stages in the order in which they are measured."""

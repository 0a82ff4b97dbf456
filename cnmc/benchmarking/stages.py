"""The measurements of each stage, both sides of a comparison in this process.

The baselines do what sections 2 and 4.1 of the paper describe, with the usual libraries: image
files are opened in every epoch, cropped, flipped, rotated and shifted by torchvision, and sent to
the device as floats; eight rotated copies of each image are evaluated.
"""

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
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets.folder import default_loader

from cnmc.benchmarking import measure
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

LIMIT_GB = 6.0  # largest accepted host memory

Measurements = Iterator[Comparison | Row]


def _rotations(image: Image.Image) -> Tensor:
    to_tensor = transforms.ToTensor()
    return torch.stack([to_tensor(image.rotate(45 * turn)) for turn in range(8)])


@dataclass(frozen=True)
class Bench:
    """The configuration, the generated cells and the device of the measurements."""

    config: BenchmarkConfig
    store: CellStore
    gpu: int | None = None  # index of the GPU to use; None uses the CPU

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return torch.device("cpu" if self.gpu is None else f"cuda:{self.gpu}")

    def classifier(self, *, plain: bool = False) -> CellClassifier:
        """Return a new classifier on the device; a plain one has 32 bits and is not compiled."""
        torch.manual_seed(self.config.seed)
        config = replace(self.config, trainer=TrainerConfig()) if plain else self.config
        return build_classifier(config, pos_weight=0.5).to(self.device)

    def loader(self, num_workers: int) -> DataLoader[Any]:
        """Return the training batches of this package."""
        data = replace(self.config.data, num_workers=num_workers)
        return build_datamodule(replace(self.config, data=data), self.store).train_dataloader()

    def baseline_loader(self, role: str, batch_size: int, num_workers: int) -> DataLoader[Any]:
        """Return batches of augmented ``train`` cells, or of ``val`` cells in eight rotations.

        These are floats, B x 3 x S x S or B x 8 x 3 x S x S.
        """
        split = self.store.split.cells
        paths = self.store.cells.set_index("cell_id")["path"]
        chosen = paths.loc[split.loc[split["role"] == role, "cell_id"]]
        files = [str(self.store.manifest.root / path) for path in chosen]
        data = self.config.data
        side = data.resize or data.crop
        augmentation = [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomAffine(degrees=(0, 360), translate=(0.2, 0.2)),
            transforms.ToTensor(),
        ]
        crop = [transforms.CenterCrop(data.crop), transforms.Resize((side, side))]
        convert = transforms.Compose([*crop, *([_rotations] if role == "val" else augmentation)])
        return DataLoader(
            files,  # type: ignore[arg-type]
            collate_fn=lambda some: torch.stack([convert(default_loader(file)) for file in some]),
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
    sent = 3 * (data.resize or data.crop) ** 2 / 1e6
    # Eight rotations as floats, against one image of bytes.
    yield Row("data", "bytes to the device, one evaluated cell", "MB", 32 * sent, sent, 32.0)
    for workers in sorted({1, data.num_workers}):
        baseline = bench.baseline_loader("train", data.batch_size, workers)
        name = f"training batches, data.num_workers={workers}"
        yield Comparison(name, "images/s", _passes(baseline), _passes(bench.loader(workers)))


def train_stage(bench: Bench) -> Measurements:
    """Measure training, input included, beside the published way in 32 bits."""
    config, device = bench.config, bench.device
    size, workers = config.data.batch_size, config.data.num_workers
    network = bench.classifier(plain=True).network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    weight = torch.tensor(0.5, device=device)
    baseline_loader = bench.baseline_loader("train", size, workers)
    batches = (batch for _ in iter(int, 1) for batch in baseline_loader)
    module, loader = bench.classifier(), bench.loader(workers)

    def usual() -> None:
        logits = network(next(batches).to(device)).squeeze(1)
        labels = torch.arange(len(logits), device=device).remainder(2).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def ours() -> float:
        unlimited = replace(config, trainer=replace(config.trainer, max_epochs=-1))
        timer = pl.callbacks.Timer(timedelta(seconds=measure.SECONDS))
        trainer = build_trainer(unlimited, [timer], gpu=bench.gpu)
        start = time.perf_counter()
        trainer.fit(module, loader)
        measure.wait()
        return trainer.global_step * size / (time.perf_counter() - start)

    yield Comparison(TRAINING, "images/s", timed(usual, size), ours)


def eval_stage(bench: Bench) -> Measurements:
    """Measure evaluation with eight rotations, which the baseline's workers make on the host."""
    config = bench.config
    # Enough cells to time a GPU, and a whole batch for a compiled network.
    number = config.data.eval_batch_size if config.trainer.compile else 1
    cells = bench.repeated("val", number if bench.gpu is None else NUM_EVALUATED)
    module, data = bench.classifier(), build_datamodule(config, cells.store)
    network = bench.classifier(plain=True).network.eval()
    together = max(1, config.data.eval_batch_size // 8)
    loader = cells.baseline_loader("val", together, config.data.num_workers)
    trainer = build_trainer(config, [], gpu=bench.gpu)

    @torch.no_grad()
    def usual() -> None:
        for views in loader:
            network(views.flatten(0, 1).to(bench.device)).reshape(-1, 8).mean(dim=1).cpu()

    baseline = timed(usual, len(loader) * int(loader.batch_size or 1))
    num_cells = int((cells.store.split.cells["role"] == "val").sum())
    ours = timed(lambda: trainer.validate(module, data, verbose=False), num_cells)
    yield Comparison(EVALUATION, "cells/s", baseline, ours)


def predict_stage(bench: Bench) -> Measurements:
    """Measure prediction on the CPU in each way that can run here, beside plain PyTorch."""
    config = bench.config
    module = bench.classifier().cpu().eval()
    cells = np.array(bench.store.cache.images[:8])
    inputs = module.to_input(torch.from_numpy(cells).permute(0, 3, 1, 2))
    num_views = len(cells) * config.tta.num_rotations
    graph = CellGraph(module.network, describe(asdict(config)))
    last = copy.deepcopy(graph)
    last.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def passes() -> None:
        for _ in range(config.tta.num_rotations):
            module.network(inputs)

    @torch.no_grad()
    def one_by_one(forward: Callable[[Tensor], Tensor], images: Images) -> None:
        for cell in torch.split(torch.from_numpy(images), 1):
            forward(cell)

    def measured(name: str, predict: Callable[[Images], Any]) -> Comparison:
        baseline, ours = timed(passes, num_views), timed(partial(predict, cells), num_views)
        return Comparison(f"{name}, against eager PyTorch", "views/s", baseline, ours)

    yield measured("channels_last", partial(one_by_one, last))
    if shutil.which(os.environ.get("CXX", "g++")):
        compiled = torch.compile(last, dynamic=False, fullgraph=True, options={"freezing": True})
        yield measured("compiled", partial(one_by_one, compiled))
    folder = Path(config.output) / "backends"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, suffix in EXPORT_SUFFIXES.items():
        path = folder / f"{kind}{suffix}"
        with suppress(CnmcError):  # a package is not installed
            write_network(graph, kind, path, cells)
            yield measured(kind, open_network(path).logits)


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

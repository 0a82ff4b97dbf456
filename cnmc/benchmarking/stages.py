"""What is measured in each stage."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cnmc.benchmarking import baselines
from cnmc.benchmarking.measure import Comparison, Rate, Row, counted, timed
from cnmc.benchmarking.memory import watched
from cnmc.build import build_classifier, build_datamodule, build_trainer
from cnmc.callbacks.checkpoints import EpochCheckpoints
from cnmc.callbacks.recorder import RunRecorder
from cnmc.config import CONFIG_DIR, BenchmarkConfig
from cnmc.data.dataset import CellBatch, Sample, SampleKey, collate
from cnmc.data.store import CellStore
from cnmc.inference.backends import BACKENDS, make_backend, obstacle
from cnmc.inference.graph import CellGraph
from cnmc.inference.runtime import GraphInfo
from cnmc.model.module import CellClassifier
from cnmc.model.tta import predict_logits
from cnmc.runs import RunFolder, RunInfo

LEAST_SECONDS = 1.0
"""A rate of something quick is measured for so long."""


@dataclass(frozen=True)
class Bench:
    """What the stages measure with."""

    config: BenchmarkConfig
    store: CellStore

    @property
    def files(self) -> list[Path]:
        """The images that train, as they lie on the disk."""
        cells = self.store.cells.set_index("cell_id")
        chosen = self.store.split.cells.query("role == 'train'")["cell_id"]
        return [self.store.manifest.root / path for path in cells.loc[chosen, "path"]]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        on_gpu = self.config.trainer.accelerator != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if on_gpu else "cpu")

    def preset(self, name: str) -> BenchmarkConfig:
        """Return the configuration with a preset of ``conf/trainer``."""
        values = yaml.safe_load((CONFIG_DIR / "trainer" / f"{name}.yaml").read_text())
        # A preset that reaches beyond the trainer names its groups.
        groups = values if "trainer" in values else {"trainer": values}
        kept = {key: v for key, v in groups["trainer"].items() if key != "max_epochs"}
        return replace(
            self.config,
            trainer=replace(self.config.trainer, **kept),
            optimizer=replace(self.config.optimizer, **groups.get("optimizer", {})),
        )

    def classifier(self, config: BenchmarkConfig) -> CellClassifier:
        """Return the classifier of a run, on the device."""
        torch.manual_seed(config.seed)
        return build_classifier(config, pos_weight=0.5).to(self.device)

    def batch(self, size: int) -> CellBatch:
        """Return a batch of cells as the loader makes it, on the device."""
        images = self.store.cache.images
        rows = [position % len(images) for position in range(size)]
        batch = collate([Sample(images[row], row % 2, row, None) for row in rows])
        return batch._replace(
            images=batch.images.to(self.device), labels=batch.labels.to(self.device)
        )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
    """Return the training images a second that one core makes of the cache."""
    dataset: Any = build_datamodule(config, bench.store).train_dataloader().dataset
    epoch = iter(range(1_000_000))

    def work() -> None:
        seen = next(epoch)
        for position in range(number):
            dataset[SampleKey(seen, position)]

    return _on_one_core(work, number)


def data_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure the input: images a second and core, batches, and bytes to the device."""
    config = bench.config
    data = build_datamodule(config, bench.store)
    usual = baselines.FileDataset(bench.files, crop=config.data.crop)

    def open_each() -> None:
        for position in range(len(usual)):
            usual[position]

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
    views = baselines.RotatedDataset(bench.files[:1], crop=config.data.crop)[0]
    evaluated = next(iter(data.val_dataloader()))
    sent = counted(
        "data",
        "bytes to the device, one evaluated cell",
        "MB",
        baseline=views.nbytes / 1e6,
        ours=evaluated.images.nbytes / len(evaluated.images) / 1e6,
    )
    return [sent], [one_core, copied, loaded]


class _Clock(pl.Callback):
    """Times the steps after the first of a fit."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = -1
        self.seconds = 0.0
        self._start = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        """Start after the first step, and count the others."""
        _wait(self.device)
        now = time.perf_counter()
        if self.steps < 0:
            self._start = now
        self.steps += 1
        self.seconds = now - self._start


def _fit_rate(bench: Bench, config: BenchmarkConfig, module: CellClassifier, batches: Any) -> Rate:
    """Return the images a second that Lightning trains, as a run of this program does."""

    def rate() -> float:
        clock = _Clock(bench.device)
        short = replace(config, trainer=replace(config.trainer, max_epochs=1, progress_bar=False))
        with tempfile.TemporaryDirectory() as folder:
            info = RunInfo("running", "benchmark", "fit", 0, "", "")
            kept = RunFolder(Path(folder))
            recorder = RunRecorder(kept, info, {}, config.tta.num_rotations)
            trainer = build_trainer(
                short,
                callbacks=[clock, EpochCheckpoints(kept, info, {})],
                recorder=recorder,
                loggers=[],
                terminal=False,
            )
            trainer.fit(module, train_dataloaders=batches)
        return clock.steps * config.data.batch_size / clock.seconds

    return rate


def _again(batch: CellBatch, times: int) -> DataLoader[CellBatch]:
    """Return a loader that gives the same batch, which costs nothing."""
    batches: Any = [batch] * times
    return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


def _bare_rate(bench: Bench, module: CellClassifier, batches: Sequence[CellBatch]) -> Rate:
    """Return the images a second of the same steps in a bare loop."""
    optimizer = module.configure_optimizers()["optimizer"]

    def step(batch: CellBatch) -> None:
        loss = module.loss(module(batch.images), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _wait(bench.device)

    def rate() -> float:
        module.train().to(bench.device)
        step(batches[0])
        start = time.perf_counter()
        for batch in batches[1:]:
            step(batch)
        seconds = time.perf_counter() - start
        return sum(len(batch.images) for batch in batches[1:]) / seconds

    return rate


def _usual_training(bench: Bench) -> Rate:
    """Return the images a second of the recipe as published: files, floats, 32 bits."""
    config = bench.config
    network = bench.classifier(bench.preset("paper")).network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    size = config.data.batch_size
    loader = baselines.batches_of(
        baselines.FileDataset(bench.files, crop=config.data.crop), size, config.data.num_workers
    )
    labels = torch.arange(size, device=bench.device).remainder(2).float()
    weight = torch.tensor(0.5, device=bench.device)

    def images() -> Iterator[Tensor]:
        while True:
            yield from loader

    stream = images()

    def step() -> None:
        batch = next(stream).to(bench.device)
        if config.data.resize is not None:
            batch = nn.functional.interpolate(batch, size=config.data.resize, mode="area")
        baselines.train_step(network, optimizer, batch, labels, weight)
        _wait(bench.device)

    return timed(step, size)


def _own_training(bench: Bench, config: BenchmarkConfig) -> Rate:
    """Return the images a second of a run of this program, its input included."""
    module = bench.classifier(config)
    data = build_datamodule(config, bench.store)
    return _fit_rate(bench, config, module, data.train_dataloader())


def train_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure training: the loop, the presets beside the published way, and the input's share."""
    paper, fast = bench.preset("paper"), bench.preset("fast")
    batch = bench.batch(bench.config.data.batch_size)
    constant = _again(batch, 3)
    module = bench.classifier(paper)
    usual = _usual_training(bench)
    bare = bench.classifier(paper)
    fed, constantly = bench.classifier(paper), bench.classifier(paper)
    loader = build_datamodule(paper, bench.store).train_dataloader()
    return [], [
        Comparison(
            "train",
            "fit loop, against a bare loop of the same steps",
            "images/s",
            _bare_rate(bench, bare, [batch] * 3),
            _fit_rate(bench, paper, module, constant),
        ),
        Comparison(
            "train",
            "input, against a constant batch",
            "images/s",
            _fit_rate(bench, paper, constantly, constant),
            _fit_rate(bench, paper, fed, loader),
        ),
        Comparison("train", PAPER, "images/s", usual, _own_training(bench, paper)),
        Comparison("train", FAST, "images/s", usual, _own_training(bench, fast)),
    ]


PAPER, FAST = "trainer=paper, against the published way", "trainer=fast, against the published way"


def eval_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure evaluation: eight views a cell, and what feeding them costs."""
    config = bench.preset("paper")
    module = bench.classifier(config).eval()
    network = module.network
    data = build_datamodule(config, bench.store)
    loader = data.val_dataloader()
    cells = len(data.evaluated["val"])
    size = min(config.data.eval_batch_size, cells)
    ready = module.to_input(bench.batch(size).images.permute(0, 3, 1, 2))
    views = config.tta.num_rotations

    def passes() -> None:
        with torch.no_grad():
            for _ in range(views):
                network(ready)
        _wait(bench.device)

    def evaluate() -> None:
        with torch.no_grad():
            for batch in loader:
                module.rotation_logits(batch.images.to(bench.device)).cpu()

    rotated = baselines.RotatedDataset(bench.files[:cells], crop=config.data.crop)
    theirs = baselines.batches_of(rotated, max(1, size // views), config.data.num_workers)

    def usual() -> None:
        for batch in theirs:
            given = batch.to(bench.device)
            if config.data.resize is not None:
                flat = nn.functional.interpolate(
                    given.flatten(0, 1), size=config.data.resize, mode="area"
                )
                given = flat.reshape(*given.shape[:2], *flat.shape[1:])
            baselines.mean_logits(network, given).cpu()

    ours = timed(evaluate, cells)
    return [], [
        Comparison("eval", EIGHT, "cells/s", timed(passes, size), ours),
        Comparison(
            "eval",
            "against views made by the host",
            "cells/s",
            timed(usual, len(theirs) * max(1, size // views)),
            ours,
        ),
    ]


EIGHT = "against the bare passes of the network"


def scale_stage(bench: Bench) -> tuple[list[Row], list[Comparison]]:
    """Measure how the cost grows: rates that stay the same mean time that grows linearly."""
    config = bench.preset("paper")
    many = len(bench.files)
    few = many // 4
    module = bench.classifier(config).eval()
    images = bench.batch(config.data.eval_batch_size).images

    def views(number: int) -> Rate:
        def work() -> None:
            with torch.no_grad():
                predict_logits(module.network, images.permute(0, 3, 1, 2), number, module.to_input)
            _wait(bench.device)

        return timed(work, number * len(images))

    def workers(number: int) -> Rate:
        chosen = replace(config, data=replace(config.data, num_workers=number))
        loader = build_datamodule(chosen, bench.store).train_dataloader()
        size = config.data.batch_size
        return timed(lambda: sum(1 for _ in loader), len(loader) * size, at_least=LEAST_SECONDS)

    def runs(number: int) -> Rate:
        batches = _again(bench.batch(config.data.batch_size), 2)

        def work() -> None:
            for _ in range(number):
                _fit_rate(bench, config, bench.classifier(config), batches)()

        return timed(work, number)

    most = config.tta.num_rotations
    return [_memory(bench, config)], [
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

    Beside the rates, how far the logits of a backend of full precision lie from PyTorch's.
    """
    config = bench.preset("paper")
    module = bench.classifier(config).cpu().eval()
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
    cells = len(bench.store.cache.images)
    shown = np.array(bench.store.cache.images[: min(config.data.eval_batch_size, cells, 8)])
    folder = Path(config.output) / "backends"
    folder.mkdir(parents=True, exist_ok=True)
    eager = make_backend("eager", graph, folder=folder)
    views = len(shown) * config.tta.num_rotations
    rows, comparisons = [], []
    baseline = timed(lambda: eager.predict(shown), views)
    expected = eager.predict(shown)
    for name in BACKENDS[1:]:
        if obstacle(name) is not None:
            continue
        backend = make_backend(name, graph, folder=folder, calibration=bench.store.cache.images)
        ours = timed(partial(backend.predict, shown), views)
        comparisons.append(
            Comparison("predict", f"{name}, against eager PyTorch", "views/s", baseline, ours)
        )
        if name != "openvino_int8":
            apart = float(np.abs(backend.predict(shown) - expected).max())
            label = f"{name}: largest difference of a logit; baseline: the limit"
            rows.append(
                counted("predict", label, "logits", baseline=LIMIT_LOGITS, ours=max(apart, 1e-9))
            )
    return rows, comparisons


LIMIT_LOGITS = 1e-4
"""How far another way to compute the same logits may lie from PyTorch's."""

LIMIT_GB = 6.0
"""Of host memory a run beyond the shared cache."""


def _memory(bench: Bench, config: BenchmarkConfig) -> Row:
    """Return the memory of a run that walks through the input of an epoch and trains two steps."""
    with watched() as peak:
        data = build_datamodule(config, bench.store)
        for _ in data.train_dataloader():
            pass
        _fit_rate(
            bench, config, bench.classifier(config), _again(bench.batch(config.data.batch_size), 2)
        )()
    name = f"host memory beyond the cache, {len(bench.files)} cells; baseline: the limit"
    return counted("scale", name, "GB", baseline=LIMIT_GB, ours=peak.bytes / 1e9)


STAGES = {
    "data": data_stage,
    "train": train_stage,
    "eval": eval_stage,
    "predict": predict_stage,
    "scale": scale_stage,
}
"""What is measured, in this order."""

"""Training and evaluation batches for Lightning, by the roles of a split."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cnmc.config.groups import Config
from cnmc.data.augment import CellAugmentation, warp
from cnmc.data.store import CellCache, CellStore
from cnmc.errors import CnmcError
from cnmc.signals import end_with_parent


class CellBatch(NamedTuple):
    """A batch on its way to the device."""

    images: Tensor
    """B x H x W x 3, uint8, RGB. The device converts them: floats take four times the bytes."""
    labels: Tensor
    """B, float32; 1 is ALL, 0 is HEM."""
    positions: Tensor
    """B, int64; indices of the cells in the dataset."""
    sources: Tensor | None = None
    """What moves the images (see :func:`cnmc.data.augment.warp`); None if they are final."""


@dataclass(frozen=True, eq=False)
class CellDataset(Dataset[CellBatch]):
    """The cells of one role of a split, with or without augmentation."""

    cache: CellCache
    cells: pd.DataFrame
    augmentation: CellAugmentation | None
    on_device: bool
    seed: int

    def __len__(self) -> int:
        return len(self.cells)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> CellBatch:
        """Return a batch of cells by epoch and position."""
        cells = self.cells.iloc[[position for _, position in keys]]
        images = self.cache.images[[self.cache.rows[cell_id] for cell_id in cells["cell_id"]]]
        augment, sources = self.augmentation, None
        # Independent of the worker, so the number of workers changes nothing.
        seeds = [(self.seed, epoch, position) for epoch, position in keys]
        if augment is not None and self.on_device:
            drawn = [augment.draw(seed).sources(*images.shape[1:3]) for seed in seeds]
            sources = torch.from_numpy(np.stack(drawn))
        elif augment is not None:
            pairs = zip(images, seeds, strict=True)
            images = np.stack([augment(image, seed=seed) for image, seed in pairs])
        labels = torch.tensor(cells["label"].to_numpy(dtype=np.float32))
        positions = torch.tensor(cells.index.to_numpy())
        return CellBatch(torch.from_numpy(images), labels, positions, sources)


class EpochSampler(Sampler[tuple[int, int]]):
    """Every cell once an epoch, as (epoch, position), in an order of seed and epoch.

    Lightning calls :meth:`set_epoch` before each epoch, also after a resume.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples, self.seed, self.epoch = num_samples, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_samples)
        return ((self.epoch, position) for position in order.tolist())


class CellDataModule(pl.LightningDataModule):
    """Load the cells of a split: ``train`` augmented, ``val`` and ``test`` unchanged.

    A training batch that is not full is dropped (as published). With ``augment.device``, the host
    draws the augmentation and the device applies it to whole batches.
    """

    evaluated: dict[str, pd.DataFrame]
    """The evaluated cells by role, in order: cell_id, subject, label."""
    pos_weight: float
    """Weight of the positive class: n_neg / n_pos of the training cells (section 4.1)."""

    def __init__(self, config: Config, store: CellStore) -> None:
        super().__init__()
        self.config = config
        labels = store.split.cells["cell_id"].map(store.cells.set_index("cell_id")["label"])
        table = store.split.cells.assign(label=labels.astype("int64"))
        self._datasets = {
            str(role): CellDataset(
                store.cache,
                part[["cell_id", "subject", "label"]].reset_index(drop=True),
                CellAugmentation(config.augment) if role == "train" else None,
                config.augment.device,
                config.seed,
            )
            for role, part in table.groupby("role")
        }
        cells = {role: dataset.cells for role, dataset in self._datasets.items()}
        train = cells.pop("train")
        if len(train) < (size := config.data.batch_size):
            raise CnmcError(
                f"data.batch_size={size}: expected at most the {len(train)} training cells"
            )
        self.evaluated = cells
        self.pos_weight = float((train["label"] == 0).sum() / (train["label"] == 1).sum())

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled, augmented batches of the training cells."""
        dataset, workers = self._datasets["train"], self.config.data.num_workers
        sampler = EpochSampler(len(dataset), self.config.seed)
        if self.trainer is not None:
            # Lightning sets the epoch only after it has made the iterator, from which workers fetch
            # ahead: a resumed run would begin with the cells of epoch 0.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(progress.processed)
        return DataLoader(
            dataset,
            batch_size=self.config.data.batch_size,
            sampler=sampler,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=_worker_context() if workers else None,
            collate_fn=lambda batch: batch,
            worker_init_fn=partial(_set_up_worker, os.getpid()),
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self, role: str = "val") -> DataLoader[Any]:
        """Return the cells that choose the epoch."""
        # No workers: reading from the cache costs little beside the rotations of a cell.
        dataset = self._datasets[role]
        return DataLoader(
            dataset,
            batch_size=self.config.data.eval_batch_size,
            sampler=[(0, position) for position in range(len(dataset))],
            collate_fn=lambda batch: batch,
            pin_memory=torch.cuda.is_available(),
        )

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the cells that are evaluated once, at the end."""
        return self.val_dataloader("test")

    def on_after_batch_transfer(self, batch: CellBatch, _dataloader_idx: int) -> CellBatch:
        """Move the pixels of a batch that the host left unchanged."""
        if batch.sources is None:
            return batch
        return batch._replace(images=warp(batch.images, batch.sources), sources=None)


def _worker_context() -> BaseContext:
    # Named, because a process of joblib has another default.
    context = multiprocessing.get_context("fork")
    try:
        context.Lock()
    except OSError as error:
        raise CnmcError(
            f"data.num_workers: /dev/shm has no room for the locks of these processes "
            f"({error.strerror}); free some space there, or set data.num_workers=0"
        ) from error
    return context


def _set_up_worker(parent: int, _worker: int) -> None:
    # The workers end with the process that trains, and are the parallelism.
    end_with_parent(parent)
    cv2.setNumThreads(0)
    # SLURM sends these to all processes of a job before it ends: if every process answered, the job
    # would be requeued once for each.
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    # PyTorch's way through /dev/shm loses a batch when that is full, and training waits forever.
    ForkingPickler.register(Tensor, lambda tensor: (torch.from_numpy, (tensor.numpy(),)))

"""Training and evaluation batches for Lightning, by the roles of a split."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from cnmc.data.augment import CellAugmentation
from cnmc.data.cache import CellCache
from cnmc.data.dataset import (
    CellBatch,
    CellDataset,
    EpochSampler,
    collate,
    set_up_worker,
)
from cnmc.data.motion import warp
from cnmc.data.splits import Split
from cnmc.errors import CnmcError


class CellDataModule(pl.LightningDataModule):
    """Load the cells of a split: ``train`` augmented, ``val`` and ``test`` unchanged.

    Args:
        cells: Rows of a manifest; ``cell_id`` and ``label`` are used.
        split: The role of each cell.
        cache: The decoded images.
        augmentation: Changes the training cells.
        on_device: Draw the augmentation on the host and apply it to whole batches on the device.
        batch_size: Cells in a training batch; the last partial batch is dropped (as published).
        eval_batch_size: Cells in an evaluation batch.
        num_workers: Processes that augment; 0 augments in the training process.
        seed: Seed of the run, for order and augmentation.
        pin_memory: Copy batches through page-locked memory, for a GPU.

    Raises:
        CnmcError: A training batch is larger than the number of training cells.
    """

    def __init__(
        self,
        cells: pd.DataFrame,
        split: Split,
        cache: CellCache,
        *,
        augmentation: CellAugmentation | None,
        on_device: bool = False,
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        num_train = int((split.cells["role"] == "train").sum())
        if num_train < batch_size:
            raise CnmcError(
                f"data.batch_size={batch_size}: expected at most the number of training cells, "
                f"{num_train}"
            )
        self.split = split
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.pin_memory = pin_memory
        labels = split.cells["cell_id"].map(cells.set_index("cell_id")["label"])
        table = split.cells.assign(label=labels.astype("int64"))[["cell_id", "subject", "label"]]
        self._roles = {
            str(role): table.loc[rows].reset_index(drop=True)
            for role, rows in split.cells.groupby("role").groups.items()
        }
        self._datasets = {
            role: CellDataset(
                cache,
                part,
                augmentation=augmentation if role == "train" else None,
                on_device=on_device,
                seed=seed,
            )
            for role, part in self._roles.items()
        }

    @property
    def evaluated(self) -> dict[str, pd.DataFrame]:
        """The evaluated cells by role, in order: cell_id, subject, label."""
        return {role: table for role, table in self._roles.items() if role != "train"}

    @property
    def has_test(self) -> bool:
        """Whether the split has cells for one evaluation at the end."""
        return "test" in self._roles

    @property
    def pos_weight(self) -> float:
        """Weight of the positive class: n_neg / n_pos of the training cells (section 4.1)."""
        labels = self._roles["train"]["label"]
        return float((labels == 0).sum() / (labels == 1).sum())

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled, augmented batches of the training cells."""
        dataset = self._datasets["train"]
        sampler = EpochSampler(len(dataset), self.seed)
        if self.trainer is not None:
            # Lightning sets the epoch only after it has made the iterator, from which workers fetch
            # ahead: a resumed run would begin with the cells of epoch 0.
            progress: Any = self.trainer.fit_loop.epoch_progress.current
            sampler.set_epoch(progress.processed)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context=_worker_context() if self.num_workers else None,
            collate_fn=collate,
            worker_init_fn=partial(set_up_worker, os.getpid()),
            pin_memory=self.pin_memory,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the cells that choose the epoch."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the cells that are evaluated once, at the end."""
        return self._eval_dataloader("test")

    def on_after_batch_transfer(self, batch: CellBatch, _dataloader_idx: int) -> CellBatch:
        """Move the pixels of a batch that the host left unchanged."""
        if batch.sources is None:
            return batch
        return batch._replace(images=warp(batch.images, batch.sources), sources=None)

    def _eval_dataloader(self, role: str) -> DataLoader[Any]:
        # No workers: reading from the cache costs little beside the rotations of a cell.
        return DataLoader(
            self._datasets[role],
            batch_size=self.eval_batch_size,
            collate_fn=collate,
            pin_memory=self.pin_memory,
        )


def _worker_context() -> BaseContext:
    """Return how the workers are started: forked, also in a process of joblib, which forks none.

    Raises:
        CnmcError: The system has no room for the locks of the workers.
    """
    context = multiprocessing.get_context("fork")
    try:
        context.Lock()
    except OSError as error:
        raise CnmcError(
            f"data.num_workers: /dev/shm has no room for the locks of these processes "
            f"({error.strerror}); free some space there, or set data.num_workers=0"
        ) from error
    return context

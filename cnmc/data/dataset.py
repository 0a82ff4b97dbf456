"""Cells as a PyTorch dataset: uint8 pixels from the cache, augmented for training."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cnmc.data.augment import CellAugmentation
from cnmc.data.cache import CellCache
from cnmc.data.motion import Image
from cnmc.signals import end_with_parent


class CellBatch(NamedTuple):
    """A batch on its way to the device.

    Attributes:
        images: B x H x W x 3, uint8, RGB. The device converts them: floats take four times the
            bytes.
        labels: B, float32; 1 is ALL, 0 is HEM.
        positions: B, int64; indices of the cells in the dataset.
        sources: B x 2 x (H + W), int32; from where the device takes the pixels of each image (see
            :func:`cnmc.data.motion.warp`), or None if the images are final.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    sources: Tensor | None = None


class Sample(NamedTuple):
    """One cell of a :class:`CellBatch`."""

    image: Image
    label: int
    position: int
    sources: npt.NDArray[np.int32] | None


class SampleKey(NamedTuple):
    """What a training sample depends on, besides the seed of the run."""

    epoch: int
    position: int


class CellDataset(Dataset[Sample]):
    """Cells of one role of a split.

    Args:
        cache: The decoded images.
        cells: Rows with ``cell_id`` and ``label``, in the order of the dataset.
        augmentation: Changes the images; None leaves them unchanged.
        on_device: Leave the images unchanged and draw what the device needs to change them.
        seed: Seed of the run.
    """

    def __init__(
        self,
        cache: CellCache,
        cells: pd.DataFrame,
        *,
        augmentation: CellAugmentation | None = None,
        on_device: bool = False,
        seed: int = 0,
    ) -> None:
        self.cache = cache
        self.rows = cells["cell_id"].map(cache.rows).to_numpy(dtype=np.int64)
        self.labels = cells["label"].to_numpy(dtype=np.int64)
        self.augmentation = augmentation
        self.on_device = on_device
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        image: Image = np.asarray(self.cache.images[self.rows[position]])
        sources = None
        if self.augmentation is not None:
            # Independent of the worker, so the number of workers changes nothing.
            seed = (self.seed, epoch, position)
            if self.on_device:
                sources = self.augmentation.draw(seed).sources(*image.shape[:2])
            else:
                image = self.augmentation(image, seed=seed)
        return Sample(image, int(self.labels[position]), position, sources)


class EpochSampler(Sampler[SampleKey]):
    """Every cell once an epoch, in an order that depends on seed and epoch.

    Lightning calls :meth:`set_epoch` before each epoch, also after a resume, so a resumed run has
    the order and the augmentation of an uninterrupted one.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[SampleKey]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_samples)
        return (SampleKey(self.epoch, int(position)) for position in order)


def collate(samples: Sequence[Sample]) -> CellBatch:
    """Stack samples into a :class:`CellBatch`."""
    images, labels, positions, sources = zip(*samples, strict=True)
    return CellBatch(
        images=torch.from_numpy(np.stack(images)),
        labels=torch.tensor(labels, dtype=torch.float32),
        positions=torch.tensor(positions, dtype=torch.int64),
        sources=None if sources[0] is None else torch.from_numpy(np.stack(sources)),
    )


def set_up_worker(parent: int, _worker: int) -> None:
    """Set up a process of a data loader.

    The process ends with the one that trains. It gives OpenCV one core, since the workers are the
    parallelism. It ignores the signals that SLURM sends to all processes of a job before it ends:
    if every process answered, the job would be requeued once for each. It returns tensors by value:
    PyTorch's way through ``/dev/shm`` loses a batch when that is full, and training waits forever.

    Args:
        parent: Process id of the process that trains.
    """
    end_with_parent(parent)
    cv2.setNumThreads(0)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    ForkingPickler.register(Tensor, _by_value)


def _by_value(tensor: Tensor) -> tuple[Any, ...]:
    return torch.from_numpy, (tensor.numpy(),)

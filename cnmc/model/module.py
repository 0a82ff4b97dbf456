"""The classifier as Lightning trains and evaluates it: loss, rates, rotations, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryRecall,
    BinarySpecificity,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.utilities import dim_zero_cat

from cnmc.model.param_groups import parameter_groups
from cnmc.model.preprocess import to_float
from cnmc.model.tta import images_at_once, predict_logits


class Batch(Protocol):
    """What the classifier needs of a batch."""

    @property
    def images(self) -> Tensor:
        """B x H x W x 3, uint8."""

    @property
    def labels(self) -> Tensor:
        """B, float32, 1 is ALL."""


def _metrics() -> MetricCollection:
    """Return the metrics of section 4 over decisions (0 or 1)."""
    return MetricCollection(
        {
            "accuracy": BinaryAccuracy(),
            "sensitivity": BinaryRecall(),
            "specificity": BinarySpecificity(),
            "f1": MulticlassF1Score(num_classes=2, average="weighted"),
            "precision": MulticlassPrecision(num_classes=2, average="weighted"),
            "recall": MulticlassRecall(num_classes=2, average="weighted"),
        }
    )


class CellClassifier(pl.LightningModule):
    """A network with one logit, trained and evaluated by the paper's recipe (section 4).

    Args:
        network: B x 3 x H x W floats to B x 1 logits.
        stages: Name patterns of each stage's parameters.
        rates: Learning rate of each stage while the base of the schedule is 1.
        pos_weight: Weight of the positive class in the loss.
        num_rotations: Rotations of a cell whose logits are averaged: 1, 2, 4 or 8.
        decay_every: Epochs between two steps of the base of the learning rates.
        decay_factor: Factor of one step.
        weight_decay: Weight decay of Adam.
        fused: Use Adam's fused kernel.
        mean: Mean to normalise by, RGB in [0, 1]; None leaves the images in [0, 1].
        std: Standard deviation to normalise by.
        seed: Seed of the run, for what the network itself draws in training (dropout).
        channels_last: Keep the channels of a pixel beside each other in memory.
        compile: Compile the network. It is compiled for one size of a batch in training and one in
            evaluation, to which smaller batches are filled up.
        eval_batch_size: Cells in an evaluation batch; used where the network is compiled.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        stages: Mapping[str, Sequence[str]],
        rates: Mapping[str, float],
        pos_weight: float,
        num_rotations: int = 8,
        decay_every: int = 2,
        decay_factor: float = 0.1,
        weight_decay: float = 0.0,
        fused: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
        channels_last: bool = False,
        compile: bool = False,  # noqa: A002 - as the key of the configuration
        eval_batch_size: int = 1,
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network
        network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.whole_batch = eval_batch_size if compile else 1
        if compile:
            # In place: the names of the parameters, and so the checkpoints, stay as they are.
            network.compile(dynamic=False)
        self.groups = parameter_groups(network, stages, rates)
        self.num_rotations = num_rotations
        self.decay_every = decay_every
        self.decay_factor = decay_factor
        self.weight_decay = weight_decay
        self.fused = fused
        self.mean = mean
        self.std = std
        self.pos_weight = pos_weight
        self.seed = seed
        self.val_metrics = _metrics()
        self.val_auroc = BinaryAUROC()
        self.val_f1_norot = MulticlassF1Score(num_classes=2, average="weighted")
        self.val_loss = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logit of each image as it is: B x H x W x 3 uint8 to B."""
        logits: Tensor = self.network(self.to_input(_channels_first(images)))
        return logits.squeeze(1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted binary cross-entropy of section 4.1, averaged over the batch."""
        # In 32 bits also under mixed precision, which would round the weight.
        # Filled in on the device: a number that is copied there waits for all that it has to do.
        weight = torch.full((), self.pos_weight, device=logits.device)
        return binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weight)

    def rotation_logits(self, images: Tensor) -> Tensor:
        """Return one logit a rotation: B x H x W x 3 uint8 to B x K float32."""
        at_once = max(len(images), self.whole_batch)
        if images.device.type == "cpu":
            at_once = images_at_once(images.shape[1])
        # All parts of the size that the network was compiled for, where it was.
        whole = min(self.whole_batch, at_once)
        logits = [
            predict_logits(
                self.network,
                _channels_first(_filled_up(part, whole)),
                self.num_rotations,
                self.to_input,
            )[: len(part)]
            for part in torch.split(images, at_once)
        ]
        return torch.cat(logits).float()

    def configure_optimizers(self) -> Any:
        """Return Adam with a rate by stage, and the base that falls in steps."""
        # None leaves the choice to PyTorch; False would take a loop over the parameters on a GPU.
        optimizer = torch.optim.Adam(
            self.groups, weight_decay=self.weight_decay, fused=self.fused or None
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: self.decay_factor ** (epoch // self.decay_every)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def on_train_epoch_start(self) -> None:
        """Tie what the network draws (dropout) to seed and epoch, so that a resume repeats it."""
        state = np.random.SeedSequence([self.seed, self.current_epoch]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, _position: int) -> Tensor:
        """Return the loss of a batch."""
        loss = self.loss(self(batch.images), batch.labels)
        size = len(batch.labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, logger=False, batch_size=size)
        self.log("train/loss_step", loss, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, _position: int) -> Tensor:
        """Return one logit a rotation (B x K) and count them in the metrics."""
        rotations = self.rotation_logits(batch.images)
        logits = rotations.mean(dim=1)
        labels = batch.labels.int()
        self.val_loss.update(self.loss(logits, batch.labels), weight=len(labels))
        self.val_metrics.update((logits > 0).int(), labels)
        # In double precision: a float32 sigmoid makes ties of logits above 17.
        self.val_auroc.update(logits.double().sigmoid(), labels)
        self.val_f1_norot.update((rotations[:, 0] > 0).int(), labels)
        return rotations

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of section 4 over all evaluated cells."""
        values = {name: float(value) for name, value in self.val_metrics.compute().items()}
        values["auroc"] = float(self.val_auroc.compute())
        # Where a class is missing torchmetrics says 0; what is not defined is NaN here.
        classes = set(dim_zero_cat(self.val_auroc.target).tolist())
        for name, needed in (("auroc", {0, 1}), ("sensitivity", {1}), ("specificity", {0})):
            if not needed <= classes:
                values[name] = float("nan")
        values["f1_norot"] = float(self.val_f1_norot.compute())
        values["loss"] = float(self.val_loss.compute())
        for metric in (self.val_metrics, self.val_auroc, self.val_f1_norot, self.val_loss):
            metric.reset()
        for name, value in values.items():
            # The recorder passes them on to the loggers, under the epoch that they belong to.
            self.log(f"val/{name}", value, prog_bar=name == "f1", logger=False)

    def test_step(self, batch: Batch, _position: int) -> Tensor:
        """Return one logit a rotation (B x K)."""
        return self.rotation_logits(batch.images)

    def predict_step(self, batch: Batch, _position: int) -> Tensor:
        """Return one logit a rotation (B x K)."""
        return self.rotation_logits(batch.images)

    def to_input(self, images: Tensor) -> Tensor:
        """Return what the network sees of bytes: B x 3 x H x W uint8 to float32."""
        return to_float(images, self.mean, self.std, memory_format=self.memory_format)


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def _filled_up(images: Tensor, size: int) -> Tensor:
    """Return a batch of at least ``size`` images, black ones added."""
    missing = size - len(images)
    return (
        images
        if missing <= 0
        else torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
    )

"""The Lightning module: loss, learning rates, test-time rotations and metrics of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, MetricCollection, classification
from torchmetrics.utilities import dim_zero_cat

from cnmc.model.optimizer import OptimizerOptions, build_optimizer, parameter_groups
from cnmc.model.tta import images_at_once, predict_logits, to_float


class CellClassifier(pl.LightningModule):
    """Train and evaluate a network with one logit by the paper's recipe (section 4).

    A batch has ``images``, B x H x W x 3 uint8, and ``labels``, B float32 with 1 for ALL.

    Args:
        network: B x 3 x H x W floats to B x 1 logits.
        optimizer: Stages of the network, their learning rates, and the other options of Adam.
        pos_weight: Weight of the positive class in the loss.
        num_rotations: Number of rotations whose logits are averaged: 1, 2, 4 or 8.
        mean: RGB mean to normalize by, in units of [0, 1]; None leaves the images in [0, 1].
        std: RGB standard deviation to normalize by.
        seed: Seed of dropout.
        channels_last: Use the channels-last memory layout.
        compiled_batch: Compile the network for evaluation batches of this size.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: OptimizerOptions,
        pos_weight: float,
        num_rotations: int = 8,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
        channels_last: bool = False,
        compiled_batch: int | None = None,
    ) -> None:
        super().__init__()
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network
        network.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.to_input = partial(to_float, mean=mean, std=std, memory_format=memory_format)
        if compiled_batch is not None:
            # Compiled in place, so that the names of the parameters stay the same.
            network.compile(dynamic=False)
        self.optimizer_options = optimizer
        self.groups = parameter_groups(network, optimizer.stages, optimizer.rates)
        self.pos_weight = pos_weight
        self.num_rotations = num_rotations
        self.seed = seed
        self.compiled_batch = compiled_batch
        weighted: dict[str, Any] = {"num_classes": 2, "average": "weighted"}
        self.val_metrics = MetricCollection(
            {
                "accuracy": classification.BinaryAccuracy(),
                "sensitivity": classification.BinaryRecall(),
                "specificity": classification.BinarySpecificity(),
                "f1": classification.MulticlassF1Score(**weighted),
                "precision": classification.MulticlassPrecision(**weighted),
                "recall": classification.MulticlassRecall(**weighted),
            }
        )
        self.val_auroc = classification.BinaryAUROC()
        self.val_f1_norot = classification.MulticlassF1Score(**weighted)
        self.val_loss = MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logit of each image without rotation: B x H x W x 3 uint8 to B."""
        logits: Tensor = self.network(self.to_input(images.permute(0, 3, 1, 2)))
        return logits.squeeze(1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted binary cross-entropy (section 4.1), averaged over a batch."""
        # Mixed precision would round the weight, so the loss is computed in 32 bits. ``torch.full``
        # creates the weight on the device; copying it there would wait for the device.
        weight = torch.full((), self.pos_weight, device=logits.device)
        return binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=weight)

    def rotation_logits(self, images: Tensor) -> Tensor:
        """Return one logit for each rotation: B x H x W x 3 uint8 to B x K float32."""
        at_once = self.compiled_batch or len(images)
        if images.device.type == "cpu":
            at_once = min(at_once, images_at_once(images.shape[1]))
        logits = []
        for part in torch.split(images, at_once):
            padding = at_once - len(part) if self.compiled_batch is not None else 0
            padded = torch.cat([part, part.new_zeros(padding, *part.shape[1:])])
            views = padded.permute(0, 3, 1, 2)
            found = predict_logits(self.network, views, self.num_rotations, self.to_input)
            logits.append(found[: len(part)])
        return torch.cat(logits)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        return build_optimizer(self.groups, self.optimizer_options)

    def on_train_epoch_start(self) -> None:
        """Seed dropout by run and epoch, so that a resumed run repeats it."""
        state = np.random.SeedSequence([self.seed, self.current_epoch]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Any, _position: int) -> Tensor:
        """Return the loss of a batch."""
        loss = self.loss(self(batch.images), batch.labels)
        size = len(batch.labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, logger=False, batch_size=size)
        self.log("train/loss_step", loss, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: Any, _position: int) -> Tensor:
        """Return one logit for each rotation (B x K), and update the metrics."""
        rotations = self.rotation_logits(batch.images)
        logits = rotations.mean(dim=1)
        labels = batch.labels.int()
        self.val_loss.update(self.loss(logits, batch.labels), weight=len(labels))
        self.val_metrics.update((logits > 0).int(), labels)
        # In double precision, since the float32 sigmoid of all logits above 17 is 1.
        self.val_auroc.update(logits.double().sigmoid(), labels)
        self.val_f1_norot.update((rotations[:, 0] > 0).int(), labels)
        return rotations

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all evaluated cells as ``val/<name>``."""
        values: dict[str, Any] = self.val_metrics.compute()
        values["auroc"] = self.val_auroc.compute()
        # torchmetrics returns 0 where a class is missing; an undefined metric is NaN here.
        classes = set(dim_zero_cat(self.val_auroc.target).tolist())
        for name, needed in (("auroc", {0, 1}), ("sensitivity", {1}), ("specificity", {0})):
            if not needed <= classes:
                values[name] = float("nan")
        values["f1_norot"] = self.val_f1_norot.compute()
        values["loss"] = self.val_loss.compute()
        for metric in (self.val_metrics, self.val_auroc, self.val_f1_norot, self.val_loss):
            metric.reset()
        for name, value in values.items():
            # The recorder passes them to the loggers together with the epoch.
            self.log(f"val/{name}", float(value), prog_bar=name == "f1", logger=False)

    def test_step(self, batch: Any, _position: int) -> Tensor:
        """Return one logit for each rotation (B x K)."""
        return self.rotation_logits(batch.images)

    predict_step = test_step

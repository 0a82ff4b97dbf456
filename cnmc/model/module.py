"""The Lightning module: loss, learning rates, test-time rotations and metrics of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, MetricCollection, classification
from torchmetrics.utilities import dim_zero_cat

from cnmc.config.groups import Config
from cnmc.errors import CnmcError
from cnmc.model.tta import images_at_once, predict_logits, to_float


class CellClassifier(pl.LightningModule):
    """Train and evaluate a network with one logit by the paper's recipe (section 4).

    A batch has ``images``, B x H x W x 3 uint8, and ``labels``, B float32 with 1 for ALL.

    The network maps B x 3 x H x W floats to B x 1 logits. ``pos_weight`` is the weight of the
    positive class in the loss.
    """

    def __init__(self, network: nn.Module, config: Config, pos_weight: float) -> None:
        super().__init__()
        model, trainer = config.model, config.trainer
        memory_format = torch.channels_last if trainer.channels_last else torch.contiguous_format
        self.network = network
        network.to(memory_format=memory_format)  # type: ignore[call-overload]
        mean, std = (model.mean, model.std) if model.normalize else (None, None)
        self.to_input = partial(to_float, mean=mean, std=std, memory_format=memory_format)
        self.compiled_batch = config.data.eval_batch_size if trainer.compile else None
        if trainer.compile:
            # Compiled in place, so that the names of the parameters stay the same.
            network.compile(dynamic=False)
        self.optimizer_config = config.optimizer
        self.groups = parameter_groups(network, model.stages, config.optimizer.rates)
        self.pos_weight = pos_weight
        self.num_rotations = config.tta.num_rotations
        self.seed = config.seed
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
        """Return Adam with one learning rate for each stage, and its schedule (section 4.1)."""
        config = self.optimizer_config
        # ``fused=None`` leaves the choice to PyTorch; False would select the slow loop on a GPU.
        optimizer = torch.optim.Adam(
            self.groups, weight_decay=config.weight_decay, fused=config.fused or None
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: config.decay_factor ** (epoch // config.decay_every)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

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


def parameter_groups(
    network: nn.Module, stages: Mapping[str, Sequence[str]], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Divide the parameters of a network into one optimizer group for each stage.

    Patterns are shell wildcards over parameter names; the first match decides. A stage without
    patterns has no group.

    Raises:
        CnmcError: A pattern decides for no parameter, no pattern matches a parameter, or a stage
            has no rate. Each would silently train a part of the network at the wrong rate.
    """
    order = [(stage, pattern) for stage, patterns in stages.items() for pattern in patterns]
    members: dict[str, list[nn.Parameter]] = {stage: [] for stage in stages}
    used, unmatched = set(), []
    for name, parameter in network.named_parameters():
        match = next((item for item in order if fnmatchcase(name, item[1])), None)
        if match is None:
            unmatched.append(name)
        else:
            members[match[0]].append(parameter)
            used.add(match)
    for stage, pattern in order:
        if (stage, pattern) not in used:
            raise CnmcError(
                f'model.stages.{stage}: the pattern "{pattern}" decides for no parameter (it '
                "matches none, or only what earlier patterns match); correct or remove it"
            )
        if stage not in rates:
            raise CnmcError(f"optimizer.lr.{stage}: missing, but the stage has parameters")
    if unmatched:
        names = ", ".join(unmatched[:5]) + (", ..." if len(unmatched) > 5 else "")
        raise CnmcError(f"model.stages: no pattern matches {names}; add a pattern")
    return [
        {"name": stage, "params": parameters, "lr": rates[stage]}
        for stage, parameters in members.items()
        if parameters
    ]

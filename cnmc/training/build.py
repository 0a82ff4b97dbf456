"""Builds the objects that train a run from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from cnmc.config import Config, TrainerConfig
from cnmc.data.augment import CellAugmentation
from cnmc.data.datamodule import CellDataModule
from cnmc.data.store import CellStore
from cnmc.errors import CnmcError
from cnmc.model.backbone import build_network
from cnmc.model.module import CellClassifier
from cnmc.model.optimizer import OptimizerOptions


def build_datamodule(config: Config, store: CellStore) -> CellDataModule:
    """Return the data module of a run."""
    augment = asdict(config.augment)
    on_device = augment.pop("device")
    return CellDataModule(
        store,
        augmentation=CellAugmentation(**augment),
        on_device=on_device,
        batch_size=config.data.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        num_workers=config.data.num_workers,
        seed=config.seed,
    )


def build_classifier(config: Config, pos_weight: float) -> CellClassifier:
    """Return the classifier of a run, with the initial weights of ``config.model``."""
    network = build_network(
        config.model.name,
        pretrained=config.model.pretrained,
        weights=config.model.weights,
        drop_rate=config.model.drop_rate,
    )
    options = OptimizerOptions(
        stages=asdict(config.model.stages),
        rates=config.optimizer.rates,
        decay_every=config.optimizer.decay_every,
        decay_factor=config.optimizer.decay_factor,
        weight_decay=config.optimizer.weight_decay,
        fused=config.optimizer.fused,
    )
    return CellClassifier(
        network,
        optimizer=options,
        pos_weight=pos_weight,
        num_rotations=config.tta.num_rotations,
        mean=config.model.mean if config.model.normalize else None,
        std=config.model.std if config.model.normalize else None,
        seed=config.seed,
        channels_last=config.trainer.channels_last,
        compiled_batch=config.data.eval_batch_size if config.trainer.compile else None,
    )


def build_trainer(
    config: Config,
    *,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger] = (),
    gpu: int | None = None,
) -> pl.Trainer:
    """Return the trainer of a run, on one device.

    Args:
        config: The configuration.
        callbacks: Record, store and show the run, in their order.
        loggers: Receive the metrics besides the run folder.
        gpu: Index of the GPU to train on; None leaves the choice to Lightning.

    Raises:
        CnmcError: This machine does not have the accelerator.
    """
    options: dict[str, Any] = {
        "accelerator": config.trainer.accelerator,
        "devices": 1 if gpu is None else [gpu],
        "precision": lightning_precision(config.trainer),
        "deterministic": config.trainer.deterministic,
        "max_epochs": config.trainer.max_epochs,
        "limit_train_batches": config.trainer.limit_train_batches,
        "limit_val_batches": config.trainer.limit_val_batches,
        "limit_test_batches": config.trainer.limit_val_batches,
    }
    try:
        return pl.Trainer(
            **options,
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            enable_progress_bar=False,
            enable_model_summary=False,
            # A run is one process. In a SLURM job Lightning would expect several, and requeue the
            # job itself, which is submitit's task.
            plugins=[LightningEnvironment()],
            # Epoch 0, the network before training, is evaluated instead.
            num_sanity_val_steps=0,
            # The metrics keep their state from evaluation to evaluation; training runs between.
            inference_mode=False,
            log_every_n_steps=10,
        )
    except MisconfigurationException as error:
        raise CnmcError(
            f"trainer.accelerator={config.trainer.accelerator}: this machine has none "
            f"({' '.join(str(error).split())}); use trainer.accelerator=auto"
        ) from error


def lightning_precision(trainer: TrainerConfig) -> str:
    """Return Lightning's name of the precision, with ``auto`` resolved for this machine."""
    if trainer.precision != "auto":
        return trainer.precision
    on_gpu = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    # Older cards emulate bfloat16, which is slower than 32 bits.
    exists = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if exists else "32-true"


def device_name(trainer: pl.Trainer) -> str:
    """Return the device that a trainer uses, with the name of the card where it is one."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

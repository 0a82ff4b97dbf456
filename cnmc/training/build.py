"""Builds the objects that train a run from its configuration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import Logger

from cnmc.config.groups import Config, TrainerConfig
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
    model, steps = config.model, config.optimizer
    options = {name: getattr(steps, name) for name in ("decay_every", "decay_factor", "fused")}
    return CellClassifier(
        build_network(
            model.name,
            pretrained=model.pretrained,
            weights=model.weights,
            drop_rate=model.drop_rate,
        ),
        optimizer=OptimizerOptions(
            model.stages, steps.rates, weight_decay=steps.weight_decay, **options
        ),
        pos_weight=pos_weight,
        num_rotations=config.tta.num_rotations,
        mean=model.mean if model.normalize else None,
        std=model.std if model.normalize else None,
        seed=config.seed,
        channels_last=config.trainer.channels_last,
        compiled_batch=config.data.eval_batch_size if config.trainer.compile else None,
    )


def build_trainer(
    config: Config,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger] = (),
    gpu: int | None = None,
) -> pl.Trainer:
    """Return the trainer of a run, on one device; ``gpu=None`` leaves the choice to Lightning."""
    # Lightning's advice would drown the lines about the runs.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    trainer = config.trainer
    precision: Any = lightning_precision(trainer)
    try:
        return pl.Trainer(
            accelerator=trainer.accelerator,
            devices=1 if gpu is None else [gpu],
            precision=precision,
            deterministic=trainer.deterministic,
            max_epochs=trainer.max_epochs,
            limit_train_batches=trainer.limit_train_batches,
            limit_val_batches=trainer.limit_val_batches,
            limit_test_batches=trainer.limit_val_batches,
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            # In a SLURM job Lightning would expect several processes, and requeue the job, which
            # submitit does.
            plugins=[LightningEnvironment()],
            # Epoch 0, the network before training, is evaluated instead.
            num_sanity_val_steps=0,
            # The metrics keep their state from evaluation to evaluation; training runs between.
            inference_mode=False,
            log_every_n_steps=10,
        )
    except MisconfigurationException as error:
        raise CnmcError(
            f"trainer.accelerator={trainer.accelerator}: not available on this machine "
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
    """Return the device of a trainer; for a GPU, its name."""
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

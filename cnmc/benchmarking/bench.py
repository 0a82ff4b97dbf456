"""What the stages measure with: a configuration, its presets, and generated cells."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import yaml

from cnmc.config import CONFIG_DIR, BenchmarkConfig, TrainerConfig
from cnmc.data.dataset import CellBatch, Sample, collate
from cnmc.data.store import CellStore, open_cells
from cnmc.model.module import CellClassifier
from cnmc.training.build import build_classifier

_ARITHMETIC = ("precision", "channels_last", "compile")
"""What a preset may say of the trainer, beside the number of epochs."""


@dataclass(frozen=True)
class Bench:
    """What the stages measure with.

    Attributes:
        config: As the user gave it.
        store: The cells.
        gpu: The one to compute on, as PyTorch counts them; None computes on the CPU.
    """

    config: BenchmarkConfig
    store: CellStore
    gpu: int | None = None

    @classmethod
    def opened(cls, config: BenchmarkConfig, gpu: int | None) -> Bench:
        """Return a bench in another process, which finds the cells where they were made."""
        return cls(config, open_cells(config.data, config.split, show_progress=False), gpu)

    @property
    def files(self) -> list[Path]:
        """The images that train, as they lie on the disk."""
        return self.files_of("train")

    def files_of(self, role: str) -> list[Path]:
        """Return the images of a role of the split, in its order."""
        split = self.store.split.cells
        paths = self.store.cells.set_index("cell_id")["path"]
        chosen = split.loc[split["role"] == role, "cell_id"]
        return [self.store.manifest.root / path for path in paths.loc[chosen]]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return torch.device("cpu" if self.gpu is None else f"cuda:{self.gpu}")

    @property
    def runs_at_once(self) -> int:
        """Runs that share the device: four fill a large GPU, and one all cores."""
        return self.config.runs_at_once or (1 if self.gpu is None else 4)

    def preset(self, name: str) -> BenchmarkConfig:
        """Return the configuration with a preset of ``conf/trainer`` and nothing of another."""
        values = yaml.safe_load((CONFIG_DIR / "trainer" / f"{name}.yaml").read_text())
        # A preset that reaches beyond the trainer names its groups.
        groups = values if "trainer" in values else {"trainer": values}
        usual = TrainerConfig()
        kept = {key: groups["trainer"].get(key, getattr(usual, key)) for key in _ARITHMETIC}
        fused = groups.get("optimizer", {}).get("fused", False)
        return replace(
            self.config,
            trainer=replace(self.config.trainer, **kept),
            optimizer=replace(self.config.optimizer, fused=fused),
        )

    def classifier(self, config: BenchmarkConfig) -> CellClassifier:
        """Return the classifier of a run, on the device."""
        torch.manual_seed(config.seed)
        return build_classifier(config, pos_weight=0.5).to(self.device)

    def repeated(self, role: str, number: int) -> CellStore:
        """Return the same cells, those of a role so often that they are at least so many."""
        split = self.store.split
        part = split.cells[split.cells["role"] == role]
        more = [part] * (math.ceil(number / len(part)) - 1)
        return replace(
            self.store,
            split=replace(split, cells=pd.concat([split.cells, *more], ignore_index=True)),
        )

    def batch(self, size: int) -> CellBatch:
        """Return a batch of cells as the loader makes it, on the device."""
        images = self.store.cache.images
        rows = [position % len(images) for position in range(size)]
        batch = collate([Sample(images[row], row % 2, row, None) for row in rows])
        return batch._replace(
            images=batch.images.to(self.device), labels=batch.labels.to(self.device)
        )

    def wait(self) -> None:
        """Return when the device has done what it was asked to do."""
        if self.gpu is not None:
            torch.cuda.synchronize(self.device)

"""What the stages measure with: a configuration, its presets, and generated cells."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import yaml

from cnmc.build import build_classifier
from cnmc.config import CONFIG_DIR, BenchmarkConfig
from cnmc.data.dataset import CellBatch, Sample, collate
from cnmc.data.store import CellStore
from cnmc.model.module import CellClassifier


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

    @property
    def runs_at_once(self) -> int:
        """Runs that share the device: four fill a large GPU, and one all cores."""
        return self.config.runs_at_once or (4 if self.device.type == "cuda" else 1)

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
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

"""Turn a trained checkpoint into a module that maps the bytes of cropped cells to logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnmc.analysis.calibration import choose_of_epoch
from cnmc.analysis.decision import Decision
from cnmc.deploy.networks import GraphInfo, Images, Logits
from cnmc.errors import CnmcError
from cnmc.model.backbone import build_network
from cnmc.model.checkpoint import load_checkpoint
from cnmc.model.tta import images_at_once, predict_logits, rotate, rotation_columns, to_float
from cnmc.runs.folder import RunFolder

_PREFIX = "network."


class CellGraph(nn.Module):
    """Rotate cells, scale them, and compute the logits of all rotations in one batch.

    Nothing in it depends on the number of cells, so that an exporter can record it. The network
    maps B x 3 x S x S floats to B x 1 logits; it is put into evaluation mode.
    """

    sources: Tensor

    def __init__(self, network: nn.Module, info: GraphInfo) -> None:
        super().__init__()
        self.network = network
        self.info = info
        # Rotated pixel numbers are the sources of the pixels of all views; 0 is black.
        numbers = torch.arange(1, info.size**2 + 1).view(1, 1, info.size, info.size)
        angles = rotation_columns(info.num_rotations)
        views = [rotate(numbers, eighths).flatten() for eighths in angles]
        self.register_buffer("sources", torch.cat(views), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape B x K for uint8 images of shape B x S x S x 3."""
        size = self.info.size
        pixels = nn.functional.pad(images.flatten(1, 2), (0, 0, 1, 0))
        views = pixels.index_select(1, self.sources).reshape(-1, size, size, 3).permute(0, 3, 1, 2)
        logits: Tensor = self.network(self.scaled(views))
        return logits.reshape(-1, self.info.num_rotations).float()

    def scaled(self, views: Tensor) -> Tensor:
        """Convert uint8 views to the floats that the network takes."""
        return to_float(views, self.info.mean, self.info.std)

    @torch.no_grad()
    def predict(self, images: Images) -> Logits:
        """Return the logits of cells, one rotation at a time, exactly as in training."""
        # A copy, because PyTorch warns about arrays that cannot be written to.
        cells = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
        parts = [
            predict_logits(self.network, part, self.info.num_rotations, self.scaled)
            for part in torch.split(cells, images_at_once(self.info.size))
        ]
        logits: Logits = torch.cat(parts).numpy()
        return logits


@dataclass(frozen=True)
class TrainedNetwork:
    """A checkpoint of a run, with the run's resolved configuration."""

    path: Path
    graph: CellGraph
    config: Mapping[str, Any]
    folder: RunFolder | None
    """Run folder that contains the file; None where it lies elsewhere."""

    @property
    def info(self) -> GraphInfo:
        """Description of the network."""
        return self.graph.info


def read_trained(path: Path) -> TrainedNetwork:
    """Read ``best.ckpt`` or ``last.ckpt`` of a run; no code in the file is executed."""
    checkpoint = load_checkpoint(path)
    origin = checkpoint["cnmc"]
    try:
        run, epoch = dict(origin["run"]), int(origin["epoch"])
        folder = _folder_of(path, run.get("run_id"))
        # Only the run folder knows where the data are.
        config = folder.read_config() if folder is not None else dict(origin["config"])
        if "decision" in origin:
            decision = Decision.from_values(origin["decision"])
        else:  # last.ckpt has none
            decision = choose_of_epoch(folder.read_predictions() if folder else None, epoch)
        info = describe(config, run=run, epoch=epoch, decision=decision)
        state = {
            key.removeprefix(_PREFIX): value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith(_PREFIX)
        }
        network = build_network(info.network, pretrained=False, weights=None, drop_rate=0.0)
        network.load_state_dict(state)
        return TrainedNetwork(path, CellGraph(network, info), config, folder)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(
            f"{path}: no network can be built from this checkpoint ({type(error).__name__}: "
            f"{reason}); give best.ckpt of a run"
        ) from None


def describe(config: Mapping[str, Any], **others: Any) -> GraphInfo:
    """Return the description of the network of a resolved configuration."""
    data, model = config["data"], config["model"]
    return GraphInfo(
        network=model["name"],
        crop=data["crop"],
        resize=data["resize"],
        num_rotations=config["tta"]["num_rotations"],
        mean=tuple(model["mean"]) if model["normalize"] else None,
        std=tuple(model["std"]) if model["normalize"] else None,
        **others,
    )


def _folder_of(path: Path, run_id: str | None) -> RunFolder | None:
    """Return the run folder of a checkpoint, unless another run was started there since."""
    folder = RunFolder(path.resolve().parent.parent)
    if path.resolve() not in (folder.best_checkpoint, folder.last_checkpoint):
        return None
    info = folder.read_info()
    return folder if info is not None and info.run_id == run_id else None

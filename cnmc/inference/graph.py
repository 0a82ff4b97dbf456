"""A trained network with everything around it: bytes of cropped cells in, logits out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnmc.callbacks.checkpoints import read_checkpoint
from cnmc.errors import CnmcError
from cnmc.inference.choosing import choose_of_epoch
from cnmc.inference.decision import Decision
from cnmc.inference.runtime import GraphInfo
from cnmc.model.backbone import build_network
from cnmc.model.preprocess import to_float
from cnmc.model.tta import predict_logits, rotate, rotation_columns
from cnmc.runs import run_folder


class CellGraph(nn.Module):
    """Rotates cells, scales them, and lets the network look at all of their views at once.

    It has no branches and no Python numbers that depend on the batch, so every exporter sees the
    same few operations whatever the number of cells.

    Args:
        network: B x 3 x S x S floats to B x 1 logits; it is put into evaluation mode.
        info: How the cells were cropped and scaled, and how they are rotated.
    """

    sources: Tensor

    def __init__(self, network: nn.Module, info: GraphInfo) -> None:
        super().__init__()
        self.network = network
        self.info = info
        size = info.size
        # Every pixel knows its own number, counted from 1; rotated, it tells where each pixel of a
        # view comes from. The black that rotation fills in is pixel 0.
        numbers = torch.arange(1, size * size + 1).view(1, 1, size, size)
        views = [rotate(numbers, eighths).flatten() for eighths in self.columns]
        self.register_buffer("sources", torch.cat(views), persistent=False)
        self.eval()

    @property
    def columns(self) -> tuple[int, ...]:
        """Angle of each column of logits, in eighths of a turn."""
        return rotation_columns(self.info.num_rotations)

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit a rotation: B x S x S x 3 uint8 to B x K float32."""
        size, num_views = self.info.size, self.info.num_rotations
        pixels = nn.functional.pad(images.flatten(1, 2), (0, 0, 1, 0))
        views = pixels.index_select(1, self.sources).reshape(-1, size, size, 3).permute(0, 3, 1, 2)
        logits: Tensor = self.network(to_float(views, self.info.mean, self.info.std))
        return logits.reshape(-1, num_views).float()

    def one_by_one(self, images: Tensor) -> Tensor:
        """Return what :meth:`forward` does, a view at a time, as it is done in training."""
        return predict_logits(
            self.network,
            images.permute(0, 3, 1, 2),
            self.info.num_rotations,
            lambda views: to_float(views, self.info.mean, self.info.std),
        )


def load_graph(path: Path) -> CellGraph:
    """Return the graph of a run's checkpoint.

    What a checkpoint of an early version does not say itself is looked up in its run folder.

    Args:
        path: ``best.ckpt`` or ``last.ckpt`` of a run folder.

    Raises:
        CnmcError: The file is no checkpoint of a run, or its network cannot be built.
    """
    checkpoint = read_checkpoint(path)
    origin = checkpoint.get("cnmc") or _origin_by_folder(path, checkpoint)
    try:
        config = origin["config"]
        data, model = config["data"], config["model"]
        info = GraphInfo(
            network=model["name"],
            crop=data["crop"],
            resize=data["resize"],
            num_rotations=config["tta"]["num_rotations"],
            mean=tuple(model["mean"]) if model["normalize"] else None,
            std=tuple(model["std"]) if model["normalize"] else None,
            run=dict(origin["run"]),
            epoch=origin["epoch"],
            decision=_decision(path, origin),
        )
        network = build_network(info.network, pretrained=False, weights=None, drop_rate=0.0)
        prefix = "network."
        network.load_state_dict(
            {
                key.removeprefix(prefix): value
                for key, value in checkpoint["state_dict"].items()
                if key.startswith(prefix)
            }
        )
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(
            f"{path}: no network can be built of this checkpoint ({type(error).__name__}: "
            f"{reason}); give best.ckpt of a run that this version of cnmc can read"
        ) from error
    return CellGraph(network, info)


def _origin_by_folder(path: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what the run folder says of its best checkpoint."""
    folder = run_folder(path)
    info = folder.read_info() if folder is not None else None
    # The early checkpoints count epochs from 0, and say no more of themselves.
    if folder is None or info is None or checkpoint.get("epoch") != (info.best_epoch or 0) - 1:
        raise CnmcError(f"{path} is no checkpoint of cnmc: it has no cnmc metadata")
    return {"config": folder.read_config(), "run": info.identity(), "epoch": info.best_epoch}


def _decision(path: Path, origin: dict[str, Any]) -> Decision:
    """Return what was chosen by the epoch's predictions, of early versions from the run folder."""
    if "decision" in origin:
        return Decision.from_values(origin["decision"])
    folder = run_folder(path)
    info = folder.read_info() if folder is not None else None
    if folder is None or info is None or info.run_id != origin["run"].get("run_id", ""):
        return Decision()
    return choose_of_epoch(folder.read_predictions(), int(origin["epoch"]))

"""A trained network with everything around it: bytes of cropped cells in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cnmc.deploy.runtime import GraphInfo
from cnmc.deploy.trained import TrainedNetwork, read_trained
from cnmc.errors import CnmcError
from cnmc.model.backbone import build_network
from cnmc.model.preprocess import to_float
from cnmc.model.tta import predict_logits, rotate, rotation_columns


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

    Args:
        path: ``best.ckpt`` or ``last.ckpt`` of a run folder.

    Raises:
        CnmcError: The file is no checkpoint of a run, or its network cannot be built.
    """
    return build_graph(read_trained(path))


def build_graph(trained: TrainedNetwork) -> CellGraph:
    """Return the graph of a network.

    Raises:
        CnmcError: The network cannot be built, or its numbers are those of another.
    """
    try:
        data, model = trained.config["data"], trained.config["model"]
        info = GraphInfo(
            network=model["name"],
            crop=data["crop"],
            resize=data["resize"],
            num_rotations=trained.config["tta"]["num_rotations"],
            mean=tuple(model["mean"]) if model["normalize"] else None,
            std=tuple(model["std"]) if model["normalize"] else None,
            run=dict(trained.run),
            epoch=trained.epoch,
            decision=trained.decision,
        )
        network = build_network(info.network, pretrained=False, weights=None, drop_rate=0.0)
        prefix = "network."
        state = {
            key.removeprefix(prefix): value
            for key, value in trained.state_dict.items()
            if key.startswith(prefix)
        }
        _check_numbers(state)
        network.load_state_dict(state)
        return CellGraph(network, info)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(
            f"{trained.path}: no network can be built of this checkpoint ({type(error).__name__}: "
            f"{reason}); give best.ckpt of a run that this version of cnmc can read"
        ) from error


def _check_numbers(state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that PyTorch would load and that no network can compute with."""
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise ValueError(f"{name} is not a dense tensor of real numbers")
        if not value.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")

"""Networks whose logits are large enough that a wrong one shows, and cells for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cnmc.data.sources.synthetic_cells import draw_cell, subject_traits
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.networks import GraphInfo, Images
from cnmc.model.backbone import build_network
from cnmc.model.tta import to_float

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def cells(num_cells: int, size: int) -> Images:
    """Draw cells of both classes: uint8, (num_cells, size, size, 3)."""
    rng = np.random.default_rng(0)
    drawn = [
        draw_cell(rng, number % 2, subject_traits(0, 0, number % 2, number // 2), size)
        for number in range(num_cells)
    ]
    return np.stack(drawn).astype(np.uint8)


def random_graph(name: str, size: int, num_rotations: int = 8) -> CellGraph:
    """Build a network with random numbers whose logits have mean 0 and standard deviation 1."""
    torch.manual_seed(0)
    network = build_network(name, pretrained=False, weights=None, drop_rate=0.0)
    info = GraphInfo(
        network=name,
        crop=size,
        num_rotations=num_rotations,
        mean=MEAN,
        std=STD,
        run={"experiment": "demo", "name": "seed=0"},
        epoch=3,
    )
    shown = cells(8, size)
    settle(network, shown)
    with torch.no_grad():
        graph = CellGraph(network, info)
        head = network.get_classifier()  # type: ignore[operator]
        head.weight.div_(float(graph.predict(shown).std(ddof=1)))
        head.bias.sub_(float(graph.predict(shown).mean()))
    return graph


def settle(network: nn.Module, images: Images) -> None:
    """Make the statistics of batch normalisation those of cells, as in a trained network."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(to_float(torch.from_numpy(images).permute(0, 3, 1, 2), MEAN, STD))
    network.eval()


def trained_graph(size: int) -> tuple[CellGraph, Images, NDArray[np.int64]]:
    """Train a tiny network to tell dark cells from bright ones, which takes a second.

    The rounding of 8 bits would drown the small logits of a random network.

    Returns:
        The network, 24 cells, and whether each is bright.
    """
    graph = random_graph("test_resnet", size, num_rotations=2)
    images, labels = cells(24, size), np.arange(24) % 2
    images[::2] //= 2
    inputs = to_float(torch.from_numpy(images[:16]).permute(0, 3, 1, 2), MEAN, STD)
    targets = torch.from_numpy(labels[:16]).float()
    for module in graph.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.2
    graph.network.train()
    optimizer = torch.optim.Adam(graph.network.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        logits = graph.network(inputs).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    graph.eval()
    return graph, images, labels


def checkpoint_content(graph: CellGraph) -> dict[str, Any]:
    """Return what the checkpoint of a network contains."""
    info = graph.info
    config = {
        "data": {"crop": info.crop, "resize": info.resize},
        "split": {"kind": "nested", "seed": 3},
        "model": {
            "name": info.network,
            "normalize": True,
            "mean": list(info.mean or ()),
            "std": list(info.std or ()),
        },
        "tta": {"num_rotations": info.num_rotations},
    }
    origin = {"config": config, "run": dict(info.run), "epoch": info.epoch}
    return {
        "state_dict": {f"network.{k}": v for k, v in graph.network.state_dict().items()},
        "cnmc": origin | {"decision": asdict(info.decision)},
    }

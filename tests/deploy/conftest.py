"""An exported network of a few kilobytes, and cells for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import load, save
from PIL import Image

from cnmc.analysis.decision import Decision
from cnmc.deploy.formats import write_network
from cnmc.deploy.networks import METADATA, GraphInfo
from tests.deploy.networks import cells, random_graph

SIZE = 32
DECISION = Decision(2.0, 0.4, "val", 20, ((0.2, 1.0, 0.5), (0.4, 0.9, 0.8), (0.7, 0.5, 1.0)))


def variant(onnx: Path, path: Path, **changes: Any) -> Path:
    """Write the same network with other metadata, which makes it another; exporting takes long."""
    model = load(onnx)
    entry = next(item for item in model.metadata_props if item.key == METADATA)
    info = GraphInfo.from_json(entry.value)
    entry.value = replace(info, **changes).to_json()
    save(model, path)
    return path


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of crop 32 with eight rotations."""
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    graph = random_graph("test_resnet", SIZE)
    graph.info = replace(graph.info, decision=DECISION)
    write_network(graph, "onnx", path)
    return path


@pytest.fixture(scope="session")
def other_onnx(onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, with a temperature and a threshold of its own."""
    decision = replace(DECISION, temperature=0.5, threshold=0.8)
    return variant(onnx, tmp_path_factory.mktemp("onnx") / "other.onnx", decision=decision)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve cells named 1.bmp to 12.bmp."""
    path = tmp_path / "cells"
    path.mkdir()
    for number, pixels in enumerate(cells(12, SIZE), start=1):
        Image.fromarray(pixels).save(path / f"{number}.bmp")
    return path

"""The graph of a checkpoint, and what is refused as a checkpoint."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnmc.analysis.calibration import choose_of_epoch
from cnmc.analysis.decision import Decision
from cnmc.deploy.graph import CellGraph, read_trained
from cnmc.deploy.networks import open_network
from cnmc.errors import CnmcError
from cnmc.model.tta import rotate, rotation_columns, to_float
from tests.deploy.networks import MEAN, STD, cells, checkpoint_content, random_graph
from tests.studies import write_run

SIZE = 40
DECISION = Decision(1.5, 0.4, "val", 12, ((0.4, 0.9, 0.8),))


@pytest.fixture(scope="module")
def graph() -> CellGraph:
    plain = random_graph("test_resnet", SIZE, num_rotations=2)
    return CellGraph(plain.network, replace(plain.info, decision=DECISION))


@pytest.fixture
def content(graph: CellGraph) -> dict[str, Any]:
    return checkpoint_content(graph)


class Eye(torch.nn.Module):
    """Keeps what a network is shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return images.mean(dim=(1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize("num_rotations", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [7, 40])
def test_network_sees_the_views_of_training(num_rotations: int, size: int) -> None:
    info = replace(random_graph("test_resnet", SIZE).info, crop=size, num_rotations=num_rotations)
    eye = Eye()
    images = torch.randint(1, 256, (3, size, size, 3), dtype=torch.uint8)
    assert CellGraph(eye, info)(images).shape == (3, num_rotations)
    first = images.permute(0, 3, 1, 2)
    for position, eighths in enumerate(rotation_columns(num_rotations)):
        expected = to_float(rotate(first, eighths), MEAN, STD)
        assert torch.equal(eye.seen[position::num_rotations], expected)


def test_all_views_at_once_give_the_logits_of_training() -> None:
    graph = random_graph("test_resnet", SIZE)
    images = cells(3, SIZE)
    with torch.no_grad():
        together = graph(torch.from_numpy(images)).numpy()
    one_by_one = graph.predict(images)
    np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-5)
    assert one_by_one.std(axis=1).min() > 0.1


def test_a_checkpoint_gives_the_logits_of_its_network(
    graph: CellGraph, content: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "best.ckpt")
    network = open_network(tmp_path / "best.ckpt")
    assert network.info == graph.info
    images = cells(3, SIZE)
    np.testing.assert_array_equal(network.logits(images), graph.predict(images))


def test_the_predictions_of_a_run_folder_decide_for_last_ckpt(
    content: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_run(tmp_path, "proposal", 0, num_views=2)
    info = folder.read_info()
    assert info is not None
    folder.last_checkpoint.parent.mkdir()
    folder.write_config(content["cnmc"]["config"])
    content["cnmc"] |= {"run": info.identity(), "epoch": info.best_epoch}
    del content["cnmc"]["decision"]
    torch.save(content, folder.last_checkpoint)
    decision = read_trained(folder.last_checkpoint).info.decision
    assert decision == choose_of_epoch(folder.read_predictions(), info.best_epoch or 0)
    assert decision.num_cells == 53
    # The folder may belong to another run by now, and the file may lie elsewhere.
    content["cnmc"]["run"] = {"run_id": "another"}
    for path in (folder.last_checkpoint, tmp_path / "alone.ckpt"):
        torch.save(content, path)
        trained = read_trained(path)
        assert trained.folder is None
        assert trained.info.decision == Decision()


class Malicious:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _damage(content: dict[str, Any], kind: str) -> None:
    states, origin = content["state_dict"], content["cnmc"]
    match kind:
        case "lost weight":
            del states["network.fc.weight"]
        case "lost config":
            del origin["config"]["tta"]
        case "other network":
            origin["config"]["model"]["name"] = "test_efficientnet"
        case "unknown network":
            origin["config"]["model"]["name"] = "nothing"
        case "decision":
            origin["decision"] = asdict(DECISION) | {"temperature": 0}
        case "no origin":
            del content["cnmc"]


@pytest.mark.parametrize(
    "kind",
    [
        "lost weight",
        "lost config",
        "other network",
        "unknown network",
        "decision",
        "no origin",
        "truncated",
        "empty",
    ],
)
def test_a_damaged_checkpoint_is_refused_in_one_line(
    kind: str, content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    _damage(content, kind)
    torch.save(content, path)
    kept = {"truncated": path.stat().st_size // 2, "empty": 0}.get(kind)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CnmcError, match=r"best\.ckpt") as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_checkpoint_is_not_executed(
    is_zip: bool, content: dict[str, Any], tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "best.ckpt"
    torch.save(content | {"trap": Malicious(trap)}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CnmcError, match=r"best\.ckpt"):
        open_network(path)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["cells.onnx", "best.ckpt"])
def test_an_absent_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(CnmcError, match=name):
        open_network(tmp_path / name)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cnmc.deploy.agreement import exact_logits
from cnmc.deploy.graph import CellGraph, load_graph
from cnmc.errors import CnmcError
from cnmc.model.preprocess import to_float
from cnmc.model.tta import rotate, rotation_columns
from tests.deploy.networks import MEAN, STD, cells, random_graph

SIZE = 40


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
    logits = CellGraph(eye, info)(images)
    assert logits.shape == (3, num_rotations)
    first = images.permute(0, 3, 1, 2)
    for position, eighths in enumerate(rotation_columns(num_rotations)):
        expected = to_float(rotate(first, eighths), MEAN, STD)
        assert torch.equal(eye.seen[position::num_rotations], expected)


def test_graph_is_what_training_evaluates() -> None:
    graph = random_graph("test_resnet", SIZE)
    images = torch.from_numpy(cells(3, SIZE))
    with torch.no_grad():
        together, one_by_one = graph(images), graph.one_by_one(images)
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-5)
    exact = torch.from_numpy(exact_logits(graph, images.numpy()))
    torch.testing.assert_close(one_by_one, exact, rtol=0, atol=1e-4)
    assert one_by_one.std() > 0.5
    assert one_by_one.std(dim=1).min() > 0.1


class TestCheckpoint:
    @pytest.fixture
    def content(self) -> dict[str, Any]:
        graph = random_graph("test_resnet", SIZE)
        return {
            "state_dict": {f"network.{k}": v for k, v in graph.network.state_dict().items()},
            "cnmc": {
                "config": {
                    "data": {"crop": 60, "resize": SIZE},
                    "model": {
                        "name": "test_resnet",
                        "normalize": True,
                        "mean": list(MEAN),
                        "std": list(STD),
                    },
                    "tta": {"num_rotations": 4},
                },
                "run": {"experiment": "proposal", "seed": 3, "config_hash": "0123456789ab"},
                "epoch": 5,
            },
        }

    def test_becomes_the_graph_of_its_run(self, content: dict[str, Any], tmp_path: Path) -> None:
        torch.save(content, tmp_path / "best.ckpt")
        graph = load_graph(tmp_path / "best.ckpt")
        info = graph.info
        assert (info.crop, info.resize, info.size, info.num_rotations) == (60, SIZE, SIZE, 4)
        assert (info.mean, info.std, info.epoch) == (MEAN, STD, 5)
        assert info.run == content["cnmc"]["run"]
        images = torch.from_numpy(cells(2, SIZE))
        expected = CellGraph(random_graph("test_resnet", SIZE).network, info)
        with torch.no_grad():
            assert torch.equal(graph(images), expected(images))

    @pytest.mark.parametrize("damage", ["sparse", "complex", "nan"])
    def test_numbers_that_no_network_has(
        self, damage: str, content: dict[str, Any], tmp_path: Path
    ) -> None:
        head = content["state_dict"]["network.fc.weight"]
        others = {"sparse": head.to_sparse(), "complex": head.to(torch.complex64)}
        content["state_dict"]["network.fc.weight"] = others.get(damage, head * float("nan"))
        torch.save(content, tmp_path / "best.ckpt")
        with pytest.raises(CnmcError, match=r"fc\.weight") as caught:
            load_graph(tmp_path / "best.ckpt")
        assert "\n" not in str(caught.value)

    def test_without_normalisation(self, content: dict[str, Any], tmp_path: Path) -> None:
        content["cnmc"]["config"]["model"]["normalize"] = False
        torch.save(content, tmp_path / "best.ckpt")
        assert load_graph(tmp_path / "best.ckpt").info.mean is None

    @pytest.mark.parametrize("lost", ["weight", "config"])
    def test_that_lacks_something_is_refused(
        self, lost: str, content: dict[str, Any], tmp_path: Path
    ) -> None:
        if lost == "weight":
            content["state_dict"].pop("network.fc.weight")
        else:
            content["cnmc"]["config"].pop("tta")
        torch.save(content, tmp_path / "best.ckpt")
        with pytest.raises(CnmcError, match=r"best\.ckpt: no network can be built") as caught:
            load_graph(tmp_path / "best.ckpt")
        assert "\n" not in str(caught.value)
        assert ("fc.weight" if lost == "weight" else "tta") in str(caught.value)

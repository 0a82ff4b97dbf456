"""Networks from files: what is one is opened, what is none is refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnmc.analysis.choosing import choose_of_epoch
from cnmc.analysis.decision import Decision
from cnmc.deploy.formats import export_onnx, export_torchscript
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.opening import open_network
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from tests.deploy.networks import cells, random_graph
from tests.studies import write_run

SIZE = 40
DECISION = Decision(1.5, 0.4, "val", 12, ((0.4, 0.9, 0.8),))


@pytest.fixture(scope="module")
def graph() -> CellGraph:
    plain = random_graph("test_resnet", SIZE, num_rotations=2)
    return CellGraph(plain.network, replace(plain.info, decision=DECISION))


def content(graph: CellGraph, **changes: Any) -> dict[str, Any]:
    """Return what a checkpoint of a network holds."""
    info = graph.info
    config = {
        "data": {"crop": info.crop, "resize": None},
        "model": {
            "name": info.network,
            "normalize": True,
            "mean": list(info.mean or ()),
            "std": list(info.std or ()),
        },
        "tta": {"num_rotations": info.num_rotations},
    }
    states = {f"network.{name}": value for name, value in graph.network.state_dict().items()}
    origin = {"config": config, "run": dict(info.run), "epoch": info.epoch}
    return {"state_dict": states, "cnmc": {**origin, "decision": asdict(DECISION), **changes}}


@pytest.fixture
def checkpoint(graph: CellGraph, tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    torch.save(content(graph), path)
    return path


@pytest.fixture(scope="module")
def files(graph: CellGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network's exported files."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("files")
    export_onnx(graph, folder / "cells.onnx")
    export_torchscript(graph, folder / "cells.pt")
    return folder


def refusal(path: Path) -> str:
    """Return the line that refuses a file."""
    with pytest.raises(CnmcError) as caught:
        open_network(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_every_kind_gives_the_same(graph: CellGraph, checkpoint: Path, files: Path) -> None:
    images = cells(3, SIZE)
    with torch.no_grad():
        expected = graph.one_by_one(torch.from_numpy(images)).numpy()
    for path, near in (
        (checkpoint, 1e-5),
        (files / "cells.pt", 1e-5),
        (files / "cells.onnx", 1e-4),
    ):
        network = open_network(path)
        assert network.info == graph.info
        np.testing.assert_allclose(network.predict(images), expected, rtol=0, atol=near)
        assert network.predict(images[:0]).shape == (0, 2)


def test_files_tell_the_probability_too(files: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    images = cells(3, SIZE)
    session = runtime.InferenceSession(files / "cells.onnx", providers=["CPUExecutionProvider"])
    logits, probs = session.run(["logits", "probability"], {"images": images})
    assert probs.shape == (3,)
    np.testing.assert_allclose(probs, DECISION.probabilities(logits.mean(axis=1)), atol=1e-6)
    both = torch.jit.load(files / "cells.pt")(torch.from_numpy(images))  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(both[1].detach().numpy(), probs, atol=1e-5)


class TestRunFolders:
    @pytest.fixture
    def folder(self, graph: CellGraph, tmp_path: Path) -> RunFolder:
        """A run folder of a version that kept no decision."""
        folder = write_run(tmp_path, "proposal", 0, num_views=2)
        info = folder.read_info()
        assert info is not None
        folder.best_checkpoint.parent.mkdir()
        whole = content(graph, run=info.identity(), epoch=info.best_epoch)
        del whole["cnmc"]["decision"]
        torch.save(whole, folder.best_checkpoint)
        return folder

    def test_their_predictions_choose(self, folder: RunFolder, tmp_path: Path) -> None:
        found = open_network(folder.path).info
        assert found.decision == choose_of_epoch(folder.read_predictions(), found.epoch)
        assert found.decision.num_cells == 53
        shutil.copy(folder.best_checkpoint, tmp_path / "alone.ckpt")
        assert open_network(tmp_path / "alone.ckpt").info.decision == Decision()

    def test_of_another_run_choose_nothing(self, graph: CellGraph, folder: RunFolder) -> None:
        whole = content(graph, run={"run_id": "another"})
        del whole["cnmc"]["decision"]
        torch.save(whole, folder.best_checkpoint)
        assert open_network(folder.path).info.decision == Decision()

    def test_tell_of_a_checkpoint_that_does_not(self, graph: CellGraph, folder: RunFolder) -> None:
        info = folder.read_info()
        assert info is not None
        bare = {"state_dict": content(graph)["state_dict"], "epoch": (info.best_epoch or 0) - 1}
        config = content(graph)["cnmc"]["config"]
        folder.write_config(config)
        torch.save(bare, folder.best_checkpoint)
        found = open_network(folder.path).info
        assert (found.epoch, found.network) == (info.best_epoch, "test_resnet")
        assert found.decision.num_cells == 53
        torch.save(bare | {"epoch": 17}, folder.best_checkpoint)
        with pytest.raises(CnmcError, match="has no cnmc metadata"):
            open_network(folder.path)

    def test_without_a_network(self, tmp_path: Path) -> None:
        assert "no checkpoints/best.ckpt in this folder" in refusal(tmp_path)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class TestRefused:
    @pytest.mark.parametrize("kind", ["zip", "old", "pickle"])
    @pytest.mark.parametrize("name", ["best.ckpt", "cells.pt"])
    def test_code(self, kind: str, name: str, graph: CellGraph, tmp_path: Path) -> None:
        trap = tmp_path / "trap"
        bad = content(graph) | {"trap": Malicious(trap)}
        if kind == "pickle":
            (tmp_path / name).write_bytes(pickle.dumps(bad))
        else:
            torch.save(bad, tmp_path / name, _use_new_zipfile_serialization=kind == "zip")
        refusal(tmp_path / name)
        assert not trap.exists()

    @pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
    @pytest.mark.parametrize("name", ["best.ckpt", "cells.pt"])
    def test_truncated(
        self, name: str, kept: float, graph: CellGraph, files: Path, tmp_path: Path
    ) -> None:
        if name == "best.ckpt":
            torch.save(content(graph), tmp_path / name)
        else:
            shutil.copy(files / name, tmp_path)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(kept * len(whole))])
        refusal(tmp_path / name)

    def test_another_architecture(self, graph: CellGraph, tmp_path: Path) -> None:
        other = content(graph)
        other["cnmc"]["config"]["model"]["name"] = "test_efficientnet"
        torch.save(other, tmp_path / "best.ckpt")
        assert "no network can be built" in refusal(tmp_path / "best.ckpt")

    @pytest.mark.parametrize("value", [[], {"temperature": 0}, "val"])
    def test_a_damaged_decision(self, value: Any, graph: CellGraph, tmp_path: Path) -> None:
        torch.save(content(graph, decision=value), tmp_path / "best.ckpt")
        assert "decision" in refusal(tmp_path / "best.ckpt")

    def test_a_program_of_others(self, tmp_path: Path) -> None:
        traced = torch.jit.trace(torch.nn.ReLU(), torch.zeros(1))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, tmp_path / "cells.pt")
        assert "has no metadata of cnmc" in refusal(tmp_path / "cells.pt")

    def test_a_program_of_other_cells(self, files: Path, graph: CellGraph, tmp_path: Path) -> None:
        path = tmp_path / "cells.pt"
        program = torch.jit.load(files / "cells.pt")  # type: ignore[no-untyped-call]
        infos = [replace(graph.info, crop=crop) for crop in (20, SIZE + 8)]
        for info in (*infos, replace(graph.info, num_rotations=8)):
            torch.jit.save(program, path, _extra_files={"cnmc": info.to_json()})
            assert "cannot be read" in refusal(path)

    @pytest.mark.parametrize("damage", ["byte", "encrypted", "compression"])
    def test_damaged_metadata(self, damage: str, files: Path, tmp_path: Path) -> None:
        path = tmp_path / "cells.pt"
        with (
            zipfile.ZipFile(files / "cells.pt") as archive,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other,
        ):
            for name in archive.namelist():
                other.writestr(name, archive.read(name))
            entry = next(item for item in other.infolist() if item.filename.endswith("extra/cnmc"))
        whole = bytearray(path.read_bytes())
        start = entry.header_offset
        if damage == "byte":
            begin = start + 30 + len(entry.filename)
            whole[begin : begin + 8] = b"\xff" * 8
        elif damage == "encrypted":
            central = whole.rindex(entry.filename.encode()) - 46
            whole[start + 6] |= 1
            whole[central + 8] |= 1
        else:
            central = whole.rindex(entry.filename.encode()) - 46
            whole[start + 8] = whole[central + 10] = 97
        path.write_bytes(whole)
        assert "cannot be read" in refusal(path)

    @pytest.mark.parametrize(
        "change", [{"network": "a\ud800"}, {"crop": 10**9}, {"num_rotations": 8.0}]
    )
    def test_impossible_metadata(self, change: Any, files: Path, tmp_path: Path) -> None:
        onnx = pytest.importorskip("onnx")
        model = onnx.load(files / "cells.onnx")
        values = json.loads(model.metadata_props[0].value) | change
        model.metadata_props[0].value = json.dumps(values)
        onnx.save(model, tmp_path / "cells.onnx")
        assert "its metadata cannot be read" in refusal(tmp_path / "cells.onnx")

    def test_cells_that_fill_memory(self, graph: CellGraph, tmp_path: Path) -> None:
        other = content(graph)
        other["cnmc"]["config"]["data"]["crop"] = 10**9
        torch.save(other, tmp_path / "best.ckpt")
        assert "crop or resize is of another type or out of range" in refusal(
            tmp_path / "best.ckpt"
        )

    @pytest.mark.parametrize("where", ["outside", "absolute", "beside"])
    def test_numbers_in_other_files(self, where: str, files: Path, tmp_path: Path) -> None:
        onnx = pytest.importorskip("onnx")
        folder = tmp_path / "folder"
        folder.mkdir()
        path = folder / "cells.onnx"
        model = onnx.load(files / "cells.onnx")
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        secret = (folder if where == "beside" else tmp_path) / "secret.bin"
        secret.write_bytes(weights.raw_data)
        location = {"outside": "../secret.bin", "absolute": str(secret), "beside": "secret.bin"}
        onnx.external_data_helper.set_external_data(weights, location[where])
        weights.ClearField("raw_data")
        path.write_bytes(model.SerializeToString())
        assert "cannot be read" in refusal(path)

    @pytest.mark.parametrize("name", ["cells.onnx", "cells.xml", "cells.pt", "best.ckpt", "run"])
    def test_absent(self, name: str, tmp_path: Path) -> None:
        assert "no such file" in refusal(tmp_path / name)

"""Exported files: they give the logits of training, describe themselves, and foreign ones fail."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from cnmc.analysis.decision import Decision
from cnmc.data.images import crop_and_resize, decode
from cnmc.deploy.backends import BACKENDS, make_backend, obstacle, torch_predictor
from cnmc.deploy.exported import METADATA, GraphInfo, Images
from cnmc.deploy.formats import write_network
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.networks import open_network
from cnmc.deploy.release import check_file, check_place, put_in_place
from cnmc.deploy.runtime import open_exported, openvino_core, require, run_file
from cnmc.errors import CnmcError
from cnmc.model.backbone import build_network
from tests.conftest import ROOT
from tests.deploy.networks import (
    MEAN,
    STD,
    cells,
    dark_and_bright,
    random_graph,
    settle,
    trained_graph,
)
from tests.test_extras import HIDE

SIZE = 40
DECISION = Decision(temperature=1.5)
SUFFIXES = (".onnx", ".xml")
openvino: Any = require("openvino")


@pytest.fixture(scope="module")
def graph() -> CellGraph:
    plain = random_graph("test_resnet", SIZE)
    return CellGraph(plain.network, replace(plain.info, decision=DECISION))


@pytest.fixture(scope="module")
def images() -> Images:
    return cells(5, SIZE)


@pytest.fixture(scope="module")
def folder(graph: CellGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells.onnx and cells.xml."""
    path = tmp_path_factory.mktemp("exported")
    write_network(graph, "onnx", path / "cells.onnx")
    write_network(graph, "openvino", path / "cells.xml")
    return path


def expected_logits(graph: CellGraph, images: Images) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return graph.one_by_one(torch.from_numpy(images)).numpy()


def refusal(path: Path) -> str:
    """Return the one line that refuses a file."""
    with pytest.raises(CnmcError) as caught:
        open_network(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_give_the_logits_of_training(
    suffix: str, graph: CellGraph, images: Images, folder: Path
) -> None:
    path = folder / f"cells{suffix}"
    predictor = open_exported(path, num_threads=2)
    assert predictor.info == graph.info
    logits, expected = predictor.predict(images), expected_logits(graph, images)
    assert logits.dtype == np.float32
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(predictor.predict(images[::-2]), expected[::-2], rtol=0, atol=1e-4)
    assert predictor.predict(images[:0]).shape == (0, 8)
    # As another program runs them: any number of cells, and with the probability.
    for number in (1, 5):
        at_once, probabilities = run_file(path, images[:number])
        np.testing.assert_allclose(at_once, expected[:number], rtol=0, atol=1e-4)
        told = DECISION.probabilities(expected[:number].mean(axis=1))
        np.testing.assert_allclose(probabilities, told, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["eager", "channels_last", pytest.param("compiled", marks=pytest.mark.slow)]
)
def test_backends_of_pytorch(name: str, graph: CellGraph, images: Images, tmp_path: Path) -> None:
    predictor = make_backend(name, graph, folder=tmp_path, num_threads=1)
    before = torch.get_num_threads()
    for part in (images, images[3:4], images[:0]):
        logits = predictor.predict(part)
        assert np.abs(logits - expected_logits(graph, part)).max(initial=0) < 1e-4
    assert torch.get_num_threads() == before
    assert all(p.is_contiguous() for p in graph.network.parameters() if p.ndim == 4)
    assert not list(tmp_path.iterdir())


def test_every_backend_has_a_name_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in BACKENDS if obstacle(name)] == []
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in (obstacle("compiled") or "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_images_are_refused(suffix: str, images: Images, folder: Path) -> None:
    predictor = open_exported(folder / f"cells{suffix}", num_threads=1)
    others: tuple[Any, ...] = (images.astype(np.float32), images[0], images[:, :-1])
    for wrong in others:
        with pytest.raises(CnmcError, match="takes uint8 of shape"):
            predictor.predict(wrong)


def test_files_contain_no_path_of_the_machine(folder: Path) -> None:
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in (ROOT, folder.parent, Path(torch.__file__).parents[1], Path.home()):
            assert str(place).encode() not in content


def test_eight_bits_decide_as_32_bits(tmp_path: Path) -> None:
    plain = trained_graph(SIZE)
    trained = CellGraph(plain.network, replace(plain.info, decision=DECISION))
    images, labels = dark_and_bright(24, SIZE)
    shown, others = images[:12], images[12:]
    path = tmp_path / "cells.xml"
    write_network(trained, "openvino_int8", path, shown)
    expected = expected_logits(trained, others)
    truth = labels[12:].astype(np.int64)
    check = check_file(path, trained, others, truth, "12 cells")
    assert check.is_passed
    assert check.info == replace(trained.info, precision="int8")
    assert (check.f1, check.f1_of_torch, check.same_decisions) == (1.0, 1.0, 1.0)
    assert 1e-3 < check.logits < 0.2 * np.ptp(expected)
    logits, probabilities = run_file(path, others)
    told = DECISION.probabilities(logits.mean(axis=1))
    np.testing.assert_allclose(probabilities, told, rtol=0, atol=1e-5)
    num_bytes = sum(4 * value.numel() for value in trained.network.parameters())
    assert path.with_suffix(".bin").stat().st_size < 0.5 * num_bytes


def test_a_file_of_another_network_fails_the_check(
    graph: CellGraph, images: Images, folder: Path
) -> None:
    labels = np.array([0, 1, 0, 1, 0])
    for suffix in SUFFIXES:
        assert check_file(folder / f"cells{suffix}", graph, images, labels, "").is_passed
    other = random_graph("test_resnet", SIZE)
    with torch.no_grad():
        other.network.get_classifier().bias.add_(0.01)  # type: ignore[operator]
    check = check_file(folder / "cells.onnx", other, images, labels, "")
    assert not check.is_passed
    assert check.logits == pytest.approx(0.01, abs=1e-4)


def describe(path: Path, other: Path, text: str | None) -> None:
    """Write an exported file again with other metadata, or without."""
    if path.suffix == ".onnx":
        content = onnx.load(path)
        del content.metadata_props[:]
        if text is not None:
            onnx.helper.set_model_props(content, {METADATA: text})
        onnx.save(content, other)
    else:
        model = openvino_core().read_model(path)
        del model.rt_info[METADATA]
        if text is not None:
            model.set_rt_info(text, [METADATA])
        openvino.save_model(model, other, compress_to_fp16=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "change",
    [
        None,
        "nothing",
        "[" * 100_000,
        {"format": 1},
        {"crop": SIZE + 8},
        {"resize": 32},
        {"crop": 10**9},
        {"num_rotations": 2},
        {"network": None},
        {"decision": {"temperature": 0}},
        {"unknown": 1},
    ],
)
def test_metadata_that_do_not_describe_the_graph_are_refused(
    suffix: str, change: Any, graph: CellGraph, folder: Path, tmp_path: Path
) -> None:
    if isinstance(change, dict):
        change = json.dumps(json.loads(graph.info.to_json()) | change)
    path = tmp_path / f"cells{suffix}"
    describe(folder / path.name, path, change)
    refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("other", ["float32", "one rotation", "names", "batch of 2"])
def test_graphs_of_others_are_refused(
    suffix: str, other: str, graph: CellGraph, tmp_path: Path
) -> None:
    kinds, helper = onnx.TensorProto, onnx.helper
    kind = kinds.FLOAT if other == "float32" else kinds.UINT8
    batch: str | int = 2 if other == "batch of 2" else "cells"
    wanted = "scores" if other == "names" else "logits"
    views = 1 if other == "one rotation" else 8
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["floats", "pixels"], ["probability"], keepdims=0),
        helper.make_node("Unsqueeze", ["probability", "column"], ["logit"]),
        helper.make_node("Tile", ["logit", "times"], [wanted]),
    ]
    constants = {"pixels": [1, 2, 3], "column": [1], "times": [1, views]}
    built = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", kind, [batch, SIZE, SIZE, 3])],
        [
            helper.make_tensor_value_info(wanted, kinds.FLOAT, [batch, views]),
            helper.make_tensor_value_info("probability", kinds.FLOAT, [batch]),
        ],
        [helper.make_tensor(k, kinds.INT64, [len(v)], v) for k, v in constants.items()],
    )
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {METADATA: graph.info.to_json()})
    path = tmp_path / "cells.onnx"
    onnx.save(model, path)
    if suffix == ".xml":
        converted = openvino.convert_model(path)
        converted.set_rt_info(graph.info.to_json(), [METADATA])
        path = tmp_path / "cells.xml"
        openvino.save_model(converted, path, compress_to_fp16=False)
    assert "its graph has" in refusal(path)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99, None])
@pytest.mark.parametrize("part", [".onnx", ".xml", ".bin"])
def test_damaged_files_are_refused(
    part: str, kept: float | None, folder: Path, tmp_path: Path
) -> None:
    for suffix in (".onnx", ".xml", ".bin"):
        content = (folder / f"cells{suffix}").read_bytes()
        if suffix == part and kept is not None:
            content = content[: int(kept * len(content))]
        if suffix != part or kept is not None:
            (tmp_path / f"cells{suffix}").write_bytes(content)
    refusal(tmp_path / ("cells.onnx" if part == ".onnx" else "cells.xml"))


@pytest.mark.parametrize("location", ["../secret.bin", "absolute", "secret.bin"])
def test_a_file_cannot_read_another(location: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "cells.onnx"
    path.parent.mkdir()
    model = onnx.load(folder / "cells.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    for place in (tmp_path, path.parent):
        (place / "secret.bin").write_bytes(weights.raw_data)
    if location == "absolute":
        location = str(tmp_path / "secret.bin")
    onnx.external_data_helper.set_external_data(weights, location)
    weights.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_run_without_torch_and_leave_no_trace(
    suffix: str, folder: Path, tmp_path: Path
) -> None:
    code = (
        f"{HIDE}import numpy as np, signal, threading; from pathlib import Path\n"
        "from cnmc.deploy.networks import open_network\n"
        "def opened(): return open_network("
        f"Path({str(folder / f'cells{suffix}')!r}), num_threads=1).predictor\n"
        f"cell = np.zeros((1, {SIZE}, {SIZE}, 3), np.uint8)\n"
        "assert opened().predict(cell).shape == (1, 8)\n"
        # When a core of OpenVINO ends, the next signal would be fatal.
        "opened(); handled = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: handled.append(True))\n"
        "signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)\n"
        "assert handled\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_runtime_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_core.cache_clear()
    for package, suffix in (("onnxruntime", ".onnx"), ("openvino", ".xml")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(CnmcError, match=rf"{package}.*cnmc\[screen\]"):
            open_network(folder / f"cells{suffix}")


@pytest.mark.parametrize("failing", [".bin", ".xml", "card"])
def test_all_files_are_replaced_or_none(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, place = tmp_path / "new", tmp_path / "place"
    names = ("cells.xml", "cells.bin", "card")
    for path in (new, place):
        path.mkdir()
        for name in names:
            (path / name).write_text(path.name)

    def put() -> dict[str, str]:
        put_in_place(new / "cells.xml", place / "cells.xml", {place / "card": new / "card"})
        return found()

    def found() -> dict[str, str]:
        return {path.name: path.read_text() for path in place.iterdir()}

    def fail(path: Path) -> None:
        if failing in path.name:
            raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("cnmc.deploy.release.to_disk", fail)
        with pytest.raises(OSError, match="disk full"):
            put()
    assert found() == dict.fromkeys(names, "place")
    assert put() == dict.fromkeys(names, "new")


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cells.xml"
    path.with_suffix(".bin").write_text("mine")
    with pytest.raises(CnmcError, match=r"cells\.bin"):
        check_place(path)
    path.mkdir()
    with pytest.raises(CnmcError, match="folder"):
        check_place(path)


@pytest.fixture(scope="module")
def real_cells(real_data_root: Path) -> Images:
    paths = sorted(real_data_root.rglob("*.bmp"))[::70]
    return np.stack([crop_and_resize(decode(p.read_bytes()), crop=300, resize=96) for p in paths])


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("kind", ["onnx", "openvino", "openvino_int8"])
def test_weights_of_imagenet_on_real_cells(
    kind: str, real_weights: Path, real_cells: Images, tmp_path: Path
) -> None:
    name = "tf_efficientnet_lite0"
    torch.manual_seed(0)
    network = build_network(name, pretrained=True, weights=real_weights, drop_rate=0.0)
    half = (0.5, 0.5, 0.5)
    info = GraphInfo(
        name, crop=300, resize=96, num_rotations=4, mean=half, std=half, decision=DECISION
    )
    lite = CellGraph(network, info)
    shown, others = real_cells[::2], real_cells[1::2]
    with torch.no_grad():
        # Half of the cells on each side of 0, some units apart.
        logits = lite.one_by_one(torch.from_numpy(shown))
        head = network.get_submodule("classifier")
        assert isinstance(head, torch.nn.Linear)
        head.weight.mul_(3.0 / logits.std())
        head.bias.sub_(lite.one_by_one(torch.from_numpy(shown)).mean(dim=1).median())
    path = tmp_path / ("cells.onnx" if kind == "onnx" else "cells.xml")
    write_network(lite, kind, path, shown)
    labels = (expected_logits(lite, others).mean(axis=1) > 0).astype(np.int64)
    check = check_file(path, lite, others, labels, "")
    assert check.same_decisions >= (0.8 if kind == "openvino_int8" else 1.0)
    assert check.is_passed or kind == "openvino_int8"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", ["channels_last", "onnx", "openvino"])
def test_network_of_the_paper_on_real_cells(name: str, real_cells: Images, tmp_path: Path) -> None:
    torch.manual_seed(0)
    name_of_paper = "legacy_seresnext50_32x4d"
    network = build_network(name_of_paper, pretrained=False, weights=None, drop_rate=0.0)
    settle(network, real_cells[:8])
    info = GraphInfo(name_of_paper, crop=300, resize=96, num_rotations=2, mean=MEAN, std=STD)
    paper = CellGraph(network, info)
    images = real_cells[8:14]
    expected = expected_logits(paper, images)
    assert expected.std() > 0.05
    predictor = make_backend(name, paper, folder=tmp_path, num_threads=2)
    np.testing.assert_allclose(predictor.predict(images), expected, rtol=0, atol=1e-4)


def test_partial_batches_are_filled_up(images: Images) -> None:
    single = random_graph("test_resnet", SIZE, num_rotations=1)
    seen: list[int] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        logits: torch.Tensor = single(batch)
        return logits

    predictor = torch_predictor(single.info, forward, cells_at_once=3, fixed=True)
    expected = expected_logits(single, images)
    np.testing.assert_allclose(predictor.predict(images), expected, rtol=0, atol=1e-5)
    assert seen == [3, 3]

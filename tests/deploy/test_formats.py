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
from cnmc.deploy.formats import check_file, write_network
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.networks import METADATA, GraphInfo, Images, open_network, openvino_core, require
from cnmc.errors import CnmcError
from cnmc.model.backbone import build_network
from tests.conftest import ROOT
from tests.deploy.networks import MEAN, STD, cells, random_graph, settle, trained_graph
from tests.test_extras import HIDE

SIZE = 40
DECISION = Decision(temperature=1.5)
SUFFIXES = (".onnx", ".xml")
openvino: Any = require("openvino")
onnxruntime: Any = require("onnxruntime")


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


def run_plainly(path: Path, images: Images) -> tuple[Any, Any]:
    """Return logits and probabilities as other programs compute them, all cells at once."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits, probabilities = session.run(["logits", "probability"], {"images": images})
        return logits, probabilities
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino_core().compile_model(path, "CPU", options)({"images": images})
    return found["logits"], found["probability"]


def assert_refused(path: Path) -> None:
    with pytest.raises(CnmcError, match=path.name) as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_give_the_logits_of_training(
    suffix: str, graph: CellGraph, images: Images, folder: Path
) -> None:
    path = folder / f"cells{suffix}"
    network = open_network(path, num_threads=2)
    assert network.info == graph.info
    logits, expected = network.logits(images), graph.predict(images)
    assert logits.dtype == np.float32
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(network.logits(images[::-2]), expected[::-2], rtol=0, atol=1e-4)
    for number in (1, 5):
        at_once, probabilities = run_plainly(path, images[:number])
        np.testing.assert_allclose(at_once, expected[:number], rtol=0, atol=1e-4)
        wanted = DECISION.probabilities(expected[:number].mean(axis=1))
        np.testing.assert_allclose(probabilities, wanted, rtol=0, atol=1e-5)


def test_files_contain_no_path_of_the_machine(folder: Path) -> None:
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in (ROOT, folder.parent, Path(torch.__file__).parents[1], Path.home()):
            assert str(place).encode() not in content


def test_eight_bits_decide_as_32_bits(tmp_path: Path) -> None:
    plain, images, labels = trained_graph(SIZE)
    trained = CellGraph(plain.network, replace(plain.info, decision=DECISION))
    path = tmp_path / "cells.xml"
    write_network(trained, "openvino_int8", path, images[:12])
    others = images[12:]
    check = check_file(path, trained, others, labels[12:], "12 cells")
    assert check.f1_change == 0.0
    assert open_network(path).info == replace(trained.info, precision="int8")
    assert "F1 100.00 (PyTorch 100.00)" in check.line
    logits, probabilities = run_plainly(path, others)
    wanted = DECISION.probabilities(logits.mean(axis=1))
    np.testing.assert_allclose(probabilities, wanted, rtol=0, atol=1e-5)
    num_bytes = sum(4 * value.numel() for value in trained.network.parameters())
    assert path.with_suffix(".bin").stat().st_size < 0.5 * num_bytes


@pytest.mark.parametrize("change", [0.01, float("nan")])
def test_a_file_of_another_network_fails_the_check(
    change: float, images: Images, folder: Path
) -> None:
    other = random_graph("test_resnet", SIZE)
    with torch.no_grad():
        other.network.get_classifier().bias.add_(change)  # type: ignore[operator]
    with pytest.raises(CnmcError, match=r"cells\.onnx"):
        check_file(folder / "cells.onnx", other, images, np.array([0, 1, 0, 1, 0]), "")


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
    [None, "nothing", {"format": 1}, {"crop": SIZE + 8}, {"num_rotations": 2}, {"unknown": 1}],
)
def test_metadata_that_do_not_describe_the_graph_are_refused(
    suffix: str, change: Any, graph: CellGraph, folder: Path, tmp_path: Path
) -> None:
    if isinstance(change, dict):
        change = json.dumps(json.loads(graph.info.to_json()) | change)
    path = tmp_path / f"cells{suffix}"
    describe(folder / path.name, path, change)
    assert_refused(path)


@pytest.mark.parametrize("kept", [0.0, 0.5, None])
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
    assert_refused(tmp_path / ("cells.onnx" if part == ".onnx" else "cells.xml"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_run_without_torch_and_leave_no_trace(
    suffix: str, folder: Path, tmp_path: Path
) -> None:
    code = (
        f"{HIDE}import numpy as np, signal, threading; from pathlib import Path\n"
        "from cnmc.deploy.networks import open_network\n"
        f"path = Path({str(folder / f'cells{suffix}')!r})\n"
        f"cell = np.zeros((1, {SIZE}, {SIZE}, 3), np.uint8)\n"
        "assert open_network(path, num_threads=1).logits(cell).shape == (1, 8)\n"
        # When a core of OpenVINO ends, the next signal would be fatal.
        "open_network(path); handled = []\n"
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


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "kind"), [("tf_efficientnet_lite0", "openvino"), ("legacy_seresnext50_32x4d", "onnx")]
)
def test_networks_on_real_cells(
    name: str, kind: str, real_weights: Path, real_data_root: Path, tmp_path: Path
) -> None:
    paths = sorted(real_data_root.rglob("*.bmp"))[::70]
    real = np.stack([crop_and_resize(decode(p.read_bytes()), crop=300, resize=96) for p in paths])
    weights = real_weights if name == "tf_efficientnet_lite0" else None
    torch.manual_seed(0)
    network = build_network(name, pretrained=weights is not None, weights=weights, drop_rate=0.0)
    settle(network, real[:8])
    info = GraphInfo(name, crop=300, resize=96, num_rotations=2, mean=MEAN, std=STD)
    path = tmp_path / ("cells.onnx" if kind == "onnx" else "cells.xml")
    graph = CellGraph(network, info)
    write_network(graph, kind, path)
    images = real[8:14]
    assert graph.predict(images).std() > 0.05
    assert check_file(path, graph, images, np.arange(6) % 2, "").f1_change is None

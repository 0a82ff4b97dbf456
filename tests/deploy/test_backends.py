from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnmc.analysis.decision import Decision
from cnmc.deploy import backends, runtime
from cnmc.deploy import formats as export
from cnmc.deploy.agreement import Agreement, compare
from cnmc.deploy.backends import BACKENDS, make_backend, obstacle
from cnmc.deploy.file_outputs import run_file
from cnmc.deploy.formats import export_onnx, export_openvino, export_torchscript, put_in_place
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.opening import open_network
from cnmc.deploy.release import checked_file
from cnmc.deploy.runtime import GraphInfo, Images, Predictor, open_predictor
from cnmc.errors import CnmcError
from cnmc.model.backbone import build_network
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
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def ready(name: str) -> None:
    """Skip a test where a backend cannot run."""
    reason = obstacle(name)
    if reason is not None:
        pytest.skip(f"{name}: {reason}")


def message(caught: pytest.ExceptionInfo[CnmcError]) -> str:
    """Return the text of an error, which must be one line."""
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def graph() -> CellGraph:
    plain = random_graph("test_resnet", SIZE)
    return CellGraph(plain.network, replace(plain.info, decision=DECISION))


@pytest.fixture(scope="module")
def images() -> Images:
    return cells(5, SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


def exported(name: str, graph: CellGraph, folder: Path) -> Path:
    """Return the file of a backend; it is written once."""
    ready(name)
    path = folder / f"{name}{SUFFIXES[name]}"
    if not path.exists():
        with written_once(folder):
            make_backend(name, graph, folder=folder, num_threads=1)
    return path


@contextmanager
def written_once(folder: Path) -> Iterator[None]:
    """Export a network to ONNX, with which every other file begins, once alone; it takes long."""
    write = export._write_onnx

    def write_or_copy(graph: CellGraph, path: Path) -> None:
        kept = folder / f"once-{id(graph)}.onnx"
        if not kept.exists():
            write(graph, kept)
        shutil.copyfile(kept, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_write_onnx", write_or_copy)
        yield


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "compiled" else name
        for name in BACKENDS
        if name != "openvino_int8"
    ],
)
def test_logits_are_those_of_training(
    name: str, graph: CellGraph, images: Images, folder: Path
) -> None:
    ready(name)
    if name in SUFFIXES:
        predictor: Predictor = open_predictor(exported(name, graph, folder), num_threads=2)
    else:
        predictor = make_backend(name, graph, folder=folder, num_threads=1)
    num_threads = torch.get_num_threads()
    logits = predictor.predict(images)
    assert torch.get_num_threads() == num_threads
    assert logits.dtype == np.float32
    with torch.no_grad():
        expected = graph.one_by_one(torch.from_numpy(images)).numpy()
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
    # One cell, none, and cells that lie apart in memory are cells all the same.
    np.testing.assert_allclose(predictor.predict(images[3:4]), expected[3:4], rtol=0, atol=1e-4)
    np.testing.assert_allclose(predictor.predict(images[::-2]), expected[::-2], rtol=0, atol=1e-4)
    assert predictor.predict(images[:0]).shape == (0, 8)


def test_partial_batches_are_filled_up(folder: Path, images: Images) -> None:
    single = random_graph("test_resnet", SIZE, num_rotations=1)
    seen: list[int] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        seen.append(len(batch))
        logits: torch.Tensor = single(batch)
        return logits

    predictor = backends.TorchPredictor(single.info, forward, cells_at_once=3, fixed=True)
    eager = make_backend("eager", single, folder=folder)
    np.testing.assert_allclose(predictor.predict(images), eager.predict(images), rtol=0, atol=1e-5)
    assert seen == [3, 3]


def test_making_a_backend_leaves_the_network_as_it_was(graph: CellGraph, folder: Path) -> None:
    make_backend("channels_last", graph, folder=folder)
    exported("onnx", graph, folder)
    assert not graph.network.training
    convolutions = [value for value in graph.network.parameters() if value.ndim == 4]
    assert all(value.is_contiguous() for value in convolutions)


@pytest.mark.parametrize("name", sorted(SUFFIXES))
def test_files_take_any_number_of_cells(
    name: str, graph: CellGraph, images: Images, folder: Path
) -> None:
    path = exported(name, graph, folder)
    expected = open_predictor(path, num_threads=1).predict(images)
    # As another program would run them: with what the file itself says of its input.
    for num_cells in (1, 5):
        logits, probs = run_file(path, images[:num_cells])
        np.testing.assert_allclose(logits, expected[:num_cells], rtol=0, atol=1e-4)
        told = DECISION.probabilities(expected[:num_cells].mean(axis=1))
        np.testing.assert_allclose(probs, told, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(SUFFIXES))
def test_files_know_where_they_come_from(name: str, graph: CellGraph, folder: Path) -> None:
    info = open_predictor(exported(name, graph, folder), num_threads=1).info
    assert info == graph.info
    # Nothing but the files themselves is left, and they say nothing of the machine.
    assert not list(folder.glob(".*"))
    for part in folder.glob(f"{name}.*"):
        assert str(Path(runtime.__file__).parents[2]).encode() not in part.read_bytes()


def test_eight_bits_are_used_and_decide_alike(tmp_path: Path) -> None:
    ready("openvino_int8")
    plain = trained_graph(SIZE)
    trained = CellGraph(plain.network, replace(plain.info, decision=DECISION))
    images, labels = dark_and_bright(24, SIZE)
    shown, others = images[:12], images[12:]
    predictor = make_backend(
        "openvino_int8", trained, folder=tmp_path, num_threads=1, calibration=shown
    )
    logits = predictor.predict(others)
    with torch.no_grad():
        expected = trained.one_by_one(torch.from_numpy(others)).numpy()
    assert ((expected.mean(axis=1) > 0) == labels[12:]).all()
    assert ((logits.mean(axis=1) > 0) == labels[12:]).all()
    # Close to the network, but not to the last bits: these are other numbers.
    assert 1e-3 < np.abs(logits - expected).max() < 0.2 * np.ptp(expected)
    assert predictor.info == replace(trained.info, precision="int8")
    # The probability itself is no 8-bit number.
    at_once, probs = run_file(tmp_path / "openvino_int8.xml", others)
    told = DECISION.probabilities(at_once.mean(axis=1))
    np.testing.assert_allclose(probs, told, rtol=0, atol=1e-5)
    agreement = compare(predictor, trained, others, labels[12:].astype(np.int64), exact=False)
    assert agreement.f1 == agreement.f1_of_eager == 1.0
    opposite = backends.TorchPredictor(trained.info, lambda cells: -trained(cells), cells_at_once=4)
    agreement = compare(opposite, trained, others, labels[12:].astype(np.int64), exact=False)
    assert (agreement.f1, agreement.f1_of_eager, agreement.same_decisions) == (0.0, 1.0, 0.0)
    num_bytes = sum(4 * value.numel() for value in trained.network.parameters())
    assert (tmp_path / "openvino_int8.bin").stat().st_size < 0.5 * num_bytes


@pytest.mark.parametrize("name", ["eager", "onnx", "openvino"])
def test_other_images_are_refused(
    name: str, graph: CellGraph, images: Images, folder: Path
) -> None:
    if name in SUFFIXES:
        predictor: Predictor = open_predictor(exported(name, graph, folder), num_threads=1)
    else:
        predictor = make_backend(name, graph, folder=folder)
    others: tuple[Any, ...] = (
        images.astype(np.float32),
        images[0],
        images[:, :-1],
        images.transpose(0, 3, 1, 2),
    )
    for wrong in others:
        with pytest.raises(CnmcError, match=r"takes uint8 of shape \(cells, 40, 40, 3\)") as caught:
            predictor.predict(wrong)
        assert str(wrong.shape) in message(caught)


def describe(path: Path, other: Path, text: str | None) -> None:
    """Write an exported file again with other metadata, or none."""
    if path.suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        content = onnx.load(path)
        del content.metadata_props[:]
        if text is not None:
            onnx.helper.set_model_props(content, {"cnmc": text})
        onnx.save(content, other)
    else:
        openvino = pytest.importorskip("openvino")
        model = runtime.openvino_core().read_model(path)
        del model.rt_info["cnmc"]
        if text is not None:
            model.set_rt_info(text, ["cnmc"])
        openvino.save_model(model, other, compress_to_fp16=False)


def foreign(path: Path, other: str, text: str) -> None:
    """Write a small graph that differs from those of cnmc in one thing, with metadata of cnmc."""
    onnx = pytest.importorskip("onnx")
    openvino = pytest.importorskip("openvino")
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
    helper.set_model_props(model, {"cnmc": text})
    onnx.save(model, path.with_suffix(".onnx"))
    if path.suffix == ".xml":
        converted = openvino.convert_model(path.with_suffix(".onnx"))
        converted.set_rt_info(text, ["cnmc"])
        openvino.save_model(converted, path, compress_to_fp16=False)


class TestFiles:
    @pytest.mark.parametrize("name", ["onnx", "openvino"])
    def test_a_truncated_file_is_refused(
        self, name: str, graph: CellGraph, folder: Path, tmp_path: Path
    ) -> None:
        path = exported(name, graph, folder)
        parts = [path] if name == "onnx" else [path, path.with_suffix(".bin")]
        for damaged in parts:
            for kept in (0.0, 0.5, 0.99):
                for part in parts:
                    content = part.read_bytes()
                    end = int(kept * len(content)) if part == damaged else len(content)
                    (tmp_path / part.name).write_bytes(content[:end])
                with pytest.raises(CnmcError, match="cannot be read") as caught:
                    open_predictor(tmp_path / path.name)
                assert str(tmp_path / path.stem) in message(caught)

    @pytest.mark.parametrize("name", ["onnx", "openvino"])
    @pytest.mark.parametrize(
        "text", [None, '{"format": 99}', '{"format": 1}', "nothing", "[" * 100_000]
    )
    def test_metadata_of_others_are_refused(
        self, name: str, text: str | None, graph: CellGraph, folder: Path, tmp_path: Path
    ) -> None:
        path = exported(name, graph, folder)
        other = tmp_path / path.name
        describe(path, other, text)
        with pytest.raises(CnmcError, match="metadata") as caught:
            open_predictor(other)
        assert message(caught).startswith(str(other))

    @pytest.mark.parametrize("name", ["onnx", "openvino"])
    @pytest.mark.parametrize("change", [{"crop": SIZE + 8}, {"resize": 32}, {"num_rotations": 2}])
    def test_metadata_of_another_graph_are_refused(
        self, name: str, change: Any, graph: CellGraph, folder: Path, tmp_path: Path
    ) -> None:
        path = exported(name, graph, folder)
        describe(path, tmp_path / path.name, replace(graph.info, **change).to_json())
        with pytest.raises(CnmcError, match=r"its graph has .*; by its metadata it has ") as caught:
            open_predictor(tmp_path / path.name)
        assert message(caught).startswith(str(tmp_path / path.name))

    @pytest.mark.parametrize("name", ["onnx", "openvino"])
    @pytest.mark.parametrize("other", ["float32", "one rotation", "names", "batch of 2"])
    def test_graphs_of_others_are_refused(
        self, name: str, other: str, graph: CellGraph, tmp_path: Path
    ) -> None:
        path = tmp_path / f"cells{SUFFIXES[name]}"
        foreign(path, other, graph.info.to_json())
        with pytest.raises(CnmcError, match=r"its graph has .*; by its metadata it has ") as caught:
            open_predictor(path)
        assert message(caught).startswith(str(path))

    @pytest.mark.parametrize("name", ["network.pt", "network.onnx", "network.xml"])
    def test_absent_or_of_another_kind(self, name: str, tmp_path: Path) -> None:
        ready("openvino" if name.endswith("xml") else "onnx")
        with pytest.raises(CnmcError, match=r"no such file|expected \.onnx") as caught:
            open_predictor(tmp_path / name)
        assert message(caught).startswith(str(tmp_path / name))

    def test_bin_is_needed(self, graph: CellGraph, folder: Path, tmp_path: Path) -> None:
        path = exported("openvino", graph, folder)
        (tmp_path / path.name).write_bytes(path.read_bytes())
        with pytest.raises(CnmcError, match=r"openvino\.bin: no such file"):
            open_predictor(tmp_path / path.name)

    def test_an_export_that_fails_leaves_the_earlier_file(
        self, graph: CellGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ready("onnx")
        (tmp_path / "cells.onnx").write_text("earlier")

        def fail(*_: object, **__: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(torch.onnx, "export", fail)
        with pytest.raises(OSError, match="disk full"):
            export_onnx(graph, tmp_path / "cells.onnx")
        assert [path.name for path in tmp_path.iterdir()] == ["cells.onnx"]
        assert (tmp_path / "cells.onnx").read_text() == "earlier"

    @pytest.mark.parametrize("failing", ["shutil.copyfile", "os.fsync"])
    @pytest.mark.parametrize("suffix", [".bin", ".xml"])
    def test_a_model_that_cannot_be_copied_leaves_the_earlier_one(
        self, failing: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, place = tmp_path / "new" / "cells.xml", tmp_path / "place" / "cells.xml"
        for path in (whole, place):
            path.parent.mkdir()
            for part in (".xml", ".bin"):
                path.with_suffix(part).write_text(f"{path.parent.name}{part}")
        module, name = failing.split(".")
        perform = getattr(sys.modules[module], name)

        def fail(source: Any, *others: Any) -> None:
            # fsync is given the number of an open file.
            path = Path(f"/proc/self/fd/{source}").readlink() if name == "fsync" else source
            if f"cells{suffix}" in path.name:
                raise OSError("disk full")
            perform(source, *others)

        monkeypatch.setattr(failing, fail)
        with pytest.raises(OSError, match="disk full"):
            put_in_place(whole, place)
        found = {path.name: path.read_text() for path in place.parent.iterdir()}
        assert found == {"cells.xml": "place.xml", "cells.bin": "place.bin"}
        monkeypatch.setattr(failing, perform)
        put_in_place(whole, place)
        found = {path.name: path.read_text() for path in place.parent.iterdir()}
        assert found == {"cells.xml": "new.xml", "cells.bin": "new.bin"}

    def test_files_of_others_are_not_overwritten(self, graph: CellGraph, tmp_path: Path) -> None:
        path = tmp_path / "cells.xml"
        path.with_suffix(".bin").write_text("mine")
        for write in (
            lambda: put_in_place(path, path),
            lambda: checked_file(graph, "openvino", path, None).__enter__(),
        ):
            with pytest.raises(CnmcError, match=r"cells\.xml: cells\.bin beside it") as caught:
                write()
            message(caught)
        assert path.with_suffix(".bin").read_text() == "mine"
        path.mkdir()
        with pytest.raises(CnmcError, match=r"cells\.xml is a folder"):
            put_in_place(path, path)

    def test_names_and_cells_are_checked_before_any_work(
        self, graph: CellGraph, tmp_path: Path
    ) -> None:
        with pytest.raises(CnmcError, match=r"ends in \.onnx"):
            export_onnx(graph, tmp_path / "cells.xml")
        with pytest.raises(CnmcError, match=r"ends in \.xml"):
            export_openvino(graph, tmp_path / "cells.onnx")
        ready("openvino_int8")
        with pytest.raises(CnmcError, match="none are given"):
            export_openvino(graph, tmp_path / "cells.xml", cells(1, SIZE)[:0])
        with pytest.raises(CnmcError, match="takes uint8"):
            export_openvino(graph, tmp_path / "cells.xml", cells(1, SIZE + 8))
        with pytest.raises(CnmcError, match="to calibrate with"):
            make_backend("openvino_int8", graph, folder=tmp_path)
        assert not list(tmp_path.iterdir())


class TestObstacles:
    def test_unknown_names_list_the_known(self) -> None:
        with pytest.raises(CnmcError, match="backend=tensorrt: expected one of eager, channels"):
            obstacle("tensorrt")

    def test_absent_packages_are_named(
        self, graph: CellGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find_spec = importlib.util.find_spec
        hidden = ("openvino", "onnxruntime")
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name in hidden else find_spec(name)
        )
        for name in hidden:
            monkeypatch.setitem(sys.modules, name, None)
        for name, package in (("onnx", "onnxruntime"), ("openvino_int8", "openvino")):
            with pytest.raises(CnmcError, match=rf"{package}.*pip install 'cnmc\[export\]'"):
                make_backend(name, graph, folder=tmp_path)
        for suffix, package in ((".onnx", "onnxruntime"), (".xml", "openvino")):
            with pytest.raises(CnmcError, match=rf"{package} .*pip install 'cnmc\[screen\]'"):
                open_predictor(tmp_path / f"cells{suffix}")
        assert obstacle("eager") is None

    def test_without_a_compiler(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        assert obstacle("compiled") == (
            "no C++ compiler (no-such-compiler); install one, or name it with CXX"
        )


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_files_run_without_torch_and_without_a_trace(
    name: str, graph: CellGraph, folder: Path, tmp_path: Path
) -> None:
    path = exported(name, graph, folder)
    code = (
        f"{HIDE}import numpy as np; from pathlib import Path\n"
        "from cnmc.deploy.opening import open_network\n"
        f"predictor = open_network(Path({str(path)!r}), num_threads=1)\n"
        f"assert predictor.predict(np.zeros((1, {SIZE}, {SIZE}, 3), np.uint8)).shape == (1, 8)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(runtime.__file__).parents[2],
        env={"HOME": str(tmp_path), "PATH": ""},
    )
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("to_eager", "to_exact", "rounding", "faithful"),
    [
        (0.9e-4, 1e-4, 1e-6, True),
        (1.1e-4, 1e-4, 1e-6, False),
        (3e-3, 2e-3, 1.1e-3, True),
        (3e-3, 2e-3, 0.9e-3, False),
        (float("nan"), float("nan"), 1.0, False),
    ],
)
def test_faithful_is_as_good_as_eager(
    to_eager: float, to_exact: float, rounding: float, faithful: bool
) -> None:
    assert Agreement(to_eager, to_exact, rounding, 1.0).is_faithful is faithful


def test_a_wrong_backend_is_not_faithful(graph: CellGraph, images: Images) -> None:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = graph(batch)
        return logits.roll(1, dims=1)  # the columns of other rotations

    wrong = backends.TorchPredictor(graph.info, forward, cells_at_once=8)
    assert not compare(wrong, graph, images).is_faithful
    right = backends.TorchPredictor(graph.info, graph, cells_at_once=8)
    assert compare(right, graph, images).is_faithful


@pytest.fixture(scope="module")
def lite(real_weights: Path, real_cells: Images) -> CellGraph:
    torch.manual_seed(0)
    name = "tf_efficientnet_lite0"
    network = build_network(name, pretrained=True, weights=real_weights, drop_rate=0.0)
    half = (0.5, 0.5, 0.5)
    info = GraphInfo(
        name, crop=300, resize=96, num_rotations=4, mean=half, std=half, decision=DECISION
    )
    lite = CellGraph(network, info)
    shown = torch.from_numpy(real_cells[::2])
    with torch.no_grad():
        # Half of the cells on each side of 0, some units apart.
        head = network.get_submodule("classifier")
        assert isinstance(head, torch.nn.Linear)
        head.weight.mul_(3.0 / lite.one_by_one(shown).std())
        head.bias.sub_(lite.one_by_one(shown).mean(dim=1).median())
    return lite


@pytest.fixture(scope="module")
def paper(real_cells: Images) -> CellGraph:
    """The paper's network, untrained, as it is after a look at real cells."""
    torch.manual_seed(0)
    name = "legacy_seresnext50_32x4d"
    network = build_network(name, pretrained=False, weights=None, drop_rate=0.0)
    settle(network, real_cells[:8])
    info = GraphInfo(name, crop=300, resize=96, num_rotations=2, mean=MEAN, std=STD)
    return CellGraph(network, info)


@pytest.fixture(scope="module")
def real_cells(real_data_root: Path) -> Images:
    from cnmc.data.images import crop_and_resize, decode  # noqa: PLC0415

    paths = sorted(real_data_root.rglob("*.bmp"))[::70]
    return np.stack([crop_and_resize(decode(p.read_bytes()), crop=300, resize=96) for p in paths])


@pytest.mark.slow
@pytest.mark.real
def test_eight_bits_on_real_cells(
    lite: CellGraph, real_cells: Images, folder: Path, tmp_path: Path
) -> None:
    ready("openvino_int8")
    with written_once(folder):
        predictor = make_backend(
            "openvino_int8", lite, folder=tmp_path, num_threads=1, calibration=real_cells[::2]
        )
    assert compare(predictor, lite, real_cells[1::2], exact=False).same_decisions >= 0.8


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("suffix", [".onnx", ".pt", ".xml"])
def test_probabilities_of_real_cells(
    suffix: str, lite: CellGraph, real_cells: Images, folder: Path, tmp_path: Path
) -> None:
    ready("openvino" if suffix == ".xml" else "onnx")
    path = tmp_path / f"cells{suffix}"
    with written_once(folder):
        {".onnx": export_onnx, ".pt": export_torchscript, ".xml": export_openvino}[suffix](
            lite, path
        )
    images = real_cells[1::2]
    with torch.no_grad():
        logits = lite.one_by_one(torch.from_numpy(images)).mean(dim=1)
    expected = torch.sigmoid(logits / DECISION.temperature).numpy()
    assert np.ptp(expected) > 0.8
    means = open_network(path, num_threads=1).predict(images).mean(axis=1)
    for found in (run_file(path, images)[1], DECISION.probabilities(means)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", ["channels_last", *sorted(SUFFIXES)])
def test_network_of_the_paper_on_real_cells(
    name: str, paper: CellGraph, real_cells: Images, folder: Path, tmp_path: Path
) -> None:
    ready(name)
    images = real_cells[8:14]
    with torch.no_grad():
        expected = paper.one_by_one(torch.from_numpy(images)).numpy()
    assert expected.std() > 0.05
    with written_once(folder):
        predictor = make_backend(name, paper, folder=tmp_path, num_threads=2)
    np.testing.assert_allclose(predictor.predict(images), expected, rtol=0, atol=1e-4)


def test_signals_are_handled_after_two_networks_of_openvino_are_gone(
    graph: CellGraph, folder: Path
) -> None:
    """OpenVINO gives the process a stack for signals, and two cores free it one under the other."""
    code = """
import signal, sys, threading
from pathlib import Path
from cnmc.deploy.runtime import open_predictor

networks = [open_predictor(Path(sys.argv[1]), 1) for _ in range(2)]
del networks[0]
del networks[0]
handled = []
signal.signal(signal.SIGUSR1, lambda *_: handled.append(True))
signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
sys.exit(not handled)
"""
    path = exported("openvino", graph, folder)
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == 0

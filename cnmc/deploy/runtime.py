"""Run exported networks with ONNX Runtime or OpenVINO; nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cnmc.deploy.exported import (
    INPUT,
    METADATA,
    OUTPUT,
    PROBABILITY,
    GraphInfo,
    Images,
    Logits,
)
from cnmc.devices import num_cores
from cnmc.errors import CnmcError
from cnmc.extras import RUNTIMES, needs

Ports = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Element type and shape of inputs or outputs, by name; None is a free size."""

OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}
"""OpenVINO would compute with 16 bits where the processor can."""

_TYPES = {"tensor(uint8)": "u8", "tensor(float)": "f32"}


@dataclass(frozen=True)
class Predictor:
    """A network that is ready to predict.

    Attributes:
        info: Its description.
        fill: Computes the logits of images and writes them into a second array.
    """

    info: GraphInfo
    fill: Callable[[Images, Logits], None]

    def predict(self, images: Images) -> Logits:
        """Return one logit per rotation, float32 of shape (cells, rotations).

        Args:
            images: uint8 of shape (cells, size, size, 3), any number of cells.

        Raises:
            CnmcError: The images have another type or shape.
        """
        size = self.info.size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise CnmcError(
                f"images of {images.dtype} and shape {images.shape}: this network takes uint8 of "
                f"shape (cells, {size}, {size}, 3)"
            )
        logits = np.empty((len(images), self.info.num_rotations), dtype=np.float32)
        self.fill(images, logits)
        return logits


def open_exported(path: Path, num_threads: int | None = None) -> Predictor:
    """Open an exported network: ``.onnx``, or the ``.xml`` of OpenVINO with its ``.bin``.

    Args:
        path: The file.
        num_threads: Cells that are computed at the same time; None uses all cores.

    Raises:
        CnmcError: The runtime is not installed, or the file is not a whole export of cnmc.
    """
    open_file = _open_onnx if path.suffix == ".onnx" else _open_openvino
    try:
        return open_file(path, num_threads or num_cores())
    except CnmcError:
        raise
    # The exceptions of the runtimes have no common base.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(f"{path}: cannot be read ({reason}); export the checkpoint again") from None


def _open_onnx(path: Path, num_threads: int) -> Predictor:
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Exported files contain all weights. This path is no folder, so no file can read another one.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path)
    )
    session = runtime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    info = GraphInfo.from_json(session.get_modelmeta().custom_metadata_map.get(METADATA))
    _check_ports(info, *(_onnx_ports(p) for p in (session.get_inputs(), session.get_outputs())))

    def fill(images: Images, logits: Logits) -> None:
        def one(position: int) -> None:
            cell = np.ascontiguousarray(images[position : position + 1])
            logits[position] = session.run([OUTPUT], {INPUT: cell})[0][0]

        # One cell per thread is faster than several threads per cell.
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(one, range(len(images))))

    return Predictor(info, fill)


def _onnx_ports(ports: Sequence[Any]) -> Ports:
    return {
        port.name: (
            _TYPES.get(port.type, port.type),
            tuple(side if isinstance(side, int) else None for side in port.shape),
        )
        for port in ports
    }


def _open_openvino(path: Path, num_threads: int) -> Predictor:
    core = openvino_core()
    model = core.read_model(path)
    text = str(model.get_rt_info([METADATA]).value) if model.has_rt_info([METADATA]) else None
    info = GraphInfo.from_json(text)
    _check_ports(info, _openvino_ports(model.inputs), _openvino_ports(model.outputs))
    # A fixed shape is a few percent faster.
    model.reshape([1, info.size, info.size, 3])
    options = {"NUM_STREAMS": num_threads, "INFERENCE_NUM_THREADS": num_threads}
    compiled = core.compile_model(model, "CPU", options | OPENVINO_OPTIONS)
    queue = require("openvino").AsyncInferQueue(compiled, num_threads)

    def fill(images: Images, logits: Logits) -> None:
        def keep(request: Any, position: int) -> None:
            logits[position] = request.get_tensor(OUTPUT).data[0]

        queue.set_callback(keep)
        for position in range(len(images)):
            queue.start_async({INPUT: images[position : position + 1]}, position)
        queue.wait_all()

    return Predictor(info, fill)


def _openvino_ports(ports: Sequence[Any]) -> Ports:
    return {
        port.get_any_name(): (
            port.element_type.get_type_name(),
            tuple(None if side.is_dynamic else side.get_length() for side in port.partial_shape),
        )
        for port in ports
    }


def _check_ports(info: GraphInfo, inputs: Ports, outputs: Ports) -> None:
    """Refuse a graph that its metadata do not describe."""
    takes = {INPUT: ("u8", (None, info.size, info.size, 3))}
    gives = {OUTPUT: ("f32", (None, info.num_rotations)), PROBABILITY: ("f32", (None,))}
    for found, expected in ((inputs, takes), (outputs, gives)):
        if found != expected:
            raise ValueError(f"its graph has {found}, its metadata {expected}")


def run_file(path: Path, images: Images) -> tuple[Logits, Logits]:
    """Run an exported file as other programs do, with all cells at once.

    Args:
        path: A file of this package; it is not checked.
        images: The cells.

    Returns:
        Logits of shape (cells, rotations), and probabilities of ALL of shape (cells,).
    """
    if path.suffix == ".onnx":
        session = require("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        logits, probabilities = session.run([OUTPUT, PROBABILITY], {INPUT: images})
        return logits, probabilities
    found = openvino_core().compile_model(path, "CPU", OPENVINO_OPTIONS)({INPUT: images})
    return found[OUTPUT], found[PROBABILITY]


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Keep OpenVINO from reporting its use and from writing an identifier to the home folder."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def require(package: str) -> Any:
    """Import an optional package.

    Raises:
        CnmcError: It is not installed; the message names the extra that brings it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    extra = "screen" if package in RUNTIMES else "export"
    with without_telemetry(), needs(extra, "an exported network"):
        return import_module(package)


@cache
def openvino_core() -> Any:
    """Return the OpenVINO core of this process.

    There is only one, and it is never freed: when a core ends, it frees the stack of the signal
    handlers, and the next signal would kill the process.
    """
    return require("openvino").Core()

"""Runs exported networks. Nothing here needs torch, so the files run where it is not installed."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnmc.analysis.decision import Decision
from cnmc.devices import num_cores
from cnmc.errors import CnmcError
from cnmc.extras import RUNTIMES

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]

FORMAT = 2
"""Of the exported files; raise it when a reader of the former kind would misread them."""

METADATA = "cnmc"
"""Name under which a file keeps its :class:`GraphInfo`, as JSON."""

INPUT, OUTPUT, PROBABILITY = "images", "logits", "probability"

OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}
"""Where a processor has 16-bit arithmetic, that would be OpenVINO's default."""

MAX_SIDE = 4096
"""Side in pixels of the largest cell: nine times the data set's, and no graph fills the memory."""


@dataclass(frozen=True)
class GraphInfo:
    """What a graph of a network expects and where it comes from; exported files hold it.

    Attributes:
        network: timm's name.
        crop: Side in pixels of the central square that is cut out of a cell's image.
        resize: Side in pixels to which the square is brought; None leaves it.
        num_rotations: Rotations of each cell that the graph makes itself: 1, 2, 4 or 8.
        mean: Mean by which the graph normalises, RGB in [0, 1]; None leaves the images in [0, 1].
        std: Standard deviation by which it normalises.
        run: The run that trained it, as its checkpoint names it: experiment, name, seed,
            configuration hash, fingerprints; empty where the network is of no run.
        epoch: Epoch of the run; 0 before training.
        precision: Numbers that it computes with: ``float32`` or ``int8``.
        decision: How its mean logit becomes a probability and a class.

    Raises:
        CnmcError: A value is of another type or out of range.
    """

    network: str
    crop: int
    resize: int | None = None
    num_rotations: int = 8
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    epoch: int = 0
    precision: str = "float32"
    decision: Decision = field(default_factory=Decision)

    def __post_init__(self) -> None:
        """Check types and ranges: values may come from a file."""
        whole = [self.crop, *([] if self.resize is None else [self.resize])]
        for name, is_right in (
            ("network", isinstance(self.network, str)),
            ("crop or resize", all(type(side) is int and 0 < side <= MAX_SIDE for side in whole)),
            (
                "num_rotations",
                type(self.num_rotations) is int and self.num_rotations in (1, 2, 4, 8),
            ),
            ("mean", _is_colour(self.mean)),
            ("std", _is_colour(self.std) and (self.mean is None) == (self.std is None)),
            ("run", isinstance(self.run, Mapping)),
            ("epoch", type(self.epoch) is int and self.epoch >= 0),
            ("precision", self.precision in ("float32", "int8")),
            ("decision", isinstance(self.decision, Decision)),
        ):
            if not is_right:
                raise CnmcError(f"{name} is of another type or out of range")

    @property
    def size(self) -> int:
        """Side in pixels of the images that the graph takes."""
        return self.crop if self.resize is None else self.resize

    def to_json(self) -> str:
        """Return the text that a file keeps."""
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str | None, path: Path) -> GraphInfo:
        """Return what a file keeps.

        Args:
            text: The file's entry; None where it has none.
            path: The file, for the messages.

        Raises:
            CnmcError: There is no entry, or it is none that this version reads.
        """
        if text is None:
            raise CnmcError(
                f"{path}: has no metadata of cnmc, so size and scaling of its images are unknown; "
                "give a file that cnmc exported"
            )
        try:
            values = json.loads(text)
            # JSON can name halves of characters, which nothing could print or write later.
            json.dumps(values, ensure_ascii=False).encode()
            if values.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            for name in ("mean", "std"):
                values[name] = None if values[name] is None else tuple(values[name])
            values["decision"] = Decision.from_values(values["decision"])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CnmcError(
                f"{path}: its metadata cannot be read by this version of cnmc ({error}); export "
                "the checkpoint again"
            ) from error


def _is_colour(values: object) -> bool:
    """Tell whether a file's mean or deviation by channel is three numbers, or none."""
    return values is None or (
        isinstance(values, tuple)
        and len(values) == 3
        and all(isinstance(value, float | int) and math.isfinite(value) for value in values)
    )


class Predictor(Protocol):
    """Something that gives cells their logits."""

    @property
    def info(self) -> GraphInfo:
        """What it expects."""

    def predict(self, images: Images) -> Logits:
        """Return one logit a rotation.

        Args:
            images: Cropped cells, uint8 RGB of shape (cells, size, size, 3), any number of them.

        Returns:
            float32, of shape (cells, rotations). A cell is predicted ALL where the mean of its row
            is above 0.

        Raises:
            CnmcError: The images are of another kind or size.
        """


def check_images(images: Images, info: GraphInfo) -> None:
    """Refuse images that a graph was not made for.

    Raises:
        CnmcError: They are not uint8 or of another shape.
    """
    expected = (info.size, info.size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
        raise CnmcError(
            f"images of {images.dtype} and shape {images.shape}: this network takes uint8 of shape "
            f"(cells, {', '.join(map(str, expected))}); crop the cells to {info.crop} pixels"
            + ("" if info.resize is None else f", then resize them to {info.resize}")
        )


def require(package: str) -> Any:
    """Import a package that not everybody needs.

    Raises:
        CnmcError: It is not installed.
    """
    # These packages report their use over the network and leave an identifier of the user in the
    # home folder. ONNX Runtime can be asked not to; OpenVINO and NNCF do without the package that
    # does it for them.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module(package)
    except ImportError as error:
        extra = "screen" if package in RUNTIMES else "export"
        raise CnmcError(
            f"the package {package} cannot be imported ({error}); pip install 'cnmc[{extra}]' "
            "brings it"
        ) from error


@cache
def openvino_core() -> Any:
    """Return OpenVINO's core, one for the process and as long as that lives.

    On its end it frees the stack that it gave to the process's signal handlers, on which the next
    signal, such as that of a data loader's worker that ends, would be fatal.

    Raises:
        CnmcError: OpenVINO is not installed.
    """
    return require("openvino").Core()


class OnnxPredictor:
    """Runs an ONNX file with ONNX Runtime, on the CPU.

    Each thread looks at a cell of its own: two threads at one cell wait for each other.

    Args:
        path: A file of :func:`cnmc.deploy.formats.export_onnx`.
        num_threads: Cells at a time; None takes all cores.

    Raises:
        CnmcError: ONNX Runtime is not installed, or the file is missing, damaged or not of cnmc.
    """

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        runtime = require("onnxruntime")
        _check_file(path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # its warnings are about what it could not fuse
        # Our files hold all their numbers: where others could lie there is no folder, so that a
        # file can never make the runtime read another.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path)
        )
        try:
            self._session = runtime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            metadata = self._session.get_modelmeta().custom_metadata_map
        # ONNX Runtime's exceptions have no common base.
        except Exception as error:
            raise unreadable(path, error) from error
        self._info = GraphInfo.from_json(metadata.get(METADATA), path)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        _check_graph(
            path,
            self._info,
            {item.name: _tensor(item.type, item.shape) for item in inputs},
            {item.name: _tensor(item.type, item.shape) for item in outputs},
        )
        self._num_threads = num_threads or num_cores()

    @property
    def info(self) -> GraphInfo:
        """What it expects."""
        return self._info

    def predict(self, images: Images) -> Logits:
        """Return one logit a rotation, see :class:`Predictor`."""
        check_images(images, self._info)
        logits = np.empty((len(images), self._info.num_rotations), dtype=np.float32)

        def run(position: int) -> None:
            cell = np.ascontiguousarray(images[position : position + 1])
            row = self._session.run([OUTPUT], {INPUT: cell})[0]
            logits[position] = row.reshape(logits.shape[1])  # never fewer, broadcast

        with ThreadPoolExecutor(self._num_threads) as pool:
            for _ in pool.map(run, range(len(images))):
                pass
        return logits


class OpenVinoPredictor:
    """Runs an OpenVINO model, on the CPU.

    Each thread looks at a cell of its own: two threads at one cell wait for each other.

    Args:
        path: The ``.xml`` of :func:`cnmc.deploy.formats.export_openvino`; its ``.bin`` lies
            beside it.
        num_threads: Cells at a time; None takes all cores.

    Raises:
        CnmcError: OpenVINO is not installed, or a file is missing, damaged or not of cnmc.
    """

    def __init__(self, path: Path, num_threads: int | None = None) -> None:
        openvino, core = require("openvino"), openvino_core()
        _check_file(path)
        _check_file(path.with_suffix(".bin"))
        threads = num_threads or num_cores()
        try:
            model = core.read_model(path)
            kept = model.get_rt_info([METADATA]) if model.has_rt_info([METADATA]) else None
            text = None if kept is None else str(kept.value)
        except (RuntimeError, ValueError) as error:
            raise unreadable(path, error) from error
        self._info = GraphInfo.from_json(text, path)
        _check_graph(path, self._info, _tensors(model.inputs), _tensors(model.outputs))
        try:
            # A shape that is known is faster by some percent.
            model.reshape([1, self._info.size, self._info.size, 3])
            compiled = core.compile_model(
                model,
                "CPU",
                {
                    "NUM_STREAMS": threads,
                    "INFERENCE_NUM_THREADS": threads,
                    **OPENVINO_OPTIONS,
                },
            )
        except RuntimeError as error:
            raise unreadable(path, error) from error
        self._queue = openvino.AsyncInferQueue(compiled, threads)

    @property
    def info(self) -> GraphInfo:
        """What it expects."""
        return self._info

    def predict(self, images: Images) -> Logits:
        """Return one logit a rotation, see :class:`Predictor`."""
        check_images(images, self._info)
        logits = np.empty((len(images), self._info.num_rotations), dtype=np.float32)

        def keep(request: Any, position: int) -> None:
            logits[position] = request.get_tensor(OUTPUT).data[0]

        self._queue.set_callback(keep)
        for position in range(len(images)):
            self._queue.start_async({INPUT: images[position : position + 1]}, position)
        self._queue.wait_all()
        return logits


def open_predictor(path: Path, num_threads: int | None = None) -> Predictor:
    """Open an exported network with the runtime that its kind of file is for.

    Args:
        path: ``.onnx``, or the ``.xml`` of OpenVINO.
        num_threads: Cells at a time; None takes all cores.

    Raises:
        CnmcError: The file is of another kind, missing, damaged or not of cnmc, or its runtime is
            not installed.
    """
    if path.suffix == ".onnx":
        return OnnxPredictor(path, num_threads)
    if path.suffix == ".xml":
        return OpenVinoPredictor(path, num_threads)
    raise CnmcError(f"{path}: unknown kind of file; expected .onnx, or .xml of OpenVINO")


_TYPES = {"tensor(uint8)": "uint8", "u8": "uint8", "tensor(float)": "float32", "f32": "float32"}
"""Numbers, as ONNX Runtime and as OpenVINO calls them."""


def _tensor(kind: str, shape: Sequence[int | str | None]) -> str:
    """Return the type and shape of an input or output in words; a size may vary."""
    sides = (str(side) if isinstance(side, int) else "any" for side in shape)
    return f"{_TYPES.get(kind, kind)} {' x '.join(sides)}"


def _tensors(ports: Sequence[Any]) -> dict[str, str]:
    """Return the inputs or outputs of an OpenVINO model in words, by name."""
    found: dict[str, str] = {}
    for port in ports:
        rank = port.partial_shape.rank
        sides = list(port.partial_shape) if rank.is_static else []
        shape = [None if side.is_dynamic else side.get_length() for side in sides]
        tensor = _tensor(port.element_type.get_type_name(), shape)
        found |= dict.fromkeys(port.get_names() or {"(without a name)"}, tensor)
    return found


def _check_graph(
    path: Path, info: GraphInfo, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """Refuse a graph that its metadata do not describe.

    Args:
        path: The file.
        info: Its metadata.
        inputs: What :func:`_tensor` says of each input, by name.
        outputs: The same of each output.
    """
    takes = {INPUT: f"uint8 any x {info.size} x {info.size} x 3"}
    gives = {OUTPUT: f"float32 any x {info.num_rotations}", PROBABILITY: "float32 any"}
    for found, expected in ((inputs, takes), (outputs, gives)):
        if found != expected:
            shown = [
                ", ".join(f"{name}: {tensor}" for name, tensor in sorted(side.items())) or "nothing"
                for side in (found, expected)
            ]
            raise unreadable(path, f"its graph has {shown[0]}; by its metadata it has {shown[1]}")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise CnmcError(f"{path}: no such file; export the checkpoint again")


def unreadable(path: Path, error: Exception | str) -> CnmcError:
    """Return the error of an exported file that is damaged."""
    reason = " ".join(str(error).split())[:200]
    return CnmcError(f"{path}: cannot be read ({reason}); export the checkpoint again")

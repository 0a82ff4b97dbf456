"""Describe and open trained networks for prediction on the CPU; an exported one needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from cnmc.analysis.decision import Decision
from cnmc.devices import num_cores
from cnmc.errors import CnmcError, needs

Images = NDArray[np.uint8]
"""Cropped RGB cells of shape (cells, size, size, 3)."""

Logits = NDArray[np.float32]
"""One logit per rotation, of shape (cells, rotations)."""

FORMAT = 2
"""Version of exported files; raise it when an older reader would misread them."""

METADATA = "cnmc"
"""Name of the metadata entry, which holds a :class:`GraphInfo` as JSON."""

INPUT, OUTPUT, PROBABILITY = "images", "logits", "probability"
EXPORTED = (".onnx", ".xml")
"""Suffixes of exported networks; a file of another name is a checkpoint of training."""


@dataclass(frozen=True)
class GraphInfo:
    """Description of a network, which an exported file stores."""

    network: str
    """Name in timm."""
    crop: int
    """Side in pixels of the central square that is cut out of an image."""
    resize: int | None = None
    """Side in pixels to which the square is resized; None keeps it."""
    num_rotations: int = 8
    mean: tuple[float, ...] | None = None
    """Mean of the normalisation, RGB in [0, 1]; None keeps pixels in [0, 1]."""
    std: tuple[float, ...] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the run that trained it: experiment, name, seed, fingerprints."""
    epoch: int = 0
    """Epoch of the run; 0 before training."""
    precision: str = "float32"
    """``float32`` or ``int8``."""
    decision: Decision = field(default_factory=Decision)

    @property
    def size(self) -> int:
        """Side in pixels of the images that the network takes."""
        return self.resize or self.crop

    @property
    def label(self) -> str:
        """Experiment, name and epoch of its run."""
        return f"{self.run.get('experiment')}/{self.run.get('name')}, epoch {self.epoch}"

    def to_json(self) -> str:
        """Return the text that a file stores."""
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> GraphInfo:
        """Read the text that a file stores; ValueError if it does not describe a network."""
        values = json.loads(text or "{}")
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"no {METADATA} metadata of format {FORMAT}")
        for name in ("mean", "std"):
            values[name] = values[name] and tuple(values[name])
        return cls(**values | {"decision": Decision.from_values(values["decision"])})


@dataclass(frozen=True)
class Network:
    """A network that is ready to predict."""

    path: Path
    digest: str
    """32 hexadecimal digits of the file's content."""
    info: GraphInfo
    logits: Callable[[Images], Logits]
    """Maps at least one cell to its logits."""


def find_checkpoint(path: Path) -> Path:
    """Return the file of a network; for a run folder, its best checkpoint."""
    file = path / "checkpoints" / "best.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise CnmcError(
            f"{file}: no such file; give a run folder, a checkpoint, or a file of python -m "
            "cnmc.export"
        )
    return file


def open_network(path: Path, num_threads: int | None = None) -> Network:
    """Open a checkpoint, a run folder (its best checkpoint), or an exported network.

    A checkpoint is evaluated as in training, by ``num_threads`` threads of PyTorch. No code in a
    file is executed. By default, all cores are used.

    Raises:
        CnmcError: The file is missing, damaged or of another kind, or a package is missing.
    """
    file = find_checkpoint(path)
    digest = hashlib.blake2b(file.read_bytes(), digest_size=16)
    if file.suffix == ".xml" and file.with_suffix(".bin").is_file():
        digest.update(file.with_suffix(".bin").read_bytes())  # the weights
    if file.suffix in EXPORTED:
        info, logits = _open_exported(file, num_threads or num_cores())
    else:
        with needs("train", f"{path}: a checkpoint"):
            import torch  # noqa: PLC0415

            from cnmc.deploy.graph import read_trained  # noqa: PLC0415
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        graph = read_trained(file).graph
        info, logits = graph.info, graph.predict
    return Network(file, digest.hexdigest(), info, logits)


def _open_exported(path: Path, num_threads: int) -> tuple[GraphInfo, Callable[[Images], Logits]]:
    try:
        opened = _open_onnx(path) if path.suffix == ".onnx" else _open_openvino(path, num_threads)
        info, run = opened
        given = run(np.zeros((1, info.size, info.size, 3), dtype=np.uint8)).shape
        if given != (1, info.num_rotations):
            raise ValueError(f"logits of shape {given} for {info.num_rotations} rotations")
    except CnmcError:
        raise
    # The exceptions of the runtimes have no common base.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(
            f"{path}: not a complete file of python -m cnmc.export ({reason}); export the "
            "checkpoint again"
        ) from None

    def logits(images: Images) -> Logits:
        # One cell per thread is faster than several threads per cell.
        with ThreadPoolExecutor(num_threads) as pool:
            return np.concatenate(list(pool.map(run, images[:, None])))

    return info, logits


def _open_onnx(path: Path) -> tuple[GraphInfo, Callable[[Images], Logits]]:
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    session = runtime.InferenceSession(path.read_bytes(), options, providers=providers)
    info = GraphInfo.from_json(session.get_modelmeta().custom_metadata_map.get(METADATA))
    return info, lambda cell: session.run([OUTPUT], {INPUT: cell})[0]


def _open_openvino(path: Path, num_threads: int) -> tuple[GraphInfo, Callable[[Images], Logits]]:
    core = openvino_core()
    model = core.read_model(path)
    text = str(model.get_rt_info([METADATA]).value) if model.has_rt_info([METADATA]) else None
    info = GraphInfo.from_json(text)
    # A fixed shape is a few percent faster.
    model.reshape([1, info.size, info.size, 3])
    options = {
        "NUM_STREAMS": num_threads,
        "INFERENCE_NUM_THREADS": num_threads,
        "INFERENCE_PRECISION_HINT": "f32",  # not 16 bits where the processor can
    }
    compiled = core.compile_model(model, "CPU", options)
    return info, lambda cell: compiled.create_infer_request().infer({INPUT: cell})[OUTPUT]


def without_telemetry() -> Any:
    """Keep OpenVINO and NNCF from reporting their use and from writing to the home folder."""
    return patch.dict(os.environ, CI="true")


def require(package: str) -> Any:
    """Import a package that runs or writes exported networks; CnmcError if it is missing."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    extra = "screen" if package in ("onnxruntime", "openvino") else "export"
    with without_telemetry(), needs(extra, "an exported network"):
        return import_module(package)


@cache
def openvino_core() -> Any:
    """Return the OpenVINO core of this process.

    It is never freed: when a core ends, it frees the stack of the signal handlers, and the next
    signal would kill the process.
    """
    return require("openvino").Core()


def open_networks(paths: Sequence[Path], num_threads: int | None = None) -> list[Network]:
    """Open different networks that take the same images; see :func:`open_network`."""
    networks = [open_network(path, num_threads) for path in paths]
    for number, network in enumerate(networks):
        for other in networks[:number]:
            if network.digest == other.digest:
                raise CnmcError(f"{network.path} and {other.path}: the same network; give it once")
        one, two = networks[0].info, network.info
        if (one.crop, one.resize) != (two.crop, two.resize):
            raise CnmcError(
                f"checkpoint: {networks[0].path} has crop {one.crop} and resize {one.resize}, but "
                f"{network.path} has crop {two.crop} and resize {two.resize}; the networks of an "
                "ensemble must take the same images"
            )
    return networks


def best_runs(root: Path, experiment: str, top: int) -> list[Path]:
    """Return the folders of the ``top`` runs of an experiment by the F1 that ``cnmc.best`` uses."""
    with needs("train", f"experiment={experiment}: ranking its runs"):
        from cnmc.analysis.ranking import candidates_in, rank  # noqa: PLC0415 (pandas)

    runs = rank(candidates_in(root, experiment)[0])
    if len(runs) < top:
        raise CnmcError(
            f"top={top}: experiment {experiment} has {len(runs)} finished runs below {root}; "
            f"top={len(runs)} uses all"
        )
    return [run.folder for run in runs[:top] if run.folder is not None]

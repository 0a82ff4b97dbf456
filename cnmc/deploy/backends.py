"""All ways to run a network on this machine's CPU, each under a name."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnmc.deploy.formats import export_onnx, export_openvino
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.runtime import (
    GraphInfo,
    Images,
    Logits,
    Predictor,
    check_images,
    open_predictor,
)
from cnmc.devices import num_cores
from cnmc.errors import CnmcError
from cnmc.model.tta import images_at_once

BACKENDS = ("eager", "channels_last", "compiled", "onnx", "openvino", "openvino_int8")
"""From the plainest to the fastest; ``eager`` is what training evaluates with."""

_PACKAGES = {
    "onnx": ("onnxscript", "onnxruntime"),
    "openvino": ("onnxscript", "openvino"),
    "openvino_int8": ("onnxscript", "openvino", "nncf"),
}
VIEWS_AT_ONCE = 8


class TorchPredictor:
    """Runs a network with PyTorch, on the CPU.

    Args:
        info: What the network expects.
        forward: B x S x S x 3 uint8 to B x K float32.
        cells_at_once: Cells in a batch.
        fixed: Fill the last batch up, for a function that is made for one size of batch.
        num_threads: Threads of each operation; None takes all cores.
    """

    def __init__(
        self,
        info: GraphInfo,
        forward: Callable[[Tensor], Tensor],
        *,
        cells_at_once: int,
        fixed: bool = False,
        num_threads: int | None = None,
    ) -> None:
        self._info = info
        self._forward = forward
        self._cells_at_once = cells_at_once
        self._fixed = fixed
        self._num_threads = num_threads or num_cores()

    @property
    def info(self) -> GraphInfo:
        """What it expects."""
        return self._info

    def predict(self, images: Images) -> Logits:
        """Return one logit a rotation, see :class:`~cnmc.deploy.runtime.Predictor`."""
        check_images(images, self._info)
        logits = np.empty((len(images), self._info.num_rotations), dtype=np.float32)
        with torch.no_grad(), threads(self._num_threads):
            for start in range(0, len(images), self._cells_at_once):
                batch = images[start : start + self._cells_at_once]
                size = len(batch)
                if self._fixed and size < self._cells_at_once:
                    batch = np.resize(batch, (self._cells_at_once, *batch.shape[1:]))
                # A copy: images may be mapped from a file that cannot be written to.
                rows = self._forward(torch.from_numpy(np.array(batch)))
                logits[start : start + size] = rows[:size].numpy()
        return logits


def eager(graph: CellGraph, num_threads: int | None = None) -> TorchPredictor:
    """Return what runs a network as training evaluates it."""
    return TorchPredictor(
        graph.info,
        graph.one_by_one,
        cells_at_once=images_at_once(graph.info.size),
        num_threads=num_threads,
    )


def obstacle(name: str) -> str | None:
    """Return why a backend cannot run here, in a few words; None where it can.

    Raises:
        CnmcError: There is no backend of this name.
    """
    if name not in BACKENDS:
        raise CnmcError(f"backend={name}: expected one of {', '.join(BACKENDS)}")
    compiler = os.environ.get("CXX", "g++")
    if name == "compiled" and shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}); install one, or name it with CXX"
    absent = [p for p in _PACKAGES.get(name, ()) if importlib.util.find_spec(p) is None]
    return f"{', '.join(absent)} not installed; pip install 'cnmc[export]'" if absent else None


def make_backend(
    name: str,
    graph: CellGraph,
    *,
    folder: Path,
    num_threads: int | None = None,
    calibration: Images | None = None,
) -> Predictor:
    """Prepare a network for prediction; this may take a minute, its predictions do not.

    Args:
        name: One of :data:`BACKENDS`.
        graph: The network; it is left as it is.
        folder: Takes the files of those backends that run files.
        num_threads: Cores to use; None takes all.
        calibration: Cells of the training part, for ``openvino_int8``.

    Raises:
        CnmcError: There is no such backend, it cannot run here, or there is nothing to calibrate
            with.
    """
    reason = obstacle(name)
    if reason is not None:
        raise CnmcError(f"backend={name}: {reason}")
    if name in _PACKAGES:
        path = folder / (f"{name}.onnx" if name == "onnx" else f"{name}.xml")
        if name == "onnx":
            export_onnx(graph, path)
        elif name == "openvino":
            export_openvino(graph, path)
        elif calibration is None:
            raise CnmcError(f"backend={name}: needs cells of the training part to calibrate with")
        else:
            export_openvino(graph, path, calibration)
        return open_predictor(path, num_threads)

    info = graph.info
    cells = max(VIEWS_AT_ONCE // info.num_rotations, 1)
    if name == "eager":
        return eager(graph, num_threads)
    graph = copy.deepcopy(graph)
    graph.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if name == "channels_last":
        return TorchPredictor(info, graph, cells_at_once=cells, num_threads=num_threads)
    torch.compiler.reset()  # the limit of variants counts those of earlier networks
    compiled = torch.compile(graph, dynamic=False, fullgraph=True, options={"freezing": True})
    predictor = TorchPredictor(
        info, compiled, cells_at_once=cells, fixed=True, num_threads=num_threads
    )
    try:
        predictor.predict(np.zeros((cells, info.size, info.size, 3), dtype=np.uint8))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CnmcError(
            f"backend={name}: this network could not be compiled ({reason}); another backend can "
            "run it"
        ) from error
    return predictor


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

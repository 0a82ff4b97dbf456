"""Run a network on the CPU in every way that the benchmark compares."""

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

from cnmc.deploy.exported import GraphInfo, Images, Logits
from cnmc.deploy.formats import write_network
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.runtime import Predictor, open_exported
from cnmc.devices import num_cores
from cnmc.model.tta import images_at_once

BACKENDS = ("eager", "channels_last", "compiled", "onnx", "openvino", "openvino_int8")
"""From the plainest to the fastest; ``eager`` evaluates as training does."""

_PACKAGES = {
    "onnx": ("onnxscript", "onnxruntime"),
    "openvino": ("onnxscript", "openvino"),
    "openvino_int8": ("onnxscript", "openvino", "nncf"),
}
_VIEWS_AT_ONCE = 8


def torch_predictor(
    info: GraphInfo,
    forward: Callable[[Tensor], Tensor],
    *,
    cells_at_once: int,
    fixed: bool = False,
    num_threads: int | None = None,
) -> Predictor:
    """Return a predictor that runs PyTorch.

    Args:
        info: Description of the network.
        forward: B x S x S x 3 uint8 to B x K float32.
        cells_at_once: Cells in a batch.
        fixed: Fill the last batch up, for a function that is compiled for one batch size.
        num_threads: Threads of each operation; None uses all cores.
    """

    def fill(images: Images, logits: Logits) -> None:
        with torch.no_grad(), threads(num_threads or num_cores()):
            for start in range(0, len(images), cells_at_once):
                batch = images[start : start + cells_at_once]
                size = len(batch)
                if fixed:
                    batch = np.resize(batch, (cells_at_once, *batch.shape[1:]))
                # A copy, because PyTorch warns about arrays that cannot be written to.
                rows = forward(torch.from_numpy(np.array(batch)))
                logits[start : start + size] = rows[:size].numpy()

    return Predictor(info, fill)


def eager(graph: CellGraph, num_threads: int | None = None) -> Predictor:
    """Return a predictor that evaluates exactly as training does."""
    at_once = images_at_once(graph.info.size)
    return torch_predictor(
        graph.info, graph.one_by_one, cells_at_once=at_once, num_threads=num_threads
    )


def obstacle(name: str) -> str | None:
    """Return why a backend cannot run on this machine; None where it can."""
    compiler = os.environ.get("CXX", "g++")
    if name == "compiled" and shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler})"
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
    """Prepare a network for prediction with one of :data:`BACKENDS`, which may take a minute.

    Files are written to ``folder``; ``calibration`` are training cells for ``openvino_int8``.
    """
    if name in _PACKAGES:
        path = folder / (f"{name}.onnx" if name == "onnx" else f"{name}.xml")
        write_network(graph, name, path, calibration)
        return open_exported(path, num_threads)
    if name == "eager":
        return eager(graph, num_threads)
    graph = copy.deepcopy(graph)
    graph.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cells = max(_VIEWS_AT_ONCE // graph.info.num_rotations, 1)
    forward: Callable[[Tensor], Tensor] = graph
    if name == "compiled":
        torch.compiler.reset()  # earlier networks count towards the limit of variants
        forward = torch.compile(graph, dynamic=False, fullgraph=True, options={"freezing": True})
    return torch_predictor(
        graph.info,
        forward,
        cells_at_once=cells,
        fixed=name == "compiled",
        num_threads=num_threads,
    )


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Let PyTorch use a number of threads, and restore the former number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Write a network as ONNX, or as OpenVINO with 32 or 8 bits, and check the file.

A file takes uint8 RGB cells of the size in its metadata, any number of them, and gives ``logits``,
one per rotation, and ``probability``, that of the mean logit. Rotations, scaling, temperature and
a description (:class:`~cnmc.deploy.exported.GraphInfo`) are inside.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnmc.analysis.metrics import decision_metrics
from cnmc.data.parallel import progress
from cnmc.deploy.exported import INPUT, METADATA, OUTPUT, PROBABILITY, Images
from cnmc.deploy.graph import CellGraph, TrainedNetwork
from cnmc.deploy.networks import open_network, openvino_core, require, without_telemetry
from cnmc.deploy.run_cells import CellsOfRun, cells_to_check
from cnmc.errors import CnmcError

INT8 = "openvino_int8"
TOLERANCE = 1e-3
"""Largest accepted difference of a logit in 32 bits, which changes no probability by more than
0.00025. Where logits are above 1, it is relative to the largest."""

MAX_F1_CHANGE = 0.001
"""Largest accepted change of the weighted F1 by 8-bit numbers."""

_OPSET = 20
_NOT_ROUNDED = ["Convert", "Gather", "Pad", "Reshape", "Transpose", "ReduceMean", "Sigmoid"]
_CALIBRATED, _CHECKED, _CHECKED_INT8 = 128, 8, 512


class Check(NamedTuple):
    """Result of a comparison of an exported file with PyTorch on the same cells."""

    line: str
    f1_change: float | None
    """Weighted F1 of the file minus that of PyTorch for 8 bits; None for 32 bits."""


def export_network(
    trained: TrainedNetwork, kind: str, path: Path, cells: CellsOfRun | None
) -> Check:
    """Write a network to a file and check it on cells of its run, or on generated cells.

    Raises:
        CnmcError: The file does not give what the network gives, a package is missing, or there
            are no training cells for 8 bits.
    """
    number, calibration = _CHECKED, None
    if kind == INT8:
        if cells is None:
            raise CnmcError(
                f"format={kind}: needs training cells to find the ranges of 8-bit numbers; give "
                "data.root=DIR of the data set that the network was trained on"
            )
        number, (calibration, _) = _CHECKED_INT8, cells.read("train", _CALIBRATED, trained.info)
    images, labels, origin = cells_to_check(cells, number, trained.info)
    write_network(trained.graph, kind, path, calibration)
    return check_file(path, trained.graph, images, labels, origin)


def check_file(
    path: Path, graph: CellGraph, images: Images, labels: NDArray[np.int64], origin: str
) -> Check:
    """Compare an exported file with its network on cells, whose labels are 1 (ALL) or 0 (HEM).

    Raises:
        CnmcError: Logits differ by more than :data:`TOLERANCE`, or F1 by more than
            :data:`MAX_F1_CHANGE` for 8 bits.
    """
    exported, parts = open_network(path), []
    with progress("Checking", len(images)) as advance:
        for start in range(0, len(images), _CHECKED):
            part = images[start : start + _CHECKED]
            parts.append((exported.logits(part), graph.predict(part)))
            advance(len(part))
    logits, expected = (np.concatenate(side) for side in zip(*parts, strict=True))
    difference = float(np.abs(logits - expected).max())
    line = f"checked on {origin}: logits differ from PyTorch by at most {difference:.1e}"
    if exported.info.precision == "int8":
        means = logits.mean(axis=1), expected.mean(axis=1)
        f1, f1_of_torch = (float(decision_metrics(labels, mean)["f1"]) for mean in means)
        same = float(((means[0] > 0) == (means[1] > 0)).mean())
        line += f", F1 {100 * f1:.2f} (PyTorch {100 * f1_of_torch:.2f})"
        check = Check(f"{line}, {100 * same:.1f} % of decisions the same", f1 - f1_of_torch)
        passed = abs(f1 - f1_of_torch) <= MAX_F1_CHANGE
    else:
        check = Check(line, None)
        passed = difference <= TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not passed:
        raise CnmcError(
            f"{path.name}: not written, because it does not give what the network gives "
            f"({check.line}); try another format"
        )
    return check


def write_network(
    graph: CellGraph, kind: str, path: Path, calibration: Images | None = None
) -> None:
    """Write a network to a file.

    Args:
        graph: The network.
        kind: ``onnx``, ``openvino`` or ``openvino_int8``.
        path: The ``.onnx`` file, or the ``.xml`` file, which gets a ``.bin`` beside it.
        calibration: Training cells, whose activations determine the ranges of 8-bit numbers; None
            for the other formats.

    Raises:
        CnmcError: A package is not installed.
    """
    if kind == "onnx":
        _write_onnx(graph, path)
        return
    openvino = require("openvino")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        _write_onnx(graph, file)
        # Unlike read_model this simplifies the graph, so that NNCF finds the limits of ReLU6.
        with without_telemetry():
            model = openvino.convert_model(file)
    info = graph.info
    if calibration is not None:
        model = _quantized(model, calibration)
        info = replace(info, precision="int8")
    model.set_rt_info(info.to_json(), [METADATA])
    openvino.save_model(model, path, compress_to_fp16=False)


class _Outputs(nn.Module):
    """A graph that also gives the probability of ALL."""

    def __init__(self, graph: CellGraph) -> None:
        super().__init__()
        self.network = graph  # the exporter loses an attribute with the name `graph`
        self.temperature = graph.info.decision.temperature
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return B x K logits and B probabilities of B x S x S x 3 uint8."""
        logits = self.network(images)
        return logits, torch.sigmoid(logits.mean(dim=1) / self.temperature)


def _write_onnx(graph: CellGraph, path: Path) -> None:
    require("onnxscript")
    for name in ("onnx_ir", "onnxscript"):  # they log a line for every repeated constant
        logging.getLogger(name).setLevel(logging.WARNING)
    # From a single cell the exporter would conclude that there is always one.
    example = torch.zeros((2, graph.info.size, graph.info.size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(action="ignore"):
        program: Any = torch.onnx.export(
            _Outputs(graph),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT, PROBABILITY],
            dynamic_shapes=({0: torch.export.Dim("cells")},),
        )
    for node in program.model.graph:
        node.metadata_props.clear()  # they name the source files on this machine
    program.model.metadata_props[METADATA] = graph.info.to_json()
    program.save(path)


def _quantized(model: Any, calibration: Images) -> Any:
    """Return a model that computes its convolutions with 8-bit numbers."""
    openvino_core()  # before NNCF makes a core that ends
    nncf = require("nncf")
    nncf.set_log_level(logging.WARNING)
    estimators = require("nncf.quantization.range_estimator").RangeEstimatorParametersSet
    cells = [cell[None] for cell in calibration]
    return nncf.quantize(
        model,
        nncf.Dataset(cells),
        subset_size=len(cells),
        preset=nncf.QuantizationPreset.MIXED,
        # Rounding the input twice, or the probability to 256 values, would only cost accuracy.
        ignored_scope=nncf.IgnoredScope(types=_NOT_ROUNDED, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # Half of the weights' range stays unused: processors without VNNI would overflow.
            overflow_fix=nncf.OverflowFix.ENABLE,
            # The default cuts bright cells off at the mean of the cells' largest values.
            activations_range_estimator_params=estimators.MINMAX,
        ),
    )

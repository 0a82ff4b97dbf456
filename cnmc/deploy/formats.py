"""Write a network as ONNX, or as OpenVINO with 32 or 8 bits.

A file takes uint8 RGB cells of the size in its metadata, any number of them, and gives ``logits``,
one per rotation, and ``probability``, that of the mean logit. Rotations, scaling, temperature and
a description (:class:`~cnmc.deploy.exported.GraphInfo`) are inside.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cnmc.deploy.exported import INPUT, METADATA, OUTPUT, PROBABILITY, Images
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.runtime import openvino_core, require, without_telemetry

INT8 = "openvino_int8"
_OPSET = 20


class _Answer(nn.Module):
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


def write_network(
    graph: CellGraph, kind: str, path: Path, calibration: Images | None = None
) -> None:
    """Write a network to a file.

    Args:
        graph: The network.
        kind: ``onnx``, ``openvino`` or ``openvino_int8``.
        path: The ``.onnx`` file, or the ``.xml`` file, which gets a ``.bin`` beside it.
        calibration: Training cells, whose activations determine the ranges of 8-bit numbers.

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
    if kind == INT8:
        model = _quantized(model, calibration)
        info = replace(info, precision="int8")
    model.set_rt_info(info.to_json(), [METADATA])
    openvino.save_model(model, path, compress_to_fp16=False)


def _write_onnx(graph: CellGraph, path: Path) -> None:
    require("onnxscript")
    for name in ("onnx_ir", "onnxscript"):  # they log a line for every repeated constant
        logging.getLogger(name).setLevel(logging.WARNING)
    # From a single cell the exporter would conclude that there is always one.
    example = torch.zeros((2, graph.info.size, graph.info.size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(action="ignore"):
        program: Any = torch.onnx.export(
            _Answer(graph),
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


def _quantized(model: Any, calibration: Images | None) -> Any:
    """Return a model that computes its convolutions with 8-bit numbers."""
    openvino_core()  # before NNCF makes a core that ends
    nncf = require("nncf")
    nncf.set_log_level(logging.WARNING)
    estimators = require("nncf.quantization.range_estimator").RangeEstimatorParametersSet
    # Rounding the input twice, or the probability to 256 values, would only cost accuracy.
    nodes = model.get_ordered_ops()
    kept = list(takewhile(lambda node: "Convolution" not in node.get_type_name(), nodes))
    last = [model.output(OUTPUT).get_node().input_value(0).get_node()]
    names = {last[0].get_friendly_name()}
    for node in nodes:
        if names & {value.get_node().get_friendly_name() for value in node.input_values()}:
            last.append(node)
            names.add(node.get_friendly_name())
    ignored = [
        node.get_friendly_name()
        for node in (*kept, *last)
        if node.get_type_name() not in ("Parameter", "Constant", "Result")
    ]
    cells = [cell[None] for cell in calibration] if calibration is not None else []
    return nncf.quantize(
        model,
        nncf.Dataset(cells),
        subset_size=len(cells),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=ignored),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # Half of the weights' range stays unused: processors without VNNI would overflow.
            overflow_fix=nncf.OverflowFix.ENABLE,
            # The default cuts bright cells off at the mean of the cells' largest values.
            activations_range_estimator_params=estimators.MINMAX,
        ),
    )

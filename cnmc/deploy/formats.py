"""Writes a network to a file: ONNX, OpenVINO with or without 8 bits, TorchScript.

A file takes uint8 RGB cells (any number of them, cropped to the size that it names) and gives
``logits``, one a rotation, and ``probability``, that of the mean logit: rotations, scaling and
temperature are inside, and so is where the network comes from.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from cnmc.deploy.graph import CellGraph
from cnmc.deploy.runtime import (
    INPUT,
    METADATA,
    OUTPUT,
    PROBABILITY,
    Images,
    check_images,
    openvino_core,
    require,
)
from cnmc.errors import CnmcError
from cnmc.files import replacing, to_disk

OPSET = 20
"""Version of ONNX's operators, of 2023."""


class _Answer(nn.Module):
    """A graph, and the probability of ALL beside its logits."""

    def __init__(self, graph: CellGraph) -> None:
        super().__init__()
        self.network = graph  # under the name `graph`, PyTorch's exporter would lose it
        self.temperature = graph.info.decision.temperature
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return B x K logits and B probabilities of B x S x S x 3 uint8."""
        logits = self.network(images)
        return logits, torch.sigmoid(logits.mean(dim=1) / self.temperature)


def export_torchscript(graph: CellGraph, path: Path) -> None:
    """Write a TorchScript file.

    Args:
        graph: The network.
        path: The file, ``.pt``; it takes the place of an earlier one only when it is whole.

    Raises:
        CnmcError: The suffix is another.
    """
    _check_suffix(path, ".pt")
    with warnings.catch_warnings(action="ignore"):  # of TorchScript, about its own future
        traced = torch.jit.trace(_Answer(graph), _example(graph), check_trace=False)  # type: ignore[no-untyped-call]
        with replacing(path) as temporary:
            torch.jit.save(traced, temporary, _extra_files={METADATA: graph.info.to_json()})


def export_onnx(graph: CellGraph, path: Path) -> None:
    """Write an ONNX file.

    Args:
        graph: The network.
        path: The file, ``.onnx``; it takes the place of an earlier one only when it is whole.

    Raises:
        CnmcError: The suffix is another, or a package is not installed.
    """
    _check_suffix(path, ".onnx")
    with replacing(path) as temporary:
        _write_onnx(graph, temporary)


def export_openvino(graph: CellGraph, path: Path, calibration: Images | None = None) -> None:
    """Write an OpenVINO model: ``.xml``, and ``.bin`` beside it.

    Args:
        graph: The network.
        path: The ``.xml``; the files take the place of earlier ones only when they are whole.
        calibration: Cells as the graph takes them, of the training part, whose activations tell
            the ranges of 8-bit numbers: then the convolutions compute with those. None keeps
            float32.

    Raises:
        CnmcError: The suffix is another, a package is not installed, or there is no cell to
            calibrate with, or of another size.
    """
    _check_suffix(path, ".xml")
    openvino = require("openvino")
    if calibration is not None:
        check_images(calibration, graph.info)
        if len(calibration) == 0:
            raise CnmcError("8-bit numbers need cells to calibrate with, and none are given")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        _write_onnx(graph, file)
        # Not merely read: simplified too, without which NNCF would not know the limits of ReLU6.
        model = openvino.convert_model(file)
        info = graph.info
        if calibration is not None:
            model = _quantized(model, calibration)
            info = replace(info, precision="int8")
        model.set_rt_info(info.to_json(), [METADATA])
        whole = Path(folder) / "whole.xml"
        openvino.save_model(model, whole, compress_to_fp16=False)
        put_in_place(whole, path)


def put_in_place(whole: Path, path: Path, beside: Mapping[Path, Path] | None = None) -> None:
    """Copy a file of a network, and what belongs to it, to its place: all of them or none.

    Args:
        whole: The file as it was written elsewhere; beside an ``.xml`` lies its ``.bin``.
        path: Where it belongs, with the same suffix.
        beside: Files that belong to it, by their places.

    Raises:
        CnmcError: See :func:`check_place`.
    """
    check_place(path)
    parts = {part: whole.with_suffix(part.suffix) for part in _parts(path)}
    with ExitStack() as stack:
        # The first takes its place last.
        for place, source in (parts | dict(beside or {})).items():
            temporary = stack.enter_context(replacing(place, lasting=False))
            shutil.copyfile(source, temporary)
            to_disk(temporary)
        if len(parts) > 1:
            # Without its .xml a model cannot be opened, so no process ever sees halves of two
            # models. All that is left to do is to rename.
            path.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Refuse the place of a file where something else would be lost.

    Raises:
        CnmcError: A folder lies there, or beside the place of an ``.xml`` a ``.bin`` of something
            else.
    """
    for part in _parts(path):
        if part.is_dir():
            raise CnmcError(f"output={path}: {part} is a folder; give the name of a file")
        if part != path and part.exists() and not path.exists():
            raise CnmcError(
                f"output={path}: {part.name} beside it, which would be overwritten, belongs to no "
                "model; remove it or give another name"
            )


def _parts(path: Path) -> list[Path]:
    """Return the files of an exported network; the one that names it comes first."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def _example(graph: CellGraph) -> Tensor:
    """Return two cells: of one, an exporter would conclude that there is always one."""
    return torch.zeros((2, graph.info.size, graph.info.size, 3), dtype=torch.uint8)


def _write_onnx(graph: CellGraph, path: Path) -> None:
    require("onnxscript")
    for name in ("onnx_ir", "onnxscript"):  # else a line for each constant that is there twice
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings(action="ignore"):  # the exporter's, about its own future
        program: Any = torch.onnx.export(
            _Answer(graph),
            (_example(graph),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT, PROBABILITY],
            dynamic_shapes=({0: torch.export.Dim("cells")},),
        )
    for node in program.model.graph:
        node.metadata_props.clear()  # source lines, by their paths on this machine
    program.model.metadata_props[METADATA] = graph.info.to_json()
    program.save(path)


def _quantized(model: Any, calibration: Images) -> Any:
    """Return a model whose weights and activations are 8-bit numbers where that is faster."""
    openvino_core()  # before NNCF makes one that does not last
    nncf = require("nncf")
    nncf.set_log_level(logging.WARNING)  # else a line for each operation that is left as it is
    estimators = require("nncf.quantization.range_estimator").RangeEstimatorParametersSet
    # Rotating and scaling cost nothing, and bytes rounded twice would cost accuracy; so would a
    # probability of 256 values.
    nodes = model.get_ordered_ops()
    before = list(takewhile(lambda node: "Convolution" not in node.get_type_name(), nodes))
    after = [model.output(OUTPUT).get_node().input_value(0).get_node()]
    names = {after[0].get_friendly_name()}
    for node in nodes:
        if names & {value.get_node().get_friendly_name() for value in node.input_values()}:
            after.append(node)
            names.add(node.get_friendly_name())
    kept = [
        node.get_friendly_name()
        for node in (*before, *after)
        if node.get_type_name() not in ("Parameter", "Constant", "Result")
    ]
    cells = [calibration[position : position + 1] for position in range(len(calibration))]
    return nncf.quantize(
        model,
        nncf.Dataset(cells),
        subset_size=len(cells),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=kept),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # Processors without VNNI add two products of bytes in 16 bits, which would overflow:
            # half the range of the weights is left unused, so that logits are the same everywhere.
            overflow_fix=nncf.OverflowFix.ENABLE,
            # By default bright cells are cut off at the mean of the cells' largest values.
            activations_range_estimator_params=estimators.MINMAX,
        ),
    )


def _check_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise CnmcError(f"{path}: expected a file name that ends in {suffix}")

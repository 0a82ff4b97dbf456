"""Write a network as ONNX, or as OpenVINO with 32 or 8 bits, and check the file on cells.

A file takes uint8 RGB cells of the size in its metadata, any number of them, and gives ``logits``,
one per rotation, and ``probability``, that of the mean logit. Rotations, scaling, temperature and
a description (:class:`~cnmc.deploy.networks.GraphInfo`) are inside.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnmc.analysis.calibration import CHOOSING_ROLE
from cnmc.analysis.metrics import decision_metrics
from cnmc.config import DataConfig, SplitConfig
from cnmc.data.images import crop_and_resize, decode, read_file
from cnmc.data.parallel import progress
from cnmc.data.sources.synthetic_cells import draw_cell, subject_traits
from cnmc.data.store import open_split
from cnmc.deploy.graph import CellGraph, TrainedNetwork
from cnmc.deploy.networks import (
    INPUT,
    METADATA,
    OUTPUT,
    PROBABILITY,
    GraphInfo,
    Images,
    open_network,
    openvino_core,
    require,
    without_telemetry,
)
from cnmc.devices import num_cores
from cnmc.errors import CnmcError

Labels = NDArray[np.int64]
"""Classes of cells: 1 for ALL, 0 for HEM."""

INT8 = "openvino_int8"
TOLERANCE = 1e-3
"""Largest accepted difference of a logit in 32 bits, which changes no probability by more than
0.00025. Where logits are above 1, it is relative to the largest."""

MAX_F1_CHANGE = 0.001
"""Largest accepted change of the weighted F1 by 8-bit numbers."""

_OPSET = 20
_NOT_ROUNDED = ["Convert", "Gather", "Pad", "Reshape", "Transpose", "ReduceMean", "Sigmoid"]
_CALIBRATED, _CHECKED, _CHECKED_INT8 = 128, 8, 512


@dataclass(frozen=True)
class CellsOfRun:
    """The labelled cells of a data set, with columns cell_id, path, subject, label and role."""

    root: Path
    cells: pd.DataFrame

    def read(self, role: str, num_cells: int, info: GraphInfo) -> tuple[Images, Labels]:
        """Read at most ``num_cells`` cells of a role, spread evenly over classes and subjects."""
        mine = self.cells[self.cells["role"] == role].sort_values(["label", "subject", "cell_id"])
        even = np.linspace(0, len(mine) - 1, min(num_cells, len(mine))).round().astype(int)
        mine = mine.iloc[even]
        images = [
            crop_and_resize(decode(read_file(self.root / path)), crop=info.crop, resize=info.resize)
            for path in mine["path"]
        ]
        return np.stack(images), mine["label"].to_numpy(dtype=np.int64)


def find_cells(trained: TrainedNetwork, root: Path | None) -> CellsOfRun:
    """Find the cells of a network's run, below ``root`` or else where the run folder says.

    Raises:
        CnmcError: The data set is not there, is another one, or its split cannot be repeated.
    """
    settings, run = trained.config["data"], trained.info.run
    if root is None and trained.folder is None:
        raise CnmcError(f"{trained.path}: lies outside its run folder, which names the data set")
    root = root or Path(settings["root"])
    with TemporaryDirectory() as temporary:
        known = trained.folder is not None and Path(settings["work_dir"]).is_dir()
        own = {"root": str(root), "work_dir": settings["work_dir"] if known else temporary}
        # Without synthetic, no cell is generated again.
        data = DataConfig(**settings | own | {"synthetic": None, "num_workers": num_cores()})
        opened = open_split(data, SplitConfig(**trained.config["split"]))
    for what in ("manifest", "split"):
        if getattr(opened, what).fingerprint != run.get(f"{what}_fingerprint"):
            raise CnmcError(
                f"data.root={root}: not the {what} that {trained.path} was trained with (another "
                "fingerprint); give data.root=DIR of its data set, and keep the file of its split"
            )
    roles = opened.split.cells[["cell_id", "role"]]
    return CellsOfRun(root, opened.manifest.cells.merge(roles, on="cell_id"))


def cells_to_check(
    trained: TrainedNetwork, found: CellsOfRun | None, num_cells: int
) -> tuple[Images, Labels, str]:
    """Return cells of a run, or drawn ones for None, with their classes and origin."""
    if found is not None:
        images, labels = found.read(CHOOSING_ROLE, num_cells, trained.info)
        kind = "generated cells" if trained.config["data"].get("synthetic") else "cells"
        return images, labels, f"{len(images)} {kind} of {found.root.name} (role {CHOOSING_ROLE})"
    rng = np.random.default_rng(0)
    labels = np.arange(num_cells) % 2
    subjects = [subject_traits(0, 0, label, number) for number, label in enumerate(labels.tolist())]
    drawn = [draw_cell(rng, number % 2, s, trained.info.size) for number, s in enumerate(subjects)]
    return np.stack(drawn), labels, f"{num_cells} generated cells"


class Check(NamedTuple):
    """Result of a comparison of an exported file with PyTorch on the same cells."""

    line: str
    f1_change: float | None
    """Weighted F1 of the file minus that of PyTorch for 8 bits; None for 32 bits."""


def export_network(
    trained: TrainedNetwork, kind: str, path: Path, cells: CellsOfRun | None
) -> Check:
    """Write a network to a file and check it on cells of its run, or on generated cells.

    ``openvino_int8`` needs cells of the run.
    """
    number, calibration = _CHECKED, None
    if kind == INT8 and cells is not None:
        number, (calibration, _) = _CHECKED_INT8, cells.read("train", _CALIBRATED, trained.info)
    images, labels, origin = cells_to_check(trained, cells, number)
    write_network(trained.graph, kind, path, calibration)
    return check_file(path, trained.graph, images, labels, origin)


def check_file(path: Path, graph: CellGraph, images: Images, labels: Labels, origin: str) -> Check:
    """Compare an exported file with its network.

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
    change = None
    passed = difference <= TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if exported.info.precision == "int8":
        means = logits.mean(axis=1), expected.mean(axis=1)
        f1, f1_of_torch = (float(decision_metrics(labels, mean)["f1"]) for mean in means)
        same = float(((means[0] > 0) == (means[1] > 0)).mean())
        line += f", F1 {100 * f1:.2f} (PyTorch {100 * f1_of_torch:.2f})"
        line += f", {100 * same:.1f} % of decisions the same"
        change = f1 - f1_of_torch
        passed = abs(change) <= MAX_F1_CHANGE
    if not passed:
        raise CnmcError(
            f"{path.name}: not written, because it does not give what the network gives "
            f"({line}); try another format"
        )
    return Check(line, change)


def write_network(
    graph: CellGraph, kind: str, path: Path, calibration: Images | None = None
) -> None:
    """Write a network as ``onnx`` (.onnx), ``openvino`` or ``openvino_int8`` (.xml and .bin).

    ``calibration`` are the training cells whose activations determine the ranges of 8-bit numbers.
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
    if kind == INT8 and calibration is not None:
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

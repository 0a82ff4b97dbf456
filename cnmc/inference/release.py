"""Writes a network for others: only a file that was opened again and gives the same is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cnmc.errors import CnmcError
from cnmc.inference.agreement import TOLERANCE, Agreement, compare
from cnmc.inference.cells import CellsOfRun, cells_to_check
from cnmc.inference.export import (
    export_onnx,
    export_openvino,
    export_torchscript,
    put_in_place,
)
from cnmc.inference.graph import CellGraph
from cnmc.inference.opening import open_network
from cnmc.inference.runtime import GraphInfo

INT8 = "openvino_int8"

CALIBRATION_CELLS = 128
"""Cells of the training part whose activations tell the ranges of 8-bit numbers."""

MAX_F1_MOVED = 0.001
"""By how much 8-bit numbers may move F1."""

_CHECKED, _CHECKED_INT8 = 8, 512


@dataclass(frozen=True)
class Check:
    """How a file was checked against PyTorch.

    Attributes:
        agreement: How far it is.
        cells: What it was shown, in a few words that begin with their number.
        info: What the file keeps.
    """

    agreement: Agreement
    cells: str
    info: GraphInfo

    @property
    def is_int8(self) -> bool:
        """Whether it computes with 8-bit numbers, which are other numbers on purpose."""
        return self.info.precision == "int8"

    def line(self) -> str:
        """Return the outcome in one line."""
        distance = f"logits at most {self.agreement.to_eager:.1e} from PyTorch's"
        if self.is_int8:
            same = 100 * self.agreement.same_decisions
            f1, before = 100 * self.agreement.f1, 100 * self.agreement.f1_of_eager
            return (
                f"checked on {self.cells}: F1 {f1:.2f}, of PyTorch {before:.2f}, {same:.1f} % of "
                f"decisions the same, {distance}"
            )
        if self.agreement.to_eager > TOLERANCE:
            distance += f", whose own rounding moves them by {self.agreement.rounding:.1e}"
        return f"checked on {self.cells}: {distance}"

    @property
    def is_passed(self) -> bool:
        """Whether others may have the file."""
        if self.is_int8:
            return abs(self.agreement.f1 - self.agreement.f1_of_eager) <= MAX_F1_MOVED
        return self.agreement.is_faithful


def release(graph: CellGraph, kind: str, path: Path, cells: CellsOfRun | None) -> Check:
    """Write a network to a file that was checked.

    Args:
        graph: The network.
        kind: ``onnx``, ``openvino``, ``openvino_int8`` or ``torchscript``.
        path: The file, with the suffix of its kind; nothing is written where the check fails.
        cells: Cells of the network's run; None where they are not here.

    Raises:
        CnmcError: The file does not give what the network gives, a package is not installed, or
            there is no cell of the training part to calibrate 8-bit numbers with.
    """
    is_int8 = kind == INT8
    calibration = None
    if is_int8:
        if cells is None:
            raise CnmcError(
                f"format={kind}: needs cells of the training part, to find the ranges of 8-bit "
                "numbers; give data=DIR of the data set that the network was trained on"
            )
        calibration, _ = cells.read("train", CALIBRATION_CELLS, graph.info)
    number = _CHECKED_INT8 if is_int8 else _CHECKED
    images, labels, shown = cells_to_check(cells, number, graph.info)
    with TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        if kind == "onnx":
            export_onnx(graph, whole)
        elif kind == "torchscript":
            export_torchscript(graph, whole)
        else:
            export_openvino(graph, whole, calibration)
        predictor = open_network(whole)
        agreement = compare(predictor, graph, images, labels if is_int8 else None, exact=False)
        # 64 bits take minutes, and are asked only where 32 leave a doubt.
        if not is_int8 and not agreement.is_faithful:
            agreement = compare(predictor, graph, images)
        check = Check(agreement, shown, predictor.info)
        if not check.is_passed:
            raise CnmcError(
                f"{path}: not written, as it does not give what the network gives; {check.line()}; "
                "another format can be tried"
            )
        put_in_place(whole, path)
    return check

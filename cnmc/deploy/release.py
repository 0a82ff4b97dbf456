"""Makes the file of a network for others: one that was opened again and gives the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cnmc.deploy.agreement import TOLERANCE, Agreement, compare
from cnmc.deploy.file_outputs import run_file
from cnmc.deploy.formats import (
    check_place,
    export_onnx,
    export_openvino,
    export_torchscript,
)
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.opening import open_network
from cnmc.deploy.run_cells import CellsOfRun, cells_to_check
from cnmc.deploy.runtime import GraphInfo
from cnmc.errors import CnmcError

INT8 = "openvino_int8"

CALIBRATION_CELLS = 128
"""Cells of the training part whose activations tell the ranges of 8-bit numbers."""

MAX_F1_MOVED = 0.001
"""By how much 8-bit numbers may move F1."""

_CHECKED, _CHECKED_INT8, _AT_ONCE = 8, 512, 3


@dataclass(frozen=True)
class Check:
    """How a file was checked against PyTorch.

    Attributes:
        agreement: How far it is.
        cells: What it was shown, in a few words that begin with their number.
        info: What the file keeps.
        at_once: Largest distance of the logits of several cells at once to those of one after the
            other.
        probability: Largest distance of the file's probability to that of its mean logit.
    """

    agreement: Agreement
    cells: str
    info: GraphInfo
    at_once: float = 0.0
    probability: float = 0.0

    @property
    def is_int8(self) -> bool:
        """Whether it computes with 8-bit numbers, which are other numbers on purpose."""
        return self.info.precision == "int8"

    @property
    def f1_moved(self) -> float:
        """By how much it is better than PyTorch; NaN where no F1 was measured."""
        return self.agreement.f1 - self.agreement.f1_of_eager

    def line(self) -> str:
        """Return the outcome in one line."""
        distance = f"logits at most {self.agreement.to_eager:.1e} from PyTorch's"
        if not self.probability <= TOLERANCE:
            distance += f", the probability {self.probability:.1e} from that of its logits"
        if not self.at_once <= self._at_once_limit:
            distance += f", and {self.at_once:.1e} apart for several cells at once"
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
        if not (self.probability <= TOLERANCE and self.at_once <= self._at_once_limit):
            return False
        if self.is_int8:
            return abs(self.f1_moved) <= MAX_F1_MOVED
        return self.agreement.is_faithful

    @property
    def _at_once_limit(self) -> float:
        # Both may be as far from PyTorch as the one that was held against it.
        return 2 * max(TOLERANCE, self.agreement.to_eager)


@contextmanager
def checked_file(
    graph: CellGraph, kind: str, path: Path, cells: CellsOfRun | None
) -> Iterator[tuple[Path, Check]]:
    """Yield a network as a file that was checked, in a folder that is removed afterwards.

    Args:
        graph: The network.
        kind: ``onnx``, ``openvino``, ``openvino_int8`` or ``torchscript``.
        path: Where it will belong, with the suffix of its kind; nothing is written there.
        cells: Cells of the network's run; None where they are not here.

    Raises:
        CnmcError: The file does not give what the network gives, a package is not installed,
            another file is in its place, or there is no cell of the training part to calibrate
            8-bit numbers with.
    """
    check_place(path)
    is_int8 = kind == INT8
    calibration = None
    if is_int8:
        if cells is None:
            raise CnmcError(
                f"format={kind}: needs cells of the training part, to find the ranges of 8-bit "
                "numbers; give data.root=DIR of the data set that the network was trained on"
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
        few = np.resize(images, (_AT_ONCE, *images.shape[1:]))
        logits, probs = run_file(whole, few)
        expected = graph.info.decision.probabilities(logits.mean(axis=1))
        check = Check(
            agreement,
            shown,
            predictor.info,
            at_once=float(np.abs(logits - predictor.predict(few)).max()),
            probability=float(np.abs(probs - expected).max()),
        )
        if not check.is_passed:
            raise CnmcError(
                f"{path}: not written, as it does not give what the network gives; {check.line()}; "
                "another format can be tried"
            )
        yield whole, check

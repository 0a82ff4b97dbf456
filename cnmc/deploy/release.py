"""Write the file of a network only after it was opened again and gave the network's logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from cnmc.analysis.metrics import decision_metrics
from cnmc.data.parallel import progress
from cnmc.deploy.backends import eager
from cnmc.deploy.exported import GraphInfo, Images, Logits
from cnmc.deploy.formats import INT8, write_network
from cnmc.deploy.graph import CellGraph, TrainedNetwork
from cnmc.deploy.run_cells import CellsOfRun, cells_to_check
from cnmc.deploy.runtime import Predictor, open_exported, run_file
from cnmc.errors import CnmcError
from cnmc.files import replacing, to_disk
from cnmc.model.tta import predict_logits

TOLERANCE = 1e-4
"""Difference of a logit or a probability that changes no decision and no table."""

MAX_F1_CHANGE = 0.001
CALIBRATION_CELLS = 128
_CHECKED, _CHECKED_INT8, _AT_ONCE = 8, 512, 3


@dataclass(frozen=True)
class Check:
    """Comparison of an exported file with PyTorch on the same cells.

    Attributes:
        info: Description in the file.
        cells: Number and origin of the cells, in words.
        logits: Largest difference of a logit.
        limit: Largest difference allowed: :data:`TOLERANCE`, or more where the network amplifies
            the rounding of PyTorch itself; infinite for 8 bits.
        outputs: Largest difference of the file's probability from that of its logits, or of the
            logits of several cells at once from those of one at a time, beyond ``logits``.
        same_decisions: Share of cells with the same decision, 0 to 1.
        f1: Weighted F1 of the file, 0 to 1; NaN where it was not measured.
        f1_of_torch: Weighted F1 of PyTorch.
    """

    info: GraphInfo
    cells: str
    logits: float
    limit: float
    outputs: float
    same_decisions: float = 1.0
    f1: float = math.nan
    f1_of_torch: float = math.nan

    @property
    def is_passed(self) -> bool:
        """Whether the file may be used instead of the network."""
        if self.info.precision == "int8" and not abs(self.f1 - self.f1_of_torch) <= MAX_F1_CHANGE:
            return False
        return self.logits <= self.limit and self.outputs <= 2 * TOLERANCE

    def line(self) -> str:
        """Return the result as one line."""
        line = f"checked on {self.cells}: logits differ from PyTorch by at most {self.logits:.1e}"
        if self.info.precision == "int8":
            line += (
                f", F1 {100 * self.f1:.2f} (PyTorch {100 * self.f1_of_torch:.2f}), "
                f"{100 * self.same_decisions:.1f} % of decisions the same"
            )
        elif self.limit > TOLERANCE:
            line += f" (allowed: {self.limit:.1e}, the network amplifies rounding)"
        if not self.outputs <= 2 * TOLERANCE:
            line += f", its outputs contradict each other by {self.outputs:.1e}"
        return line


@contextmanager
def checked_file(
    trained: TrainedNetwork, kind: str, path: Path, cells: CellsOfRun | None
) -> Iterator[tuple[Path, Check]]:
    """Yield a checked file in a temporary folder.

    Args:
        trained: The network.
        kind: ``onnx``, ``openvino`` or ``openvino_int8``.
        path: Where the file will be put; only its name is used here.
        cells: Cells of the network's run; None where they are not available.

    Raises:
        CnmcError: The file does not give what the network gives, a package is missing, the place
            is taken, or there are no training cells for 8 bits.
    """
    check_place(path)
    graph, calibration = trained.graph, None
    if kind == INT8:
        if cells is None:
            raise CnmcError(
                f"format={kind}: needs training cells to find the ranges of 8-bit numbers; give "
                "data.root=DIR of the data set that the network was trained on"
            )
        calibration, _ = cells.read("train", CALIBRATION_CELLS, graph.info)
    number = _CHECKED_INT8 if kind == INT8 else _CHECKED
    images, labels, origin = cells_to_check(cells, number, graph.info)
    with TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        write_network(graph, kind, whole, calibration)
        check = check_file(whole, graph, images, labels, origin)
        if not check.is_passed:
            raise CnmcError(
                f"{path}: not written, because it does not give what the network gives "
                f"({check.line()}); try another format"
            )
        yield whole, check


def check_file(
    path: Path, graph: CellGraph, images: Images, labels: NDArray[np.int64], origin: str
) -> Check:
    """Compare an exported file with its network on cells, whose labels are 1 (ALL) or 0 (HEM)."""
    predictor, plain = open_exported(path), eager(graph)
    is_int8 = predictor.info.precision == "int8"
    logits, expected = _both(predictor, plain, images, show_progress=is_int8)
    distance = float(np.abs(logits - expected).max())
    limit = math.inf if is_int8 else TOLERANCE
    if distance > limit:
        # 64 bits take minutes. They tell whether PyTorch itself is as far from the exact logits.
        exact = exact_logits(graph, images)
        rounding = float(np.abs(expected - exact).max())
        if np.abs(logits - exact).max() <= 2 * rounding:
            limit = 3 * rounding
    few = np.resize(images, (_AT_ONCE, *images.shape[1:]))
    at_once, probabilities = run_file(path, few)
    same = predictor.info.decision.probabilities(at_once.mean(axis=1))
    apart = float(np.abs(at_once - predictor.predict(few)).max()) - distance
    means = logits.mean(axis=1), expected.mean(axis=1)
    f1s = [float(decision_metrics(labels, mean)["f1"]) for mean in means]
    return Check(
        info=predictor.info,
        cells=origin,
        logits=distance,
        limit=limit,
        outputs=max(float(np.abs(probabilities - same).max()), apart),
        same_decisions=float(((means[0] > 0) == (means[1] > 0)).mean()),
        f1=f1s[0],
        f1_of_torch=f1s[1],
    )


def _both(
    one: Predictor, other: Predictor, images: Images, *, show_progress: bool
) -> tuple[Logits, Logits]:
    parts = []
    with progress("Checking", len(images), show_progress=show_progress) as advance:
        for start in range(0, len(images), _CHECKED):
            part = images[start : start + _CHECKED]
            parts.append((one.predict(part), other.predict(part)))
            advance(len(part))
    logits, expected = (np.concatenate(side) for side in zip(*parts, strict=True))
    return logits, expected


def exact_logits(graph: CellGraph, images: Images) -> Logits:
    """Return the logits of 64-bit arithmetic, rounded to 32 bits at the end."""
    network = copy.deepcopy(graph.network).double()
    views = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits: Logits = predict_logits(
            network, views, graph.info.num_rotations, lambda views: graph.scaled(views).double()
        ).numpy()
    return logits


def check_place(path: Path) -> None:
    """Refuse a place where something else would be overwritten.

    Raises:
        CnmcError: It is a folder, or a ``.bin`` of something else lies beside an ``.xml``.
    """
    for part in _parts(path):
        if part.is_dir():
            raise CnmcError(f"output={path}: {part} is a folder; give the name of a file")
        if part != path and part.exists() and not path.exists():
            raise CnmcError(
                f"output={path}: {part.name} beside it does not belong to a model and would be "
                "overwritten; remove it or give another name"
            )


def put_in_place(whole: Path, path: Path, beside: Mapping[Path, Path]) -> None:
    """Copy a file, and the files that belong to it, to their places: all of them or none.

    Args:
        whole: The finished file; beside an ``.xml`` lies its ``.bin``.
        path: Its place, with the same suffix.
        beside: Other files by their places.
    """
    parts = {part: whole.with_suffix(part.suffix) for part in _parts(path)}
    with ExitStack() as stack:
        for place, source in (parts | dict(beside)).items():
            temporary = stack.enter_context(replacing(place, lasting=False))
            copyfile(source, temporary)
            to_disk(temporary)
        if len(parts) > 1:
            # A model without its .xml cannot be opened, so no process sees halves of two models.
            path.unlink(missing_ok=True)


def _parts(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]

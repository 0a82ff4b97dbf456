"""The configuration of the commands that use finished runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnmc.config.fields import choice, number, path, require


@dataclass
class CellsConfig:
    """Where the cells of existing runs are."""

    root: str | None = path(None)
    """Folder of the data set that the runs were trained on; null uses the folder of the
    training."""


@dataclass
class ReportConfig:
    """All keys of ``python -m cnmc.report``."""

    runs: str = path("runs")
    """Folder of the run folders, ``run.root`` of their training."""
    output: str = path("report")
    """Folder that the report is written to."""
    experiments: list[str] = field(default_factory=list)
    """Experiments to report; empty takes all."""
    reference: str | None = None
    """The group that others are compared with, and whose subjects and errors are shown, by its name
    in the tables; null takes ``proposal``, or else the first."""
    data: CellsConfig = field(default_factory=CellsConfig)


@dataclass
class BestConfig:
    """All keys of ``python -m cnmc.best``."""

    experiment: str | None = None
    """The experiment; null compares the runs of all."""
    source: str = choice("runs", "wandb", default="runs")
    """Where to look: ``runs`` (run folders) or ``wandb``."""
    runs: str = path("runs")
    """``source=runs``: folder of the run folders, ``run.root`` of their training."""
    project: str = "cnmc"
    """``source=wandb``: the project, ``logger.project`` of their training."""
    entity: str | None = None
    """``source=wandb``: user or team of the project; null takes the account's default."""
    protocol: str | None = choice("paper", "honest", default=None)
    """Compare only runs of this protocol."""
    manifest: str | None = path(None)
    """Compare only runs on the data set whose fingerprint begins with these digits."""
    split: str | None = path(None)
    """Compare only runs of the split whose fingerprint begins with these digits."""
    download: bool = False
    """Write the best checkpoint below ``output``."""
    output: str = path("best")
    """Folder for the checkpoint, which becomes ``<output>/<experiment>-<name>/best.ckpt``."""
    promote: bool = False
    """Give the best checkpoint the alias ``best-of-study`` at W&B, and remove it from the others
    that were compared."""

    def check(self) -> None:
        """Check the digits of the fingerprints."""
        for key in ("manifest", "split"):
            value = getattr(self, key)
            digits = value is None or re.fullmatch("[0-9a-f]+", value) is not None
            require(digits, key, value, "the first digits of a fingerprint, 0 to 9 and a to f")


@dataclass
class PredictConfig:
    """All keys of ``python -m cnmc.predict``."""

    checkpoint: Any = path(None)
    """A checkpoint, a run folder or an exported network (.onnx, .xml of OpenVINO). A list of
    them is an ensemble."""
    experiment: str | None = None
    """Instead of ``checkpoint``: the ``top`` best runs by F1 of this experiment."""
    root: str = path("runs")
    """``experiment=``: folder of the run folders, ``run.root`` of their training."""
    top: int = number(1, above=0)
    """``experiment=``: number of networks."""
    input: Any = path()
    """A folder of cells, an image, or a list of either."""
    output: str = path("screening")
    """Folder for the results; the same command continues there after an interruption."""
    threshold: str = "checkpoint"
    """Probability from which a cell is called ALL: ``checkpoint`` (chosen with the network),
    ``paper`` (a mean logit of 0), a number, ``sensitivity:0.95`` or ``specificity:0.9``."""
    format: str = choice("report", "challenge", default="report")
    """``report``, or ``challenge`` for the challenge's submission in addition."""
    cells: int = number(500, at_least=0)
    """Most cells that the page shows; the tables have all."""
    gradcam: int = number(16, at_least=0)
    """Cells that the page shows with Grad-CAM, which needs a checkpoint; 0 for none."""
    num_threads: int | None = number(None, above=0)
    """Cores to use; null takes all."""
    overwrite: bool = False
    """Start over in a folder that holds a screening by another network."""

    def __post_init__(self) -> None:
        """Make lists of single paths."""
        self.input = self.input if isinstance(self.input, list) else [str(self.input)]
        if not isinstance(self.checkpoint, list):
            self.checkpoint = [] if self.checkpoint is None else [str(self.checkpoint)]

    def check(self) -> None:
        """Check that there are cells, and networks from one source."""
        require(all(self.input) and bool(self.input), "input", self.input, "a path, or [A,B]")
        require(
            all(self.checkpoint) and bool(self.checkpoint) != (self.experiment is not None),
            "checkpoint",
            ", ".join(self.checkpoint) or "null",
            "a checkpoint, a run folder or an exported network, or else experiment=NAME",
        )


EXPORT_SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "openvino_int8": ".xml",
}
"""Suffix of the file of each format."""


@dataclass
class ExportConfig:
    """All keys of ``python -m cnmc.export``."""

    checkpoint: str = path()
    """A checkpoint, or a run folder, whose best checkpoint is taken."""
    format: str = choice(*EXPORT_SUFFIXES, default="onnx")
    """``onnx``, ``openvino``, or ``openvino_int8`` (8-bit numbers: smaller, faster, less exact)."""
    output: str = path()
    """The file to write: ``.onnx``, or ``.xml`` of OpenVINO (with a ``.bin`` beside it)."""
    data: CellsConfig = field(default_factory=CellsConfig)

    def check(self) -> None:
        """Check the suffix of the file."""
        suffix = EXPORT_SUFFIXES[self.format]
        expected = f"a file name that ends in {suffix} (format={self.format})"
        require(Path(self.output).suffix == suffix, "output", self.output, expected)

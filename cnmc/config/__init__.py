"""The typed schema of every command: the type, the range and the meaning of each key.

The YAML files under ``conf/`` hold the values. Hydra refuses a misspelt key or a wrong type;
:func:`to_config` checks the ranges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnmc.config.fields import Rules, check, choice, number, path, path_keys
from cnmc.config.groups import OPTIMIZERS, Config, DataConfig, SplitConfig
from cnmc.devices import register_resolvers
from cnmc.errors import CnmcError


@dataclass
class BenchmarkConfig(Config):
    """All keys of ``python -m cnmc.benchmark``: its own and those of a run."""

    stage: str = choice("all", "data", "train", "eval", "predict", "scale", default="all")
    output: str = path("benchmark")  # folder for the table and for the generated cells
    repeats: int = number(5, above=0)  # pairs of measurements; the medians are reported


@dataclass
class PrepareConfig:
    """All keys of ``python -m cnmc.prepare``."""

    data: DataConfig = MISSING
    split: SplitConfig = MISSING


@dataclass
class CellsConfig:
    """Where the cells of existing runs are."""

    root: str | None = path(None)  # folder of the data set; null uses that of the training


@dataclass
class ReportConfig:
    """All keys of ``python -m cnmc.report``."""

    runs: str = path("runs")  # run.root of the training
    output: str = path("report")  # folder that the report is written to
    experiments: list[str] = field(default_factory=list)  # to report; empty takes all
    # Group to compare others with, by its name in the tables; null takes proposal, or the first.
    reference: str | None = None
    data: CellsConfig = field(default_factory=CellsConfig)


@dataclass
class BestConfig:
    """All keys of ``python -m cnmc.best``."""

    experiment: str | None = None  # null compares the runs of all
    source: str = choice("runs", "wandb", default="runs")  # run folders, or W&B
    runs: str = path("runs")  # source=runs: run.root of the training
    project: str = "cnmc"  # source=wandb: logger.project of the training
    entity: str | None = None  # source=wandb: user or team; null takes the account's default
    protocol: str | None = choice("paper", "honest", default=None)  # compare only these runs
    manifest: str | None = path(None)  # compare only runs whose data have this fingerprint
    split: str | None = path(None)  # compare only runs whose split has this fingerprint
    download: bool = False  # write the best checkpoint to <output>/<experiment>-<name>/best.ckpt
    output: str = path("best")
    promote: bool = False  # move the alias best-of-study at W&B to the best checkpoint

    def _rules(self) -> Rules:
        for key in ("manifest", "split"):
            fits = set(getattr(self, key) or "") <= {*"0123456789abcdef"}
            yield key, fits, "the first digits of a fingerprint, 0 to 9 and a to f"


@dataclass
class PredictConfig:
    """All keys of ``python -m cnmc.predict``."""

    # Checkpoint, run folder or exported network (.onnx, .xml of OpenVINO), or an ensemble: [A,B].
    checkpoint: Any = path(None)
    experiment: str | None = None  # instead of checkpoint: the top best runs of this experiment
    root: str = path("runs")  # experiment=: run.root of the training
    top: int = number(1, above=0)  # experiment=: number of networks
    input: Any = path()  # a folder of cells, an image, or a list of either
    output: str = path("screening")  # the same command continues there after an interruption
    # Probability from which a cell is called ALL: checkpoint (chosen with the network), paper (a
    # mean logit of 0), a number, sensitivity:0.95 or specificity:0.9.
    threshold: str = "checkpoint"
    format: str = choice("report", "challenge", default="report")  # challenge adds its submission
    cells: int = number(500, at_least=0)  # most cells that the page shows; the tables have all
    gradcam: int = number(16, at_least=0)  # cells that the page shows with Grad-CAM (a checkpoint)
    num_threads: int | None = number(None, above=0)  # cores to use; null takes all
    overwrite: bool = False  # start over in a folder that holds a screening by another network

    def __post_init__(self) -> None:
        """Make lists of single paths."""
        self.input = self.input if isinstance(self.input, list) else [str(self.input)]
        if not isinstance(self.checkpoint, list):
            self.checkpoint = [] if self.checkpoint is None else [str(self.checkpoint)]

    def _rules(self) -> Rules:
        yield "input", all(self.input) and self.input, "a path, or [A,B]"
        given = all(self.checkpoint) and bool(self.checkpoint) != (self.experiment is not None)
        expected = "a checkpoint, a run folder or an exported network, or else experiment=NAME"
        yield "checkpoint", given, expected


EXPORT_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "openvino_int8": ".xml"}


@dataclass
class ExportConfig:
    """All keys of ``python -m cnmc.export``."""

    checkpoint: str = path()  # a checkpoint, or a run folder, whose best checkpoint is taken
    format: str = choice(*EXPORT_SUFFIXES, default="onnx")  # openvino_int8 is fast and less exact
    output: str = path()  # file to write: .onnx, or .xml of OpenVINO (with a .bin beside it)
    data: CellsConfig = field(default_factory=CellsConfig)

    def _rules(self) -> Rules:
        suffix = EXPORT_SUFFIXES[self.format]
        fits = Path(self.output).suffix == suffix
        yield "output", fits, f"a file name that ends in {suffix} (format={self.format})"


_INSTALLED = Path(__file__).parents[1] / "conf"

CONFIG_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "conf"
"""The YAML files, inside an installed wheel or of the checkout."""

_COMMANDS = (BenchmarkConfig, PrepareConfig, ReportConfig, BestConfig, PredictConfig, ExportConfig)

SCHEMAS = {"config": Config} | {c.__name__.removesuffix("Config").lower(): c for c in _COMMANDS}
"""The schema of each top-level file of ``conf/``."""

STANDALONE = ("report", "best", "predict", "export")
"""Commands whose keys may have the names of config groups of training (``data``, ``split``)."""


def register() -> None:
    """Make the schema and the resolvers known to Hydra; every command calls this first."""
    register_resolvers()
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for name in STANDALONE:
        store.store(name=name, node=OmegaConf.load(CONFIG_DIR / f"{name}.yaml"))
    for name, optimizer in OPTIMIZERS.items():
        store.store(group="optimizer", name=name, node=optimizer)


def to_config(node: DictConfig) -> Any:
    """Turn a composed node into its dataclasses; raise CnmcError for a key or value at fault."""
    if missing := sorted(OmegaConf.missing_keys(node)):
        raise CnmcError(f"{missing[0]}: add {' '.join(f'{key}=VALUE' for key in missing)}")
    config = OmegaConf.to_object(node)
    check(config)
    return config


def is_mistake(error: BaseException) -> bool:
    """Return whether an error is a user's mistake: a :class:`CnmcError`, or a bad override."""
    # OmegaConf asserts that the group of an override is not null.
    null = isinstance(error, AssertionError) and "Unexpected type for root" in str(error)
    return null or isinstance(error, (CnmcError, HydraException, OmegaConfBaseException))

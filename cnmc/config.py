"""Typed schema of every configuration key.

The YAML files under ``conf/`` hold the values; these dataclasses hold the types, the meaning of
each key and the checks of its range. Hydra refuses a misspelt key or a wrong type while it
composes; :func:`to_config` turns the composed node into these plain dataclasses, and their
``__post_init__`` refuses a value out of range. Nothing below the entry points sees a config node.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from cnmc.devices import register_resolvers
from cnmc.errors import CnmcError

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "head")
"""The parts of a network that have a learning rate of their own, from the input to the output."""


def _config_dir() -> Path:
    """Return the folder of the YAML files: inside an installed wheel, or of the checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "conf"


CONFIG_DIR = _config_dir()

PATH = {"path": True}
"""Metadata of a field that holds a path, or other text that Hydra must not interpret."""
PATHS = {"path": True, "swept": True}
"""The same, of a field that a study can sweep."""

STANDALONE = ("report", "best", "export", "predict")
"""Commands whose keys may have the names of config groups of training (``data``, ``split``)."""


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise CnmcError(f"{key}={value}: expected {expected}")


def _positive(key: str, value: float) -> None:
    _require(value > 0, key, value, "a number above 0")


def _probability(key: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, key, value, "a number from 0 to 1")


def _one_of(key: str, value: object, choices: Sequence[object]) -> None:
    _require(value in choices, key, value, "one of " + ", ".join(map(str, choices)))


@dataclass
class SyntheticConfig:
    """Generated cells in the layout of the release (see ``cnmc.data.sources.synthetic``).

    Numbers of subjects and of cells are given by part and class; the defaults are the paper's
    Table 1, and 2,586 cells of 9 + 8 subjects for the final part, half of whose classes is a guess.
    """

    seed: int = 0
    """Seed of the whole data set: the same seed gives the same files."""
    image_size: int = 450
    """Side of an image in pixels; cells scale with it (450 is the size of the release)."""
    train_subjects_all: int = 47
    train_subjects_hem: int = 26
    train_cells_all: int = 7272
    train_cells_hem: int = 3389
    prelim_subjects_all: int = 13
    prelim_subjects_hem: int = 15
    prelim_cells_all: int = 1219
    prelim_cells_hem: int = 648
    final_subjects_all: int = 9
    final_subjects_hem: int = 8
    final_cells_all: int = 1761
    final_cells_hem: int = 825

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.seed >= 0, "data.synthetic.seed", self.seed, "0 or more")
        _require(self.image_size >= 48, "data.synthetic.image_size", self.image_size, "at least 48")
        for item in fields(self):
            if "subjects" in item.name or "cells" in item.name:
                value = getattr(self, item.name)
                _require(value >= 0, f"data.synthetic.{item.name}", value, "0 or more")
        for part in ("train", "prelim", "final"):
            for name in ("all", "hem"):
                subjects = getattr(self, f"{part}_subjects_{name}")
                cells = getattr(self, f"{part}_cells_{name}")
                _require(
                    cells >= subjects and (subjects > 0 or cells == 0),
                    f"data.synthetic.{part}_cells_{name}",
                    cells,
                    f"at least one cell for each of the {subjects} subjects, none without subjects",
                )


@dataclass
class DataConfig:
    """Where the cells are and how they are fed."""

    root: str = field(default=MISSING, metadata=PATHS)
    """Folder of the data set, in any of the three layouts of the release."""
    work_dir: str = field(default=MISSING, metadata=PATHS)
    """Folder for what is made from the data: manifest, splits, image cache."""
    crop: int = 300
    """Side of the central crop in pixels (section 2 of the paper)."""
    resize: int | None = None
    """Side in pixels to which the crop is resized by area averaging; null leaves it."""
    skip_unreadable: bool = False
    """Leave unreadable images and those smaller than the crop out instead of refusing to train."""
    batch_size: int = 16
    """Cells in a training batch (section 4.1)."""
    eval_batch_size: int = 32
    """Cells in an evaluation batch; each costs as many forward passes as there are rotations."""
    num_workers: int = 2
    """Processes that augment training images; 0 augments in the training process. No effect on
    results."""
    synthetic: SyntheticConfig | None = None
    """Composition of generated data; null for data that is found."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _positive("data.crop", self.crop)
        if self.resize is not None:
            _positive("data.resize", self.resize)
        _positive("data.batch_size", self.batch_size)
        _positive("data.eval_batch_size", self.eval_batch_size)
        _require(self.num_workers >= 0, "data.num_workers", self.num_workers, "0 or more")
        if self.synthetic is not None:
            _require(
                self.crop <= self.synthetic.image_size,
                "data.crop",
                self.crop,
                f"at most data.synthetic.image_size={self.synthetic.image_size}",
            )


SPLIT_KINDS = ("official", "nested", "subject_kfold", "subject_holdout")


@dataclass
class SplitConfig:
    """Which cells train, which choose the epoch, which are reported (see ``cnmc.data.splits``)."""

    kind: str = MISSING
    """One of ``official``, ``nested``, ``subject_kfold``, ``subject_holdout``."""
    seed: int = 0
    """Seed of the assignment of subjects; independent of the seed of a run."""
    val_fraction: float = 0.2
    """``nested`` and ``subject_holdout``: share of the training cells, in each class, whose
    subjects are set aside."""
    num_folds: int = 5
    """``subject_kfold``: number of folds."""
    fold: int = 0
    """``subject_kfold``: the fold that is set aside, from 0."""
    subjects: list[str] = field(default_factory=list)
    """``subject_holdout``: the subjects that are set aside; empty draws ``val_fraction``."""
    path: str | None = field(default=None, metadata=PATHS)
    """A saved split to use as it is instead of making one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("split.kind", self.kind, SPLIT_KINDS)
        _require(self.seed >= 0, "split.seed", self.seed, "0 or more")
        _require(
            0.0 < self.val_fraction < 1.0, "split.val_fraction", self.val_fraction, "0 < value < 1"
        )
        _require(self.num_folds >= 2, "split.num_folds", self.num_folds, "at least 2")
        _require(
            0 <= self.fold < self.num_folds,
            "split.fold",
            self.fold,
            f"0 to split.num_folds - 1 = {self.num_folds - 1}",
        )
        for key, value, kind in (
            ("split.subjects", self.subjects, "subject_holdout"),
            ("split.fold", self.fold, "subject_kfold"),
        ):
            if value and self.kind != kind:
                raise CnmcError(f"{key}={value}: goes with split={kind}, not with {self.kind}")


@dataclass
class AugmentConfig:
    """Random changes of a training image (section 2 of the paper)."""

    hflip: float = 0.5
    """Probability of a horizontal flip."""
    vflip: float = 0.5
    """Probability of a vertical flip."""
    rotate: float = 360.0
    """Angles are uniform over [0, rotate) degrees."""
    translate: float = 0.2
    """Shifts are uniform over plus and minus this share of each side."""
    scale: float = 0.0
    """Scales are uniform over 1 - scale to 1 + scale. The paper uses none."""
    color: float = 0.0
    """Strength of brightness, contrast, saturation and hue jitter. The paper uses none."""
    device: bool = False
    """Move the pixels on the device that trains, a batch at a time, and leave the host nothing but
    the draws. They are the same draws, and the same pixels up to ties of the rounding. Without
    color."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _probability("augment.hflip", self.hflip)
        _probability("augment.vflip", self.vflip)
        _require(0.0 <= self.rotate <= 360.0, "augment.rotate", self.rotate, "0 to 360 degrees")
        _probability("augment.translate", self.translate)
        _require(0.0 <= self.scale < 1.0, "augment.scale", self.scale, "0 <= value < 1")
        _require(0.0 <= self.color <= 0.5, "augment.color", self.color, "0 to 0.5")
        if self.device and self.color > 0:
            raise CnmcError(
                f"augment.device=true: colours change on the host alone, and augment.color="
                f"{self.color}; give augment.color=0 or augment.device=false"
            )


@dataclass
class StagesConfig:
    """Name patterns of the parameters of each stage; shell wildcards, first match wins."""

    stage1: list[str] = MISSING
    stage2: list[str] = MISSING
    stage3: list[str] = MISSING
    stage4: list[str] = MISSING
    stage5: list[str] = MISSING
    head: list[str] = MISSING


@dataclass
class ModelConfig:
    """A timm network with one output logit."""

    name: str = MISSING
    """timm's name of the network."""
    pretrained: bool = True
    """Start from ImageNet weights: from ``weights`` where given, else from timm's hub."""
    weights: str | None = field(default=None, metadata=PATHS)
    """Local file of weights (``.safetensors``, or a PyTorch state dict)."""
    drop_rate: float = 0.0
    """Dropout before the head. The paper has none (timm's default for its network is 0.2)."""
    normalize: bool = False
    """Normalise by ``mean`` and ``std`` after scaling to [0, 1]. The paper does not."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    stages: StagesConfig = field(default_factory=StagesConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.weights is not None and not self.pretrained:
            raise CnmcError(
                f"model.weights={self.weights} goes with model.pretrained=true, which is false"
            )
        _require(0.0 <= self.drop_rate < 1.0, "model.drop_rate", self.drop_rate, "0 <= value < 1")
        _require(len(self.mean) == 3, "model.mean", self.mean, "three numbers (RGB)")
        _require(
            len(self.std) == 3 and min(self.std) > 0, "model.std", self.std, "three numbers above 0"
        )


@dataclass
class LayerwiseRates:
    """One learning rate by stage (section 4.1), multiplied by the base of the schedule."""

    stage1: float = 1e-6
    stage2: float = 1e-6
    stage3: float = 1e-4
    stage4: float = 1e-4
    stage5: float = 1e-4
    head: float = 1e-2


@dataclass
class OptimizerConfig:
    """Adam with a base rate that starts at 1 and falls in steps (section 4.1)."""

    decay_every: int = 2
    """Epochs between two steps of the base."""
    decay_factor: float = 0.1
    """Factor of one step."""
    weight_decay: float = 0.0
    fused: bool = False
    """One kernel for a whole step of Adam: the same arithmetic, rounded otherwise, in less time."""

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate by stage while the base is 1."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Check ranges."""
        _positive("optimizer.decay_every", self.decay_every)
        _require(
            0.0 < self.decay_factor <= 1.0,
            "optimizer.decay_factor",
            self.decay_factor,
            "0 < value <= 1",
        )
        _require(self.weight_decay >= 0.0, "optimizer.weight_decay", self.weight_decay, "0 or more")


@dataclass
class LayerwiseOptimizerConfig(OptimizerConfig):
    """Learning rates by stage: PROPOSAL."""

    lr: LayerwiseRates = field(default_factory=LayerwiseRates)

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate by stage while the base is 1."""
        return {stage: getattr(self.lr, stage) for stage in STAGES}

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        for stage, rate in self.rates.items():
            _require(
                rate >= 0.0 and math.isfinite(rate), f"optimizer.lr.{stage}", rate, "0 or more"
            )


@dataclass
class FlatOptimizerConfig(OptimizerConfig):
    """One learning rate for all layers: NOSPECLR (section 4.4)."""

    lr: float = 1e-4

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate by stage while the base is 1."""
        return dict.fromkeys(STAGES, self.lr)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        _require(self.lr >= 0.0 and math.isfinite(self.lr), "optimizer.lr", self.lr, "0 or more")


@dataclass
class TTAConfig:
    """Views of a cell that are averaged when it is evaluated."""

    num_rotations: int = 8
    """1, 2, 4 or 8 rotations, equally spaced over the circle; their logits are averaged."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("tta.num_rotations", self.num_rotations, (1, 2, 4, 8))


ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "auto")


@dataclass
class TrainerConfig:
    """How long and on what to train. One run trains on one device."""

    max_epochs: int = 6
    accelerator: str = "auto"
    precision: str = "32-true"
    """``auto`` is bf16-mixed on a GPU that computes in bfloat16, and 32-true elsewhere."""
    channels_last: bool = False
    """Keep the channels of a pixel beside each other in memory, as fast convolutions want them."""
    compile: bool = False
    """Compile the network, for whole batches of one size. Wants a C++ compiler on a CPU."""
    deterministic: bool = False
    """Ask PyTorch for deterministic kernels. On a CPU a run repeats itself without it."""
    num_threads: int | None = None
    """Threads of PyTorch on the CPU; null leaves its choice. Sums round differently with another
    number, so keep it when results must repeat to the last bit."""
    limit_train_batches: int | None = None
    """Stop an epoch after so many batches, for a quick trial; null takes all."""
    limit_val_batches: int | None = None
    """Evaluate so many batches only, for a quick trial; null takes all."""
    progress_bar: bool = True

    def __post_init__(self) -> None:
        """Check ranges."""
        _positive("trainer.max_epochs", self.max_epochs)
        _one_of("trainer.accelerator", self.accelerator, ACCELERATORS)
        _one_of("trainer.precision", self.precision, PRECISIONS)
        for name in ("num_threads", "limit_train_batches", "limit_val_batches"):
            value = getattr(self, name)
            if value is not None:
                _positive(f"trainer.{name}", value)


LOGGER_KINDS = ("wandb", "tensorboard", "csv", "none")


@dataclass
class LoggerConfig:
    """Where metrics go besides the run folder, which always has them."""

    kind: str = MISSING
    """``wandb``, ``tensorboard`` (scalars), ``csv`` (one line a step) or ``none``."""
    project: str = "cnmc"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null takes the account's default."""
    mode: str | None = None
    """``online``, ``offline`` or ``disabled``; null is online when logged in, else offline."""
    log_model: bool = True
    """W&B: keep the best checkpoint of a finished run as an artifact."""
    log_last: bool = False
    """W&B: keep the last checkpoint too."""
    num_images: int = 16
    """W&B: so many of the cells that are called wrongly are shown; 0 sends no image anywhere."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("logger.kind", self.kind, LOGGER_KINDS)
        if self.kind == "tensorboard" and not find_spec("tensorboard"):
            raise CnmcError(
                "logger=tensorboard needs the package tensorboard: pip install 'cnmc[tensorboard]'"
            )
        _require(self.num_images >= 0, "logger.num_images", self.num_images, "0 or more")
        _require(
            self.log_model or not self.log_last,
            "logger.log_last",
            self.log_last,
            "false where logger.log_model=false, which keeps no checkpoint at W&B",
        )
        _one_of("logger.mode", self.mode, (None, "online", "offline", "disabled"))


@dataclass
class RunConfig:
    """The run folder, ``<root>/<experiment>/<name>``."""

    root: str = field(default="runs", metadata=PATH)
    name: str | None = field(default=None, metadata=PATH)
    """Name of the run folder; null makes it of the seed and the other swept overrides."""
    overwrite: bool = False
    """Start over where a run folder exists already."""
    swept: list[str] = field(default_factory=list)
    """Keys that the command line sweeps, or that W&B's agent chose. Filled in by the program, never
    by hand."""


@dataclass
class StudyConfig:
    """How the runs of one command are worked on; no effect on what a run computes."""

    fail_fast: bool = False
    """Begin no further run after one has failed; runs at work beside it go on."""
    max_retries: int = 0
    """How often a run that raised an error is tried again, from its last whole epoch."""
    id: str | None = None
    """Names this command's board. Filled in by the program, never by hand."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.max_retries >= 0, "study.max_retries", self.max_retries, "0 or more")


@dataclass
class Config:
    """Everything that ``python -m cnmc.train`` can be told."""

    experiment: str = "${hydra:runtime.choices.experiment}"
    """Name of the experiment file; set by choosing one, ``experiment=norot``."""
    seed: int = 0
    """Seed of the run: initial head, order of the cells, augmentation."""
    data: DataConfig = MISSING
    split: SplitConfig = MISSING
    augment: AugmentConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    tta: TTAConfig = MISSING
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = MISSING
    run: RunConfig = field(default_factory=RunConfig)
    study: StudyConfig = field(default_factory=StudyConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        # It is one folder's name, and starting over removes that folder.
        if self.run.name is not None:
            plain = self.run.name not in {"", ".", ".."} and "/" not in self.run.name
            _require(plain, "run.name", self.run.name, "the name of one folder, without /")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "a whole number from 0 to 2**32 - 1")


BENCHMARK_STAGES = ("data", "train", "eval", "predict", "scale")


@dataclass
class BenchmarkConfig(Config):
    """Everything that ``python -m cnmc.benchmark`` can be told, beside what a run can be."""

    stage: str = "all"
    """``data``, ``train``, ``eval``, ``predict``, ``scale``, or ``all`` of them."""
    output: str = field(default="benchmark", metadata=PATH)
    """Folder for the table, and for the cells that are made to measure with."""
    repeats: int = 5
    """Pairs of measurements, of which the medians are taken."""
    runs_at_once: int | None = None
    """Runs that train at once with ``trainer=fast``, as ``hydra.launcher.n_jobs`` of them would;
    null measures four where there is a GPU, and none elsewhere."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        _one_of("stage", self.stage, ("all", *BENCHMARK_STAGES))
        _positive("repeats", self.repeats)
        if self.runs_at_once is not None:
            _positive("runs_at_once", self.runs_at_once)


@dataclass
class CellsConfig:
    """Where the cells of existing runs are."""

    root: str | None = field(default=None, metadata=PATH)
    """Folder of the data set that the runs were trained on; null uses the folder of the
    training."""


@dataclass
class ReportConfig:
    """Everything that ``python -m cnmc.report`` can be told."""

    runs: str = field(default="runs", metadata=PATH)
    """Folder of the run folders, ``run.root`` of their training."""
    output: str = field(default="report", metadata=PATH)
    """Folder that the report is written to."""
    experiments: list[str] = field(default_factory=list)
    """Experiments to report; empty takes all."""
    reference: str | None = None
    """The group that others are compared with and that persons and errors are shown of, by the name
    it has in the tables; null takes ``proposal``, or else the first."""
    data: CellsConfig = field(default_factory=CellsConfig)


SOURCES = ("runs", "wandb")
PROTOCOLS = ("paper", "honest")


@dataclass
class BestConfig:
    """Everything that ``python -m cnmc.best`` can be told."""

    experiment: str | None = None
    """The experiment whose best run is wanted; null takes all."""
    source: str = "runs"
    """Where to look: ``runs`` (run folders) or ``wandb``."""
    runs: str = field(default="runs", metadata=PATH)
    """``source=runs``: folder of the run folders, ``run.root`` of their training."""
    project: str = "cnmc"
    """``source=wandb``: the project, ``logger.project`` of their training."""
    entity: str | None = None
    """``source=wandb``: user or team of the project; null takes the account's default."""
    protocol: str | None = None
    """Compare runs of this protocol alone, ``paper`` or ``honest``."""
    manifest: str | None = field(default=None, metadata=PATH)
    """Compare only runs on the data set whose fingerprint begins with these digits."""
    split: str | None = field(default=None, metadata=PATH)
    """Compare runs of this split alone: the first digits of its fingerprint."""
    download: bool = False
    """Put the best checkpoint below ``output``, wherever it comes from."""
    output: str = field(default="best", metadata=PATH)
    """Folder for the checkpoint, which becomes ``<output>/<experiment>-<name>/best.ckpt``."""
    promote: bool = False
    """Give the best checkpoint the alias ``best-of-study`` at W&B, and take it from those that it
    was compared with."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("source", self.source, SOURCES)
        _one_of("protocol", self.protocol, (None, *PROTOCOLS))
        for key in ("manifest", "split"):
            value = getattr(self, key)
            _require(
                value is None or re.fullmatch("[0-9a-f]+", value) is not None,
                key,
                value,
                "the first digits of a fingerprint, 0 to 9 and a to f",
            )


OUTPUT_FORMATS = ("report", "challenge")


@dataclass
class PredictConfig:
    """Everything that ``python -m cnmc.predict`` can be told."""

    checkpoint: Any = field(default=None, metadata=PATH)
    """A checkpoint, a run folder or an exported network (.onnx, .xml of OpenVINO), or a list
    of them, which are an ensemble."""
    experiment: str | None = None
    """Instead of ``checkpoint``: the ``top`` best runs by F1 of this experiment."""
    root: str = field(default="runs", metadata=PATH)
    """``experiment=``: folder of the run folders, ``run.root`` of their training."""
    top: int = 1
    """``experiment=``: number of networks."""
    input: Any = field(default=MISSING, metadata=PATH)
    """A folder of cells, an image, or a list of either."""
    output: str = field(default="screening", metadata=PATH)
    """Folder for what is found; the same command goes on there with what was begun."""
    threshold: str = "checkpoint"
    """Probability from which a cell is called ALL: ``checkpoint`` (chosen with the network),
    ``paper`` (a mean logit of 0), a number, ``sensitivity:0.95`` or ``specificity:0.9``."""
    format: str = "report"
    """``report``, or ``challenge`` for the challenge's submission beside it."""
    cells: int = 500
    """Cells that the page shows at most; the tables have all."""
    gradcam: int = 16
    """Cells that the page shows with Grad-CAM, which needs a checkpoint; 0 for none."""
    num_threads: int | None = None
    """Cores to use; null takes all."""
    overwrite: bool = False
    """Start over in a folder that holds a screening by another network."""

    def __post_init__(self) -> None:
        """Check ranges."""
        self.input = _paths("input", self.input)
        self.checkpoint = [] if self.checkpoint is None else _paths("checkpoint", self.checkpoint)
        _require(
            bool(self.checkpoint) != (self.experiment is not None),
            "checkpoint",
            ", ".join(self.checkpoint) or "null",
            "a checkpoint, a run folder or an exported network, or else experiment=NAME",
        )
        _one_of("format", self.format, OUTPUT_FORMATS)
        _positive("top", self.top)
        _require(self.cells >= 0, "cells", self.cells, "0 or more")
        _require(self.gradcam >= 0, "gradcam", self.gradcam, "0 or more")
        if self.num_threads is not None:
            _positive("num_threads", self.num_threads)


def _paths(key: str, value: Any) -> list[str]:
    """Return one path or a list of them as a list."""
    values = [str(item) for item in (value if isinstance(value, list) else [value])]
    _require(all(values) and bool(values), key, value, "a path, or a list of paths: [A,B]")
    return values


EXPORT_SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "openvino_int8": ".xml",
}
"""How the file of each format ends."""


@dataclass
class ExportConfig:
    """Everything that ``python -m cnmc.export`` can be told."""

    checkpoint: str = field(default=MISSING, metadata=PATH)
    """A checkpoint, or a run folder, whose best checkpoint is taken."""
    format: str = "onnx"
    """``onnx``, ``openvino``, or ``openvino_int8`` (8-bit numbers: smaller, faster, less exact)."""
    output: str = field(default=MISSING, metadata=PATH)
    """The file to write: ``.onnx``, or ``.xml`` of OpenVINO (with a ``.bin`` beside it)."""
    data: CellsConfig = field(default_factory=CellsConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("format", self.format, tuple(EXPORT_SUFFIXES))
        suffix = EXPORT_SUFFIXES[self.format]
        _require(
            Path(self.output).suffix == suffix,
            "output",
            self.output,
            f"a file name that ends in {suffix} (format={self.format})",
        )


@dataclass
class PrepareConfig:
    """Everything that ``python -m cnmc.prepare`` can be told."""

    data: DataConfig = MISSING
    split: SplitConfig = MISSING


SCHEMAS: dict[str, type] = {
    "config": Config,
    "benchmark": BenchmarkConfig,
    "prepare": PrepareConfig,
    "report": ReportConfig,
    "best": BestConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
}
"""Schema of each top-level file of ``conf/``."""


def path_keys(schema: type, prefix: str = "") -> dict[str, bool]:
    """Return the dotted keys that hold paths, and for each whether a study can sweep it."""
    keys: dict[str, bool] = {}
    types = get_type_hints(schema)
    for item in fields(schema):
        if item.metadata.get("path"):
            keys[prefix + item.name] = bool(item.metadata.get("swept"))
        elif is_dataclass(types[item.name]):
            keys |= path_keys(types[item.name], f"{prefix}{item.name}.")
    return keys


def register() -> None:
    """Make the schema known to Hydra, and the resolvers; every entry point calls it first."""
    register_resolvers()
    store = ConfigStore.instance()
    store.store(name="train_schema", node=Config)
    store.store(name="benchmark_schema", node=BenchmarkConfig)
    store.store(name="prepare_schema", node=PrepareConfig)
    store.store(name="report_schema", node=ReportConfig)
    store.store(name="best_schema", node=BestConfig)
    store.store(name="predict_schema", node=PredictConfig)
    store.store(name="export_schema", node=ExportConfig)
    for command in STANDALONE:
        store.store(name=command, node=OmegaConf.load(CONFIG_DIR / f"{command}.yaml"))
    store.store(group="optimizer", name="layerwise_schema", node=LayerwiseOptimizerConfig)
    store.store(group="optimizer", name="flat_schema", node=FlatOptimizerConfig)


def to_config(node: DictConfig) -> Any:
    """Turn a composed node into its dataclasses, which check their values.

    Raises:
        CnmcError: A key is unknown (Hydra adds any that begins with ``+``) or was not given, or a
            value is out of range; the message names the key.
    """
    _refuse_unknown_keys(node, "")
    missing = sorted(OmegaConf.missing_keys(node))
    if missing:
        wanted = " ".join(f"{key}=VALUE" for key in missing)
        raise CnmcError(f"{missing[0]}: must be given; add {wanted}")
    return OmegaConf.to_object(node)


def _refuse_unknown_keys(node: DictConfig, prefix: str) -> None:
    kind = OmegaConf.get_type(node)
    known = [item.name for item in fields(kind)] if kind is not None and is_dataclass(kind) else []
    for key in map(str, node):
        if key not in known:
            raise CnmcError(f"{prefix}{key}: unknown key; expected one of {', '.join(known)}")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            _refuse_unknown_keys(child, f"{prefix}{key}.")

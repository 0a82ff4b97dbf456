"""The configuration of a run: its groups, and the type, the range and the meaning of each key."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from omegaconf import MISSING

from cnmc.config.fields import Rules, choice, number, path

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "head")
"""The parts of a network that have a learning rate of their own, from the input to the output."""


@dataclass
class SyntheticConfig:
    """Numbers of generated cells by part and class, as in the paper's Table 1.

    The paper gives 2,586 cells of 17 subjects for the final part; their classes are a guess.
    """

    seed: int = number(0, at_least=0)  # the same seed gives the same files
    image_size: int = number(450, at_least=48)  # in pixels; 450 is the size of the release
    train_subjects_all: int = number(47, at_least=0)
    train_subjects_hem: int = number(26, at_least=0)
    train_cells_all: int = number(7272, at_least=0)
    train_cells_hem: int = number(3389, at_least=0)
    prelim_subjects_all: int = number(13, at_least=0)
    prelim_subjects_hem: int = number(15, at_least=0)
    prelim_cells_all: int = number(1219, at_least=0)
    prelim_cells_hem: int = number(648, at_least=0)
    final_subjects_all: int = number(9, at_least=0)
    final_subjects_hem: int = number(8, at_least=0)
    final_cells_all: int = number(1761, at_least=0)
    final_cells_hem: int = number(825, at_least=0)

    def _rules(self) -> Rules:
        for key in (name for name in vars(self) if "_cells_" in name):
            cells, subjects = getattr(self, key), getattr(self, key.replace("cells", "subjects"))
            fits = cells >= subjects and (subjects > 0 or cells == 0)
            yield key, fits, f"at least one cell for each of the {subjects} subjects, 0 without"


@dataclass
class DataConfig:
    """Where the cells are and how they are read."""

    root: str = path(swept=True)  # folder of the data set, in any layout of the release
    work_dir: str = path(swept=True)  # folder for the manifest, the splits and the image cache
    crop: int = number(300, above=0)  # side of the central crop in pixels (section 2 of the paper)
    resize: int | None = number(None, above=0)  # side of the resized crop; null keeps its size
    skip_unreadable: bool = False  # leave out unreadable or small images, do not refuse to train
    batch_size: int = number(16, above=0)  # cells in a training batch (section 4.1)
    # Cells in an evaluation batch; each takes as many forward passes as there are rotations.
    eval_batch_size: int = number(32, above=0)
    num_workers: int = number(2, at_least=0)  # processes that augment; 0: the training process
    synthetic: SyntheticConfig | None = None  # composition of generated cells; null for existing

    def _rules(self) -> Rules:
        size = self.synthetic.image_size if self.synthetic else self.crop
        yield "crop", self.crop <= size, f"at most data.synthetic.image_size={size}"


@dataclass
class SplitConfig:
    """Which cells train, which choose the epoch, which are reported (see ``cnmc.data.splits``)."""

    kind: str = choice("official", "nested", "subject_kfold", "subject_holdout")
    seed: int = number(0, at_least=0)  # of the assignment of subjects, independent of a run's seed
    # nested, subject_holdout: share of the training cells of each class to hold out, by subjects.
    val_fraction: float = number(0.2, above=0, below=1)
    num_folds: int = number(5, at_least=2)  # subject_kfold: number of folds
    fold: int = number(0, at_least=0)  # subject_kfold: the fold to hold out, from 0
    # subject_holdout: the subjects to hold out; empty draws val_fraction.
    subjects: list[str] = field(default_factory=list)
    path: str | None = path(None, swept=True)  # a saved split to use instead of making one

    def _rules(self) -> Rules:
        last = self.num_folds - 1
        yield "fold", self.fold <= last, f"at most split.num_folds - 1 = {last}"
        for key, kind in (("fold", "subject_kfold"), ("subjects", "subject_holdout")):
            fits = self.kind == kind or not getattr(self, key)
            yield key, fits, f"split={kind} with it, not split={self.kind}"


@dataclass
class AugmentConfig:
    """Random changes of a training image (section 2 of the paper)."""

    hflip: float = number(0.5, at_least=0, at_most=1)  # probability of a horizontal flip
    vflip: float = number(0.5, at_least=0, at_most=1)  # probability of a vertical flip
    rotate: float = number(360.0, at_least=0, at_most=360)  # degrees, uniform over [0, rotate)
    translate: float = number(0.2, at_least=0, at_most=1)  # uniform over ± this share of each side
    scale: float = number(0.0, at_least=0, below=1)  # uniform over 1 ± scale; the paper uses none
    color: float = number(0.0, at_least=0, at_most=0.5)  # color jitter; the paper uses none
    # Augment batches on the device that trains: same pixels except for ties in rounding; no color.
    device: bool = False

    def _rules(self) -> Rules:
        fits = not (self.device and self.color > 0)
        yield "device", fits, f"false, or augment.color=0 instead of {self.color}"


@dataclass
class ModelConfig:
    """A timm network with one output logit."""

    name: str = MISSING  # timm's name of the network
    pretrained: bool = True  # start from ImageNet weights: the file weights, else timm's hub
    weights: str | None = path(None, swept=True)  # file: .safetensors, or a PyTorch state dict
    # Dropout before the head. The paper has none (timm's default for its network is 0.2).
    drop_rate: float = number(0.0, at_least=0, below=1)
    # Normalise by mean and std, which are of pixels in [0, 1]. The paper does not.
    normalize: bool = False
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    # By stage: patterns of the names of its parameters; shell wildcards, the first match wins.
    stages: dict[str, list[str]] = MISSING

    def _rules(self) -> Rules:
        yield "stages", tuple(self.stages) == STAGES, f"the keys {', '.join(STAGES)}, in this order"
        yield "weights", self.pretrained or self.weights is None, "null if model.pretrained=false"
        yield "mean", len(self.mean) == 3, "three numbers (RGB)"
        yield "std", len(self.std) == 3 and min(self.std) > 0, "three numbers above 0"


@dataclass
class LayerwiseRates:
    """One learning rate by stage (section 4.1), multiplied by the base of the schedule."""

    stage1: float = number(1e-6, at_least=0)
    stage2: float = number(1e-6, at_least=0)
    stage3: float = number(1e-4, at_least=0)
    stage4: float = number(1e-4, at_least=0)
    stage5: float = number(1e-4, at_least=0)
    head: float = number(1e-2, at_least=0)


@dataclass
class OptimizerConfig:
    """Adam with a base rate that starts at 1 and falls in steps (section 4.1)."""

    decay_every: int = number(2, above=0)  # epochs between two steps of the base
    decay_factor: float = number(0.1, above=0, at_most=1)  # of one step
    weight_decay: float = number(0.0, at_least=0)  # L2 penalty of Adam; the paper uses none
    fused: bool = False  # compute a step of Adam in one kernel: faster, with other rounding
    lr: Any = MISSING  # learning rate by stage while the base is 1, or one for all layers

    @property
    def rates(self) -> dict[str, float]:
        """Learning rate by stage while the base is 1."""
        return {stage: getattr(self.lr, stage, self.lr) for stage in STAGES}


@dataclass
class LayerwiseOptimizerConfig(OptimizerConfig):
    """Learning rates by stage: PROPOSAL."""

    lr: LayerwiseRates = field(default_factory=LayerwiseRates)


@dataclass
class FlatOptimizerConfig(OptimizerConfig):
    """One learning rate for all layers: NOSPECLR (section 4.4)."""

    lr: float = number(1e-4, at_least=0)


OPTIMIZERS = {"layerwise_schema": LayerwiseOptimizerConfig, "flat_schema": FlatOptimizerConfig}


@dataclass
class TTAConfig:
    """Rotations of a cell, equally spaced over the circle, whose logits are averaged."""

    num_rotations: int = choice(1, 2, 4, 8, default=8)


@dataclass
class TrainerConfig:
    """How long and on what device to train. One run trains on one device."""

    max_epochs: int = number(6, above=0)
    # auto takes a GPU if there is one.
    accelerator: str = choice("auto", "cpu", "gpu", "cuda", "mps", default="auto")
    # auto is bf16-mixed on a GPU that computes in bfloat16, else 32-true.
    precision: str = choice("32-true", "16-mixed", "bf16-mixed", "auto", default="32-true")
    channels_last: bool = False  # memory layout that makes convolutions faster
    compile: bool = False  # compile the network; on a CPU this needs a C++ compiler
    deterministic: bool = False  # deterministic kernels; a CPU repeats runs without them
    # Threads of PyTorch; null keeps its default. Another number changes the rounding of sums.
    num_threads: int | None = number(None, above=0)
    # Batches of a training epoch and of an evaluation, for a quick trial; null takes all.
    limit_train_batches: int | None = number(None, above=0)
    limit_val_batches: int | None = number(None, above=0)
    progress_bar: bool = True  # show the progress of an epoch in a terminal


@dataclass
class LoggerConfig:
    """Where metrics are logged in addition to the run folder."""

    kind: str = choice("wandb", "tensorboard", "csv", "none")  # csv has one line per step
    project: str = "cnmc"  # W&B project
    entity: str | None = None  # W&B user or team; null takes the account's default
    # Mode of W&B; null is online if logged in, else offline.
    mode: str | None = choice("online", "offline", "disabled", default=None)
    log_model: bool = True  # W&B: upload the best checkpoint of a finished run as an artifact
    log_last: bool = False  # W&B: upload the last checkpoint too
    num_images: int = number(16, at_least=0)  # W&B: number of misclassified cells to upload

    def _rules(self) -> Rules:
        installed = self.kind != "tensorboard" or find_spec("tensorboard")
        yield "kind", installed, "its package to be installed: pip install 'cnmc[tensorboard]'"
        yield "log_last", self.log_model or not self.log_last, "false if logger.log_model=false"


@dataclass
class RunConfig:
    """The run folder, ``<root>/<experiment>/<name>``."""

    root: str = path("runs")
    name: str | None = path(None)  # null makes it of the seed and the other swept overrides
    overwrite: bool = False  # start over if the run folder exists
    swept: list[str] = field(default_factory=list)  # keys that are swept; set by the program

    def _rules(self) -> Rules:
        # Starting over removes this folder.
        plain = self.name not in ("", ".", "..") and "/" not in (self.name or "")
        yield "name", plain, "the name of one folder, without /"


@dataclass
class StudyConfig:
    """How the runs of one command are scheduled; no effect on what a run computes."""

    fail_fast: bool = False  # start no further run after one failed; running ones continue
    max_retries: int = number(0, at_least=0)  # new attempts of a failed run, from its last epoch
    id: str | None = None  # name of this command's study; set by the program


@dataclass
class Config:
    """All keys of ``python -m cnmc.train``."""

    # Name of the experiment file; choosing one sets it.
    experiment: str = "${hydra:runtime.choices.experiment}"
    # Seed of the run: initial head, order of the cells, augmentation.
    seed: int = number(0, at_least=0, below=2**32)
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

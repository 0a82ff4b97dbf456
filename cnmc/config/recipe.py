"""The configuration of a run, of ``prepare`` and of ``benchmark``."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from omegaconf import MISSING

from cnmc.config.data_groups import AugmentConfig, DataConfig, SplitConfig
from cnmc.config.fields import choice, number, path, require
from cnmc.config.model_groups import ModelConfig, OptimizerConfig, TTAConfig
from cnmc.errors import CnmcError


@dataclass
class TrainerConfig:
    """How long and on what device to train. One run trains on one device."""

    max_epochs: int = number(6, above=0)
    """Epochs of the training."""
    accelerator: str = choice("auto", "cpu", "gpu", "cuda", "mps", default="auto")
    """Device; ``auto`` takes a GPU if there is one."""
    precision: str = choice("32-true", "16-mixed", "bf16-mixed", "auto", default="32-true")
    """``auto`` is bf16-mixed on a GPU that computes in bfloat16, else 32-true."""
    channels_last: bool = False
    """Store the channels of a pixel next to each other, which makes convolutions faster."""
    compile: bool = False
    """Compile the network. Needs a C++ compiler on a CPU."""
    deterministic: bool = False
    """Ask PyTorch for deterministic kernels. On a CPU runs are repeatable without it."""
    num_threads: int | None = number(None, above=0)
    """Threads of PyTorch on the CPU; null keeps its default. Another number changes the rounding of
    sums, so keep it if results must repeat to the last bit."""
    limit_train_batches: int | None = number(None, above=0)
    """Batches of a training epoch, for a quick trial; null takes all."""
    limit_val_batches: int | None = number(None, above=0)
    """Batches of an evaluation, for a quick trial; null takes all."""
    progress_bar: bool = True
    """Show the progress of an epoch in a terminal."""


@dataclass
class LoggerConfig:
    """Where metrics are logged in addition to the run folder."""

    kind: str = choice("wandb", "tensorboard", "csv", "none")
    """``wandb``, ``tensorboard`` (scalars), ``csv`` (one line per step) or ``none``."""
    project: str = "cnmc"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null takes the account's default."""
    mode: str | None = choice("online", "offline", "disabled", default=None)
    """Mode of W&B; null is online if logged in, else offline."""
    log_model: bool = True
    """W&B: upload the best checkpoint of a finished run as an artifact."""
    log_last: bool = False
    """W&B: upload the last checkpoint too."""
    num_images: int = number(16, at_least=0)
    """W&B: number of misclassified cells to upload; 0 uploads no image."""

    def check(self) -> None:
        """Check that what is logged can be logged."""
        if self.kind == "tensorboard" and not find_spec("tensorboard"):
            raise CnmcError(
                "logger=tensorboard needs the package tensorboard: pip install 'cnmc[tensorboard]'"
            )
        require(
            self.log_model or not self.log_last,
            "logger.log_last",
            self.log_last,
            "false if logger.log_model=false",
        )


@dataclass
class RunConfig:
    """The run folder, ``<root>/<experiment>/<name>``."""

    root: str = path("runs")
    """Folder of all run folders."""
    name: str | None = path(None)
    """Name of the run folder; null makes it of the seed and the other swept overrides."""
    overwrite: bool = False
    """Start over if the run folder exists."""
    swept: list[str] = field(default_factory=list)
    """Keys that the command line or W&B's agent sweeps. Filled in by the program."""

    def check(self) -> None:
        """Check that the name is one folder's: starting over removes that folder."""
        plain = self.name is None or (self.name not in {"", ".", ".."} and "/" not in self.name)
        require(plain, "run.name", self.name, "the name of one folder, without /")


@dataclass
class StudyConfig:
    """How the runs of one command are scheduled; no effect on what a run computes."""

    fail_fast: bool = False
    """Start no further run after one has failed; other runs that are training continue."""
    max_retries: int = number(0, at_least=0)
    """How often a run that raised an error is tried again, from its last complete epoch."""
    id: str | None = None
    """Names this command's study. Filled in by the program."""


@dataclass
class Config:
    """All keys of ``python -m cnmc.train``."""

    experiment: str = "${hydra:runtime.choices.experiment}"
    """Name of the experiment file; set by choosing one, ``experiment=norot``."""
    seed: int = number(0, at_least=0, below=2**32)
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


@dataclass
class BenchmarkConfig(Config):
    """All keys of ``python -m cnmc.benchmark``: its own and those of a run."""

    stage: str = choice("all", "data", "train", "eval", "predict", "scale", default="all")
    """The stage to measure, or ``all``."""
    output: str = path("benchmark")
    """Folder for the table and for the generated cells."""
    repeats: int = number(5, above=0)
    """Pairs of measurements; the medians are reported."""


@dataclass
class PrepareConfig:
    """All keys of ``python -m cnmc.prepare``."""

    data: DataConfig = MISSING
    split: SplitConfig = MISSING

"""The groups ``data``, ``split`` and ``augment``."""

from __future__ import annotations

from dataclasses import dataclass, field

from cnmc.config.fields import choice, number, path, require
from cnmc.errors import CnmcError


@dataclass
class SyntheticConfig:
    """Generated cells in the layout of the release (see ``cnmc.data.sources.synthetic``).

    The numbers of subjects and cells are by part and class. The defaults are the paper's Table 1,
    and 2,586 cells of 17 subjects for the final part, whose division into classes is a guess.
    """

    seed: int = number(0, at_least=0)
    """Seed of the whole data set: the same seed gives the same files."""
    image_size: int = number(450, at_least=48)
    """Side of an image in pixels; cells scale with it (450 is the size of the release)."""
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

    def check(self) -> None:
        """Check that every subject has a cell, and every cell a subject."""
        for part in ("train", "prelim", "final"):
            for name in ("all", "hem"):
                subjects = getattr(self, f"{part}_subjects_{name}")
                cells = getattr(self, f"{part}_cells_{name}")
                require(
                    cells >= subjects and (subjects > 0 or cells == 0),
                    f"data.synthetic.{part}_cells_{name}",
                    cells,
                    f"at least one cell for each of the {subjects} subjects, 0 without subjects",
                )


@dataclass
class DataConfig:
    """Where the cells are and how they are read."""

    root: str = path(swept=True)
    """Folder of the data set, in any of the three layouts of the release."""
    work_dir: str = path(swept=True)
    """Folder for the manifest, the splits and the image cache, which are made from the data."""
    crop: int = number(300, above=0)
    """Side of the central crop in pixels (section 2 of the paper)."""
    resize: int | None = number(None, above=0)
    """Side in pixels to which the crop is resized by area averaging; null keeps its size."""
    skip_unreadable: bool = False
    """Leave out images that are unreadable or smaller than the crop, instead of refusing to
    train."""
    batch_size: int = number(16, above=0)
    """Cells in a training batch (section 4.1)."""
    eval_batch_size: int = number(32, above=0)
    """Cells in an evaluation batch; each takes as many forward passes as there are rotations."""
    num_workers: int = number(2, at_least=0)
    """Processes that augment training images; 0 augments in the training process. No effect on
    results."""
    synthetic: SyntheticConfig | None = None
    """Composition of generated data; null for existing data."""

    def check(self) -> None:
        """Check that generated images are at least as large as the crop."""
        if self.synthetic is not None:
            size = self.synthetic.image_size
            expected = f"at most data.synthetic.image_size={size}"
            require(self.crop <= size, "data.crop", self.crop, expected)


@dataclass
class SplitConfig:
    """Which cells train, which choose the epoch, which are reported (see ``cnmc.data.splits``)."""

    kind: str = choice("official", "nested", "subject_kfold", "subject_holdout")
    """How the cells are split."""
    seed: int = number(0, at_least=0)
    """Seed of the assignment of subjects; independent of the seed of a run."""
    val_fraction: float = number(0.2, above=0, below=1)
    """``nested`` and ``subject_holdout``: share of the training cells, in each class, whose
    subjects are set aside."""
    num_folds: int = number(5, at_least=2)
    """``subject_kfold``: number of folds."""
    fold: int = number(0, at_least=0)
    """``subject_kfold``: the fold that is set aside, from 0."""
    subjects: list[str] = field(default_factory=list)
    """``subject_holdout``: the subjects that are set aside; empty draws ``val_fraction``."""
    path: str | None = path(None, swept=True)
    """A saved split to use instead of making one."""

    def check(self) -> None:
        """Check that the keys fit the kind of the split."""
        last = self.num_folds - 1
        require(self.fold <= last, "split.fold", self.fold, f"at most split.num_folds - 1 = {last}")
        for key, value, kind in (
            ("split.subjects", self.subjects, "subject_holdout"),
            ("split.fold", self.fold, "subject_kfold"),
        ):
            if value and self.kind != kind:
                raise CnmcError(f"{key}={value}: goes with split={kind}, not with {self.kind}")


@dataclass
class AugmentConfig:
    """Random changes of a training image (section 2 of the paper)."""

    hflip: float = number(0.5, at_least=0, at_most=1)
    """Probability of a horizontal flip."""
    vflip: float = number(0.5, at_least=0, at_most=1)
    """Probability of a vertical flip."""
    rotate: float = number(360.0, at_least=0, at_most=360)
    """Angles are uniform over [0, rotate) degrees."""
    translate: float = number(0.2, at_least=0, at_most=1)
    """Shifts are uniform over plus and minus this share of each side."""
    scale: float = number(0.0, at_least=0, below=1)
    """Scales are uniform over 1 - scale to 1 + scale. The paper uses none."""
    color: float = number(0.0, at_least=0, at_most=0.5)
    """Strength of brightness, contrast, saturation and hue jitter. The paper uses none."""
    device: bool = False
    """Move the pixels on the device that trains, one batch at a time, with the same random draws.
    The pixels are the same except for ties in rounding. Not with color."""

    def check(self) -> None:
        """Check that colours are not to be changed on the device."""
        if self.device and self.color > 0:
            raise CnmcError(
                f"augment.device=true: colours cannot be changed on the device, but augment.color="
                f"{self.color}; give augment.color=0 or augment.device=false"
            )

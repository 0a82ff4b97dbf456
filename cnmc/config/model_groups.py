"""The groups ``model``, ``optimizer`` and ``tta``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from cnmc.config.fields import choice, number, path, require
from cnmc.errors import CnmcError

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "head")
"""The parts of a network that have a learning rate of their own, from the input to the output."""


@dataclass
class StagesConfig:
    """Name patterns of the parameters of each stage; shell wildcards, the first match wins."""

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
    """Start from ImageNet weights: the file ``weights`` if given, else from timm's hub."""
    weights: str | None = path(None, swept=True)
    """Local file of weights (``.safetensors``, or a PyTorch state dict)."""
    drop_rate: float = number(0.0, at_least=0, below=1)
    """Dropout before the head. The paper has none (timm's default for its network is 0.2)."""
    normalize: bool = False
    """Normalise by ``mean`` and ``std`` after scaling to [0, 1]. The paper does not."""
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    """Mean of red, green and blue, of pixels in [0, 1]."""
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    """Standard deviation of red, green and blue, of pixels in [0, 1]."""
    stages: StagesConfig = field(default_factory=StagesConfig)

    def check(self) -> None:
        """Check the weights and the numbers of the normalisation."""
        if self.weights is not None and not self.pretrained:
            raise CnmcError(
                f"model.weights={self.weights} goes with model.pretrained=true, which is false"
            )
        require(len(self.mean) == 3, "model.mean", self.mean, "three numbers (RGB)")
        positive = len(self.std) == 3 and min(self.std) > 0
        require(positive, "model.std", self.std, "three numbers above 0")


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

    decay_every: int = number(2, above=0)
    """Epochs between two steps of the base."""
    decay_factor: float = number(0.1, above=0, at_most=1)
    """Factor of one step."""
    weight_decay: float = number(0.0, at_least=0)
    """L2 penalty of Adam. The paper uses none."""
    fused: bool = False
    """Compute a whole step of Adam in one kernel: faster, with other rounding."""

    lr: Any = MISSING
    """Learning rate of each stage while the base is 1, or one of all layers."""

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


@dataclass
class TTAConfig:
    """Rotations of a cell over which its evaluation is averaged."""

    num_rotations: int = choice(1, 2, 4, 8, default=8)
    """Rotations, equally spaced over the circle; their logits are averaged."""

"""Describe what a trained network takes and gives, and store this in an exported file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnmc.analysis.decision import Decision

Images = NDArray[np.uint8]
"""Cropped RGB cells of shape (cells, size, size, 3)."""

Logits = NDArray[np.float32]
"""One logit per rotation, of shape (cells, rotations)."""

FORMAT = 2
"""Version of exported files; raise it when an older reader would misread them."""

METADATA = "cnmc"
"""Name of the metadata entry, which holds a :class:`GraphInfo` as JSON."""

INPUT, OUTPUT, PROBABILITY = "images", "logits", "probability"


@dataclass(frozen=True)
class GraphInfo:
    """Description of a network."""

    network: str
    """Name in timm."""
    crop: int
    """Side in pixels of the central square that is cut out of an image."""
    resize: int | None = None
    """Side in pixels to which the square is resized; None keeps it."""
    num_rotations: int = 8
    mean: tuple[float, ...] | None = None
    """Mean of the normalisation, RGB in [0, 1]; None keeps pixels in [0, 1]."""
    std: tuple[float, ...] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    """Identity of the run that trained it: experiment, name, seed, fingerprints."""
    epoch: int = 0
    """Epoch of the run; 0 before training."""
    precision: str = "float32"
    """``float32`` or ``int8``."""
    decision: Decision = field(default_factory=Decision)

    @property
    def size(self) -> int:
        """Side in pixels of the images that the network takes."""
        return self.resize or self.crop

    @property
    def label(self) -> str:
        """Experiment, name and epoch of its run."""
        return f"{self.run.get('experiment')}/{self.run.get('name')}, epoch {self.epoch}"

    def to_json(self) -> str:
        """Return the text that a file stores."""
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> GraphInfo:
        """Read the text that a file stores.

        Raises:
            ValueError: There is no text, or it does not describe a network.
        """
        values = json.loads(text or "{}")
        if values.pop("format", None) != FORMAT:
            raise ValueError(f"no {METADATA} metadata of format {FORMAT}")
        for name in ("mean", "std"):
            values[name] = values[name] and tuple(values[name])
        return cls(**values | {"decision": Decision.from_values(values["decision"])})

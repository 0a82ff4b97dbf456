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
MAX_SIDE = 4096
"""Largest side of a network's images in pixels, so that no file can fill the memory."""


@dataclass(frozen=True)
class GraphInfo:
    """Description of a network.

    Attributes:
        network: Name in timm.
        crop: Side in pixels of the central square that is cut out of an image.
        resize: Side in pixels to which the square is resized; None keeps it.
        num_rotations: Rotations of each cell: 1, 2, 4 or 8.
        mean: Mean of the normalisation, RGB in [0, 1]; None keeps pixels in [0, 1].
        std: Standard deviation of the normalisation.
        run: Identity of the run that trained it: experiment, name, seed, fingerprints.
        epoch: Epoch of the run; 0 before training.
        precision: ``float32`` or ``int8``.
        decision: Temperature and thresholds.

    Raises:
        ValueError: A value is impossible.
    """

    network: str
    crop: int
    resize: int | None = None
    num_rotations: int = 8
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    epoch: int = 0
    precision: str = "float32"
    decision: Decision = field(default_factory=Decision)

    def __post_init__(self) -> None:
        """Check what a file may have wrong."""
        sides = (self.crop, self.size)
        if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in sides):
            raise ValueError(f"crop {self.crop} or resize {self.resize} is out of range")
        if self.num_rotations not in (1, 2, 4, 8):
            raise ValueError(f"{self.num_rotations} rotations instead of 1, 2, 4 or 8")
        if not isinstance(self.network, str) or not isinstance(self.run, Mapping):
            raise ValueError("network or run has the wrong type")

    @property
    def size(self) -> int:
        """Side in pixels of the images that the network takes."""
        return self.crop if self.resize is None else self.resize

    def to_json(self) -> str:
        """Return the text that a file stores."""
        return json.dumps({"format": FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> GraphInfo:
        """Read the text that a file stores.

        Raises:
            ValueError: There is no text, or it does not describe a network.
        """
        if text is None:
            raise ValueError("no metadata of cnmc")
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            for name in ("mean", "std"):
                values[name] = None if values[name] is None else tuple(values[name])
            values["decision"] = Decision.from_values(values["decision"])
            return cls(**values)
        except Exception as error:
            raise ValueError(f"metadata: {error}") from error

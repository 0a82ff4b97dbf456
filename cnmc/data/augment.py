"""Random changes of a training image (section 2 of the paper), as transforms of albumentations.

Flips, rotation, scale and shift are one matrix and one resampling by nearest neighbour with black
fill. Separate transforms would resample twice, and would cut off corners of the rotated cell that
the shift brings back.

The draws depend only on (run seed, epoch, cell). albumentations ignores global seeds and repeats
one stream in every worker; here its generators are seeded for each cell.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

# Without it albumentations looks for a newer version over the network when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # type: ignore[import-untyped]  # noqa: N812
import numpy as np

from cnmc.data.motion import Image, Motion, move


class RandomMotion(A.ImageOnlyTransform):  # type: ignore[misc]
    """A random :class:`Motion` as a transform of albumentations.

    The arguments are those of :class:`CellAugmentation`.
    """

    def __init__(
        self, *, hflip: float, vflip: float, rotate: float, translate: float, scale: float
    ) -> None:
        super().__init__(p=1.0)
        self.hflip = hflip
        self.vflip = vflip
        self.rotate = rotate
        self.translate = translate
        self.scale = scale

    def draw(self) -> Motion:
        """Draw a motion."""
        # All six numbers every time, so that one setting does not change the draws of the others.
        hflip, vflip, angle, scale, right, down = self.random_generator.random(6).tolist()
        return Motion(
            hflip=hflip < self.hflip,
            vflip=vflip < self.vflip,
            angle=angle * self.rotate,
            scale=1.0 + (2.0 * scale - 1.0) * self.scale,
            shift=((2.0 * right - 1.0) * self.translate, (2.0 * down - 1.0) * self.translate),
        )

    def get_params(self) -> dict[str, Any]:
        """Draw the arguments of :meth:`apply`."""
        return {"motion": self.draw()}

    def apply(self, img: Image, motion: Motion, **_params: object) -> Image:
        """Move an image."""
        return move(img, motion)


class CellAugmentation:
    """The augmentation of a training cell, which repeats itself exactly for the same seed.

    Args:
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        rotate: Angles are uniform over [0, rotate) degrees.
        translate: Shifts are uniform over plus and minus this share of each side, independently.
        scale: Scales are uniform over 1 - scale to 1 + scale; 0 in the paper.
        color: Strength of brightness, contrast, saturation and hue jitter, 0 to 0.5; 0 in the
            paper.
    """

    def __init__(
        self,
        *,
        hflip: float,
        vflip: float,
        rotate: float,
        translate: float,
        scale: float = 0.0,
        color: float = 0.0,
    ) -> None:
        self._motion = RandomMotion(
            hflip=hflip, vflip=vflip, rotate=rotate, translate=translate, scale=scale
        )
        transforms: list[A.BasicTransform] = [self._motion]
        if color > 0:
            # After the motion, so that its black fill changes like the cell's background.
            around = (1.0 - color, 1.0 + color)
            transforms.append(A.ColorJitter(around, around, around, (-color, color), p=1.0))
        self.pipeline = A.Compose(transforms)
        # Compose.set_random_seed would give all transforms the same stream.
        self._bits = np.random.Philox(0)
        self._state = self._bits.state
        self._python = random.Random(0)  # noqa: S311 (no secret)
        self._has_color = color > 0
        self.pipeline.set_random_state(np.random.Generator(self._bits), self._python)

    def __call__(self, image: Image, *, seed: Sequence[int]) -> Image:
        """Return a changed copy of an image.

        Args:
            image: H x W x 3, uint8, RGB.
            seed: Run seed, epoch and index of the cell, from 0 to 2**64 - 1.

        Returns:
            H x W x 3, uint8.
        """
        self._reseed(seed)
        changed: Image = self.pipeline(image=image)["image"]
        return changed

    def draw(self, seed: Sequence[int]) -> Motion:
        """Return the motion of a call with this seed, for a device to apply it.

        Raises:
            ValueError: The augmentation also changes colours.
        """
        if self._has_color:
            raise ValueError("color is not 0: a motion changes no colours")
        self._reseed(seed)
        return self._motion.draw()

    def _reseed(self, seed: Sequence[int]) -> None:
        # Philox is a function of key and counter: run and epoch select the stream, the cell a
        # place in it that is 2**192 draws from the next.
        run, epoch, index = seed
        self._state["state"] = {
            "key": np.array([run, epoch], dtype=np.uint64),
            "counter": np.array([0, 0, 0, index], dtype=np.uint64),
        }
        self._bits.state = self._state
        self._python.seed((run << 128) | (epoch << 64) | index)

"""Random changes of a training image (section 2 of the paper).

Flips, rotation, scale and shift are one matrix and one resampling by nearest neighbour with black
fill. Separate transforms would resample twice and cut the corners of the rotated cell off before
the shift brings them back.

What is drawn depends on (run seed, epoch, cell) alone. albumentations by itself ignores global
seeds and repeats one stream in every worker; here the stream is set anew for each cell, so a run
repeats itself exactly whatever the number of workers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

# albumentations looks for a newer version when it is imported, over the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # type: ignore[import-untyped]  # noqa: N812 (the name that its users know)
import numpy as np

from cnmc.data.motion import Image, Motion, move


class RandomMotion(A.ImageOnlyTransform):  # type: ignore[misc]
    """A random :class:`Motion` as a transform of albumentations.

    Args:
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        rotate: Angles are uniform over [0, rotate) degrees.
        translate: Shifts are uniform over plus and minus this share of each side, independently.
        scale: Scales are uniform over 1 - scale to 1 + scale.
        p: Probability that anything at all is done.
    """

    class InitSchema(A.ImageOnlyTransform.InitSchema):  # type: ignore[misc]
        """Arguments that albumentations checks."""

        hflip: float
        vflip: float
        rotate: float
        translate: float
        scale: float

    def __init__(
        self,
        *,
        hflip: float,
        vflip: float,
        rotate: float,
        translate: float,
        scale: float,
        p: float = 1.0,  # albumentations' own default of 1/2 would leave every other cell as it is
    ) -> None:
        super().__init__(p=p)
        self.hflip = hflip
        self.vflip = vflip
        self.rotate = rotate
        self.translate = translate
        self.scale = scale

    def draw(self) -> Motion:
        """Draw a motion."""
        # All six numbers every time: changing one setting leaves the draws of the others alone.
        hflip, vflip, angle, scale, right, down = self.random_generator.random(6).tolist()
        return Motion(
            hflip=hflip < self.hflip,
            vflip=vflip < self.vflip,
            angle=angle * self.rotate,
            scale=1.0 + (2.0 * scale - 1.0) * self.scale,
            shift=((2.0 * right - 1.0) * self.translate, (2.0 * down - 1.0) * self.translate),
        )

    def get_params(self) -> dict[str, Any]:
        """Draw what :meth:`apply` is given."""
        return {"motion": self.draw()}

    def apply(self, img: Image, motion: Motion, **_params: object) -> Image:
        """Move an image."""
        return move(img, motion)


class CellAugmentation:
    """The augmentation of a training cell, repeatable cell by cell.

    Args:
        hflip: Probability of a horizontal flip.
        vflip: Probability of a vertical flip.
        rotate: Angles are uniform over [0, rotate) degrees.
        translate: Shifts are uniform over plus and minus this share of each side.
        scale: Scales are uniform over 1 - scale to 1 + scale; 0 for none, as in the paper.
        color: Strength of brightness, contrast, saturation and hue jitter, 0 to 0.5; 0 for none,
            as in the paper.
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
        transforms: list[A.BasicTransform] = []
        if any((hflip, vflip, rotate, translate, scale)):
            transforms.append(self._motion)
        if color > 0:
            # After the motion, so that its fill and the cell's own black background stay alike.
            around = (1.0 - color, 1.0 + color)
            transforms.append(A.ColorJitter(around, around, around, (-color, color), p=1.0))
        self.pipeline = A.Compose(transforms)
        # One pair of generators for all transforms. Compose.set_random_seed would make a pair of
        # new ones for each, all with the same seed: dearer, and color would follow the rotation.
        self._bits = np.random.Philox(0)
        self._state = self._bits.state
        self._python = random.Random(0)  # noqa: S311 (no secret)
        self._has_color = color > 0
        self.pipeline.set_random_state(np.random.Generator(self._bits), self._python)

    def __call__(self, image: Image, *, seed: Sequence[int]) -> Image:
        """Return a changed copy of an image.

        Args:
            image: H x W x 3, uint8, RGB.
            seed: Run seed, epoch and index of the cell, whole numbers from 0 to 2**64 - 1. The
                result depends on them and on the image, and on nothing else.

        Returns:
            H x W x 3, uint8.
        """
        self._reseed(seed)
        changed: Image = self.pipeline(image=image)["image"]
        return changed if changed is not image else image.copy()

    def draw(self, seed: Sequence[int]) -> Motion:
        """Return the motion that a call with this seed applies, for a device to apply it.

        Args:
            seed: As for a call.

        Raises:
            ValueError: The augmentation also changes colours, which no motion does.
        """
        if self._has_color:
            raise ValueError("color is not 0: a motion has no part in it")
        self._reseed(seed)
        return self._motion.draw()

    def _reseed(self, seed: Sequence[int]) -> None:
        run, epoch, index = seed
        # Philox is a function of key and counter: run and epoch select the stream, the cell a
        # place in it that is 2**192 draws from the next. Nothing has to be mixed or warmed up.
        self._state["state"] = {
            "key": np.array([run, epoch], dtype=np.uint64),
            "counter": np.array([0, 0, 0, index], dtype=np.uint64),
        }
        self._bits.state = self._state
        if self._has_color:
            self._python.seed((run << 128) | (epoch << 64) | index)

"""Random changes of a training image (section 2 of the paper).

Flips, rotation, scale and shift are one matrix and one resampling by nearest neighbour with black
fill. Separate transforms would resample twice and cut the corners of the rotated cell off before
the shift brings them back.

What is drawn depends on (run seed, epoch, cell) alone. albumentations by itself ignores global
seeds and repeats one stream in every worker; here the stream is set anew for each cell, so a run
repeats itself exactly whatever the number of workers.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# albumentations looks for a newer version when it is imported, over the network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A  # type: ignore[import-untyped]  # noqa: N812 (the name that its users know)
import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Motion:
    """One flip, rotation, scale and shift, in this order.

    Attributes:
        hflip: Whether left and right are exchanged.
        vflip: Whether top and bottom are exchanged.
        angle: Counter-clockwise rotation about the centre of the image in degrees.
        scale: Factor about the centre.
        shift: Shift along the axes of the image, after the rotation, as shares of width and
            height; positive to the right and down.
    """

    hflip: bool = False
    vflip: bool = False
    angle: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def matrix(self, height: int, width: int) -> npt.NDArray[np.float64]:
        """Return the 2 x 3 matrix from pixels of the input to pixels of the output, as (x, y)."""
        angle = math.radians(self.angle)
        cos, sin = self.scale * math.cos(angle), self.scale * math.sin(angle)
        # The y axis points down, hence the sign of the sine. A flip negates a column.
        across = -1.0 if self.hflip else 1.0
        down = -1.0 if self.vflip else 1.0
        linear = np.array([[cos * across, sin * down], [-sin * across, cos * down]])
        # OpenCV's pixel i has its centre at i, so a quarter turn about (side - 1) / 2 is exact.
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = np.array([self.shift[0] * width, self.shift[1] * height])
        return np.column_stack([linear, center + shift - linear @ center])


def move(image: Image, motion: Motion) -> Image:
    """Apply a motion by nearest neighbour, black where nothing comes from.

    Args:
        image: H x W x C, uint8.
        motion: The motion.

    Returns:
        A new image of the same shape.
    """
    height, width = image.shape[:2]
    moved = cv2.warpAffine(
        image,
        motion.matrix(height, width),
        (width, height),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0),
    )
    return np.asarray(moved, dtype=np.uint8)


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

    def get_params(self) -> dict[str, Any]:
        """Draw a motion."""
        # All six numbers every time: changing one setting leaves the draws of the others alone.
        hflip, vflip, angle, scale, right, down = self.random_generator.random(6).tolist()
        motion = Motion(
            hflip=hflip < self.hflip,
            vflip=vflip < self.vflip,
            angle=angle * self.rotate,
            scale=1.0 + (2.0 * scale - 1.0) * self.scale,
            shift=((2.0 * right - 1.0) * self.translate, (2.0 * down - 1.0) * self.translate),
        )
        return {"motion": motion}

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
        transforms: list[A.BasicTransform] = []
        if any((hflip, vflip, rotate, translate, scale)):
            transforms.append(
                RandomMotion(
                    hflip=hflip, vflip=vflip, rotate=rotate, translate=translate, scale=scale
                )
            )
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
        self._uses_python = color > 0
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

    def _reseed(self, seed: Sequence[int]) -> None:
        run, epoch, index = seed
        # Philox is a function of key and counter: run and epoch select the stream, the cell a
        # place in it that is 2**192 draws from the next. Nothing has to be mixed or warmed up.
        self._state["state"] = {
            "key": np.array([run, epoch], dtype=np.uint64),
            "counter": np.array([0, 0, 0, index], dtype=np.uint64),
        }
        self._bits.state = self._state
        if self._uses_python:
            self._python.seed((run << 128) | (epoch << 64) | index)

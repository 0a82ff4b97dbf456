"""Random changes of a training image (section 2 of the paper), on the host or on the device.

Flips, rotation, scale and shift are one matrix and one resampling by nearest neighbour with black
fill. Separate transforms would resample twice, and would cut off corners of the rotated cell that
the shift brings back.

OpenCV moves one image (:func:`move`); a gather moves a batch on any device (:func:`warp`). Both use
the same fixed-point arithmetic: the host rounds, and the device only adds and compares integers.
Their pixels are equal on x86-64; on other processors OpenCV may round a source between two pixels
differently.
"""

from __future__ import annotations

import math
import random
from typing import Any, NamedTuple

import albumentations as A  # type: ignore[import-untyped]  # noqa: N812
import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cnmc.config.groups import AugmentConfig
from cnmc.data.images import Pixels

_BITS = 10
"""Binary places of OpenCV's coordinates."""


class Motion(NamedTuple):
    """One flip, rotation, scale and shift, in this order, about the centre of an image."""

    hflip: bool = False
    vflip: bool = False
    angle: float = 0.0
    """Counter-clockwise, in degrees."""
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """To the right and down, as shares of width and height."""

    def matrix(self, height: int, width: int) -> npt.NDArray[np.float64]:
        """Return the 2 x 3 matrix from pixels of the input to pixels of the output, as (x, y)."""
        angle = math.radians(self.angle)
        cos, sin = self.scale * math.cos(angle), self.scale * math.sin(angle)
        # The y axis points down, hence the sign of the sine. A flip negates a column.
        across, down = 1.0 - 2.0 * self.hflip, 1.0 - 2.0 * self.vflip
        linear = np.array([[cos * across, sin * down], [-sin * across, cos * down]])
        # OpenCV's pixel i has its centre at i, so a quarter turn about (side - 1) / 2 is exact.
        center = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = np.array([self.shift[0] * width, self.shift[1] * height])
        return np.column_stack([linear, center + shift - linear @ center])

    def sources(self, height: int, width: int) -> npt.NDArray[np.int32]:
        """Return where the pixels of a moved image come from, for :func:`warp`.

        The source of a pixel is linear in its row and its column: one term for each is enough.

        Returns:
            2 x (height + width): x and y of the rows, then of the columns, in units of 2**-10
            pixels; half a pixel is added for rounding down.
        """
        inverse = cv2.invertAffineTransform(self.matrix(height, width))
        by_column, by_row, offset = inverse[:, :1], inverse[:, 1:2], inverse[:, 2:]
        rows = np.rint((by_row * np.arange(height) + offset) * 2**_BITS) + 2 ** (_BITS - 1)
        columns = np.rint(by_column * np.arange(width) * 2**_BITS)
        return np.concatenate([rows, columns], axis=1).astype(np.int32)


def move(image: Pixels, motion: Motion) -> Pixels:
    """Return a moved copy of an image, H x W x 3."""
    height, width = image.shape[:2]
    matrix = motion.matrix(height, width)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(moved, dtype=np.uint8)


def warp(images: Tensor, sources: Tensor) -> Tensor:
    """Return moved copies of a batch of images, B x H x W x C, any dtype, on any device.

    ``sources`` has :meth:`Motion.sources` of each image, B x 2 x (H + W), on the same device.
    """
    num_images, height, width, num_channels = images.shape
    rows, columns = sources[..., :height], sources[..., height:]
    x, y = ((rows.unsqueeze(3) + columns.unsqueeze(2)) >> _BITS).unbind(dim=1)
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    first = torch.arange(num_images, dtype=sources.dtype, device=sources.device) * (height * width)
    pixel = y * width + x + first.view(-1, 1, 1)
    # One black pixel after the last image is the source of all that come from outside.
    pixels = torch.cat([images.flatten(0, 2), images.new_zeros(1, num_channels)])
    black = num_images * height * width
    return pixels.index_select(0, pixel.masked_fill_(outside, black).flatten()).view_as(images)


class RandomMotion(A.ImageOnlyTransform):  # type: ignore[misc]
    """A random motion as a transform of albumentations."""

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__(p=1.0)
        self.config = config

    def get_params(self) -> dict[str, Any]:
        """Draw the arguments of :meth:`apply`."""
        return {"motion": self.draw(self.random_generator)}

    def apply(self, img: Pixels, motion: Motion, **_params: object) -> Pixels:
        """Move an image."""
        return move(img, motion)

    def draw(self, generator: np.random.Generator) -> Motion:
        """Draw a motion."""
        # All six numbers every time, so that one setting does not change the draws of the others.
        hflip, vflip, angle, scale, right, down = generator.random(6).tolist()
        translate = self.config.translate
        return Motion(
            hflip=hflip < self.config.hflip,
            vflip=vflip < self.config.vflip,
            angle=angle * self.config.rotate,
            scale=1.0 + (2.0 * scale - 1.0) * self.config.scale,
            shift=((2.0 * right - 1.0) * translate, (2.0 * down - 1.0) * translate),
        )


class CellAugmentation:
    """The augmentation of a training cell.

    The draws depend only on the seed: run, epoch and index of the cell, from 0 to 2**64 - 1.
    albumentations ignores global seeds and repeats one stream in every worker; here its generators
    are seeded for each cell.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.motion = RandomMotion(config)
        transforms: list[A.BasicTransform] = [self.motion]
        if config.color > 0:
            # After the motion, so that its black fill changes like the cell's background.
            around, hue = (1.0 - config.color, 1.0 + config.color), (-config.color, config.color)
            transforms.append(A.ColorJitter(around, around, around, hue, p=1.0))
        self.pipeline = A.Compose(transforms)

    def __call__(self, image: Pixels, *, seed: tuple[int, int, int]) -> Pixels:
        """Return a changed copy of an image, H x W x 3."""
        run, epoch, index = seed
        python = random.Random((run << 128) | (epoch << 64) | index)  # noqa: S311 (no secret)
        # Compose.set_random_seed would give all transforms the same stream.
        self.pipeline.set_random_state(_generator(seed), python)
        changed: Pixels = self.pipeline(image=image)["image"]
        return changed

    def draw(self, seed: tuple[int, int, int]) -> Motion:
        """Return the motion of a call with this seed, for a device to apply it."""
        return self.motion.draw(_generator(seed))


def _generator(seed: tuple[int, int, int]) -> np.random.Generator:
    # Philox is a function of key and counter: run and epoch select the stream, the cell a place in
    # it that is 2**192 draws from the next.
    key = np.array(seed[:2], dtype=np.uint64)
    counter = np.array([0, 0, 0, seed[2]], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))

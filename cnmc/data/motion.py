"""Flip, rotate, scale and shift images in one motion: one on the CPU, or a batch on any device.

OpenCV moves one image; :func:`warp` moves a batch. Both resample by nearest neighbour with black
fill, in the same fixed-point arithmetic: the host rounds, and the device only adds and compares
integers. A motion therefore gives the same pixels on every device, and those of OpenCV on x86-64;
on other processors OpenCV may round a source between two pixels differently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Image = npt.NDArray[np.uint8]

_BITS = 10
"""Binary places of OpenCV's coordinates."""


@dataclass(frozen=True)
class Motion:
    """One flip, rotation, scale and shift, in this order.

    Attributes:
        hflip: Whether to exchange left and right.
        vflip: Whether to exchange top and bottom.
        angle: Counter-clockwise rotation about the centre of the image in degrees.
        scale: Factor about the centre.
        shift: Shift to the right and down, as shares of width and height.
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

    def sources(self, height: int, width: int) -> npt.NDArray[np.int32]:
        """Return from where the pixels of a moved image come, for :func:`warp`.

        The source of a pixel is linear in its row and its column: one term for each is enough.

        Returns:
            2 x (height + width): the terms of x, then those of y, of the rows and then of the
            columns; in units of 2**-10 pixels, half a pixel added for rounding down.
        """
        inverse = cv2.invertAffineTransform(self.matrix(height, width))
        by_column, by_row, offset = inverse[:, :1], inverse[:, 1:2], inverse[:, 2:]
        rows = np.rint((by_row * np.arange(height) + offset) * 2**_BITS) + 2 ** (_BITS - 1)
        columns = np.rint(by_column * np.arange(width) * 2**_BITS)
        return np.concatenate([rows, columns], axis=1).astype(np.int32)


def move(image: Image, motion: Motion) -> Image:
    """Apply a motion by nearest neighbour with black fill.

    Args:
        image: H x W x 3, uint8.
        motion: The motion.

    Returns:
        A new image of the same shape.
    """
    height, width = image.shape[:2]
    # A pixel of four bytes moves as one number, in two thirds of the time of three bytes.
    packed = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.float32)[..., 0]
    moved = cv2.warpAffine(
        packed,
        motion.matrix(height, width),
        (width, height),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.0,
    )
    unpacked = np.asarray(moved).view(np.uint8).reshape(height, width, 4)
    return np.asarray(cv2.cvtColor(unpacked, cv2.COLOR_RGBA2RGB), dtype=np.uint8)


def warp(images: Tensor, sources: Tensor) -> Tensor:
    """Apply a motion to each image of a batch by one gather, as :func:`move` does to one image.

    Args:
        images: B x H x W x C, any dtype, on any device.
        sources: B x 2 x (H + W), int32, on the same device: :meth:`Motion.sources` of each image.

    Returns:
        New images of the same shape and dtype.
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

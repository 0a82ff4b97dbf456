"""Test-time rotations: the network looks at several turned copies of each cell.

Section 4.1 of the paper averages the output over eight rotated versions of an image. Here they are
made on the device from the uint8 batch, as a pure function of (network, images), and the logits
are returned one by one: the mean over fewer views, NOROT among them, follows without a second
pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cnmc.errors import CnmcError

ROTATION_COUNTS = (1, 2, 4, 8)
"""The numbers of equally spaced rotations that are multiples of 45 degrees."""

_PIXELS_AT_ONCE = 4 * 300 * 300


def rotation_columns(num_rotations: int) -> tuple[int, ...]:
    """Return the angles of a set of rotations, in eighths of a turn.

    The numbers are also the columns ``logit_0`` to ``logit_7`` of a table of predictions.

    Examples:
        >>> rotation_columns(4)
        (0, 2, 4, 6)

    Raises:
        CnmcError: The number is not 1, 2, 4 or 8.
    """
    if num_rotations not in ROTATION_COUNTS:
        raise CnmcError(f"tta.num_rotations={num_rotations}: expected one of 1, 2, 4, 8")
    return tuple(range(0, 8, 8 // num_rotations))


def rotate(images: Tensor, num_eighths: int) -> Tensor:
    """Rotate square images about their centre, counter-clockwise.

    Nearest neighbour; corners that come from outside the image are black. The pixels are those of
    Pillow's ``Image.rotate``, with which the paper's published code turned its images.

    Args:
        images: B x C x S x S, any dtype.
        num_eighths: Angle in units of 45 degrees; any whole number.

    Returns:
        The rotated images, same shape and dtype.

    Raises:
        ValueError: The images are not square.
    """
    size = images.shape[-1]
    if images.ndim != 4 or images.shape[-2] != size:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected B x C x S x S")
    num_eighths %= 8
    if num_eighths % 2 == 0:
        return torch.rot90(images, num_eighths // 2, dims=(2, 3))
    source, outside = _gather_index(size, num_eighths, str(images.device))
    rotated = images.flatten(2).index_select(2, source)
    return rotated.masked_fill_(outside, 0).view_as(images)


def rotated_views(images: Tensor, num_rotations: int) -> Iterator[Tensor]:
    """Yield the rotations of a batch one after another, the original first.

    Args:
        images: B x C x S x S, any dtype.
        num_rotations: 1, 2, 4 or 8, equally spaced over the circle.
    """
    for num_eighths in rotation_columns(num_rotations):
        yield rotate(images, num_eighths)


def images_at_once(size: int) -> int:
    """Return how many images a CPU takes through a network in the least time.

    So few that the memory of a layer is used again for the next; a power of 2, so that the batches
    of an evaluation are cut evenly.

    Args:
        size: Side of the images in pixels.
    """
    return 1 << max(0, (_PIXELS_AT_ONCE // size**2).bit_length() - 1)


def predict_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    num_rotations: int,
    preprocess: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return one logit for each rotation of each image.

    The rotations are made of the bytes, before any normalisation, so that the fill is the black of
    the cells' own background. One rotation is in memory at a time.

    Args:
        network: Maps B x C x S x S floats to B or B x 1 logits; a module must be in evaluation
            mode.
        images: uint8, B x C x S x S, the cropped cells.
        num_rotations: 1, 2, 4 or 8.
        preprocess: Maps bytes to the network's input: :func:`~cnmc.model.preprocess.to_float`.

    Returns:
        float32, B x num_rotations; column k belongs to ``rotation_columns(num_rotations)[k]``. The
        prediction of the paper is positive where the mean over a row is above 0.
    """
    columns = [
        network(preprocess(view)).reshape(len(images)).float()
        for view in rotated_views(images, num_rotations)
    ]
    return torch.stack(columns, dim=1)


@lru_cache(maxsize=32)
def _gather_index(size: int, num_eighths: int, device: str) -> tuple[Tensor, Tensor]:
    """Return, for each pixel of a rotated image, its source and whether that lies outside.

    Args:
        size: Side of the image in pixels.
        num_eighths: Odd multiple of 45 degrees, 1 to 7.
        device: Where the tensors shall lie.

    Returns:
        Flat source indices, int64, and a mask of the pixels without a source; both size * size.
    """
    # Pillow's arithmetic: numbers of 16 binary places, pixel i with its centre at i + 1/2, the y
    # axis pointing down. Integers give the same pixels on every machine, also where the source of
    # a pixel lies on the border between two others, as on a diagonal.
    cos = math.copysign(math.sqrt(0.5), math.cos(num_eighths * math.pi / 4))
    sin = math.copysign(math.sqrt(0.5), math.sin(num_eighths * math.pi / 4))
    middle = (size - 1) / 2
    y, x = np.mgrid[:size, :size]
    column = _fixed(cos) * x - _fixed(sin) * y + _fixed(size / 2 - (cos - sin) * middle) >> 16
    row = _fixed(sin) * x + _fixed(cos) * y + _fixed(size / 2 - (sin + cos) * middle) >> 16
    outside = (column < 0) | (column >= size) | (row < 0) | (row >= size)
    source = np.where(outside, 0, row * size + column)
    # A tensor that is created in inference mode could not take part in training later.
    with torch.inference_mode(False):
        return (
            torch.from_numpy(source.ravel()).to(device),
            torch.from_numpy(outside.ravel()).to(device),
        )


def _fixed(value: float) -> int:
    """Return a number in units of 2**-16."""
    return math.floor(value * 65536 + 0.5)

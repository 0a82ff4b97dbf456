"""Test-time rotations (section 4.1 of the paper): one logit for each rotation of an image.

The rotations are made on the device from the uint8 batch. All logits are returned, so that the
mean over fewer rotations (such as NOROT) needs no second pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cnmc.errors import CnmcError

_PIXELS_AT_ONCE = 4 * 300 * 300


def rotation_columns(num_rotations: int) -> tuple[int, ...]:
    """Return the angles of equally spaced rotations in units of 45 degrees.

    They are also the numbers of the columns ``logit_0`` to ``logit_7`` of a prediction table.

    Examples:
        >>> rotation_columns(4)
        (0, 2, 4, 6)

    Raises:
        CnmcError: The number is not 1, 2, 4 or 8.
    """
    if num_rotations not in (1, 2, 4, 8):
        raise CnmcError(f"tta.num_rotations={num_rotations}: expected one of 1, 2, 4, 8")
    return tuple(range(0, 8, 8 // num_rotations))


def rotate(images: Tensor, num_eighths: int) -> Tensor:
    """Rotate square images counter-clockwise about their center.

    Pixels are equal to those of Pillow's ``Image.rotate``, which the paper's published code uses:
    nearest neighbor, black where a pixel has no source.

    Args:
        images: B x C x S x S, any dtype.
        num_eighths: Angle in units of 45 degrees, any integer.

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


def images_at_once(size: int) -> int:
    """Return the batch size that a CPU evaluates fastest: small enough to reuse cached memory.

    Args:
        size: Side of the images in pixels.

    Returns:
        A power of 2, so that it divides usual batch sizes.
    """
    return 1 << max(0, (_PIXELS_AT_ONCE // size**2).bit_length() - 1)


def predict_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    num_rotations: int,
    preprocess: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return one logit for each rotation of each image.

    Images are rotated before they are normalized, so that the corners are filled with the black of
    the background. One rotation is in memory at a time.

    Args:
        network: Maps B x C x S x S floats to B or B x 1 logits; a module must be in evaluation
            mode.
        images: uint8, B x C x S x S, the cropped cells.
        num_rotations: 1, 2, 4 or 8.
        preprocess: Maps uint8 images to the network's input
            (:func:`~cnmc.model.preprocess.to_float`).

    Returns:
        float32, B x num_rotations. Column k belongs to ``rotation_columns(num_rotations)[k]``. The
        paper predicts the positive class where the mean over a row is above 0.
    """
    columns = [
        network(preprocess(rotate(images, num_eighths))).reshape(len(images)).float()
        for num_eighths in rotation_columns(num_rotations)
    ]
    return torch.stack(columns, dim=1)


@lru_cache(maxsize=32)
def _gather_index(size: int, num_eighths: int, device: str) -> tuple[Tensor, Tensor]:
    """Return the flat source index of each rotated pixel, and whether it is outside the image.

    Args:
        size: Side of the image in pixels.
        num_eighths: Odd multiple of 45 degrees, 1 to 7.
        device: Device of the result.

    Returns:
        int64 and bool, both of length size * size.
    """
    # Pillow's fixed-point arithmetic: 16 binary places, pixel centers at i + 1/2, y pointing down.
    # Integers give the same pixels on every machine.
    cos = math.copysign(math.sqrt(0.5), math.cos(num_eighths * math.pi / 4))
    sin = math.copysign(math.sqrt(0.5), math.sin(num_eighths * math.pi / 4))
    middle = (size - 1) / 2
    y, x = np.mgrid[:size, :size]
    column = _fixed(cos) * x - _fixed(sin) * y + _fixed(size / 2 - (cos - sin) * middle) >> 16
    row = _fixed(sin) * x + _fixed(cos) * y + _fixed(size / 2 - (sin + cos) * middle) >> 16
    outside = (column < 0) | (column >= size) | (row < 0) | (row >= size)
    source = np.where(outside, 0, row * size + column)
    # Autograd cannot use tensors that were created in inference mode.
    with torch.inference_mode(False):
        return (
            torch.from_numpy(source.ravel()).to(device),
            torch.from_numpy(outside.ravel()).to(device),
        )


def _fixed(value: float) -> int:
    """Return a number in units of 2**-16."""
    return math.floor(value * 65536 + 0.5)

"""Test-time rotations (section 4.1 of the paper): one logit for each rotation of an image.

The rotations are made on the device from the uint8 batch. All logits are returned, so that the
mean over fewer rotations (such as NOROT) needs no second pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cnmc.errors import CnmcError

_PIXELS_AT_ONCE = 4 * 300 * 300
"""So few that a CPU reuses its cached memory."""


def to_float(
    images: Tensor,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Scale images, B x C x H x W uint8, to [0, 1]; the paper does no more.

    With the mean and standard deviation of each channel, in units of [0, 1], normalize too.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images of {images.dtype}: expected torch.uint8")
    scaled = images.to(torch.float32, memory_format=memory_format).div_(255.0)
    if mean is None or std is None:
        return scaled
    # The copies need not wait for the device, since their source is not pinned memory.
    shift, divisor = (
        torch.tensor(values, dtype=scaled.dtype).view(-1, 1, 1).to(scaled.device, non_blocking=True)
        for values in (mean, std)
    )
    return scaled.sub_(shift).div_(divisor)


def rotation_columns(num_rotations: int) -> tuple[int, ...]:
    """Return the angles of 1, 2, 4 or 8 equally spaced rotations, in units of 45 degrees.

    They are also the numbers of the columns ``logit_0`` to ``logit_7`` of a prediction table.
    """
    if num_rotations not in (1, 2, 4, 8):
        raise CnmcError(f"tta.num_rotations={num_rotations}: expected one of 1, 2, 4, 8")
    return tuple(range(0, 8, 8 // num_rotations))


def rotate(images: Tensor, num_eighths: int) -> Tensor:
    """Rotate square images counter-clockwise about their center by multiples of 45 degrees.

    Pixels are equal to those of Pillow's ``Image.rotate``, which the paper's published code uses:
    nearest neighbor, black where a pixel has no source. Images are B x C x S x S, any dtype.
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
    """Return the number of images, of a side in pixels, that a CPU evaluates fastest together.

    It is a power of 2, so that it divides usual batch sizes.
    """
    return 1 << max(0, (_PIXELS_AT_ONCE // size**2).bit_length() - 1)


def predict_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    num_rotations: int,
    preprocess: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return one logit for each rotation of each image, B x num_rotations float32.

    Images are B x C x S x S uint8; ``preprocess`` (such as :func:`to_float`) makes them the input
    of the network. They are rotated before they are normalized, so that the corners are filled with
    the black of the background. Column k belongs to ``rotation_columns(num_rotations)[k]``; the
    paper predicts the positive class where the mean over a row is above 0.
    """
    columns = [
        network(preprocess(rotate(images, num_eighths))).reshape(len(images)).float()
        for num_eighths in rotation_columns(num_rotations)
    ]
    return torch.stack(columns, dim=1)


@lru_cache(maxsize=32)
def _gather_index(size: int, num_eighths: int, device: str) -> tuple[Tensor, Tensor]:
    """Return the flat source index of each pixel after an odd multiple of 45 degrees.

    The second tensor marks the pixels whose source is outside the image.
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

"""Conversion of uint8 images to the input of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_float(
    images: Tensor,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Scale images to [0, 1] and, if mean and std are given, normalize each channel.

    The paper does not normalize; ``mean`` and ``std`` are for networks whose ImageNet weights
    expect it.

    Args:
        images: uint8, B x C x H x W, 0 to 255. Images travel to the device as bytes, which are a
            quarter of the size of floats.
        mean: Mean of each channel in units of [0, 1].
        std: Standard deviation of each channel in units of [0, 1], above 0.
        memory_format: Memory layout of the result.

    Returns:
        float32, B x C x H x W.

    Raises:
        TypeError: The images are not uint8.
        ValueError: Only one of ``mean`` and ``std`` is given.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images of {images.dtype}: expected torch.uint8")
    if (mean is None) != (std is None):
        raise ValueError("mean and std go together: give both or neither")
    scaled = images.to(torch.float32, memory_format=memory_format).div_(255.0)
    if mean is None or std is None:
        return scaled
    # The copies need not wait for the device, since their source is not pinned memory.
    shift, divisor = (
        torch.tensor(values, dtype=scaled.dtype).view(-1, 1, 1).to(scaled.device, non_blocking=True)
        for values in (mean, std)
    )
    return scaled.sub_(shift).div_(divisor)

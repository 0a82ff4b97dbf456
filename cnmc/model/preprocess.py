"""From the bytes of a cell image to the numbers that a network sees."""

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
    """Scale bytes to [0, 1] and, where asked, normalise each channel.

    The paper's network sees [0, 1] as it is; ``mean`` and ``std`` serve networks whose ImageNet
    weights expect otherwise.

    Args:
        images: uint8, B x C x H x W, 0 to 255. They travel to the device as bytes: a quarter of
            the size of floats.
        mean: C numbers in units of [0, 1] that are subtracted; None for neither.
        std: C numbers above 0 that divide the difference; None for neither.
        memory_format: Layout of the result. In another, convolutions round differently.

    Returns:
        float32, B x C x H x W.

    Raises:
        TypeError: The images are not uint8: they would be scaled a second time.
        ValueError: Only one of ``mean`` and ``std`` is given.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images of {images.dtype}: expected torch.uint8")
    if (mean is None) != (std is None):
        raise ValueError("mean and std go together: give both or neither")
    # In one memory layout, whatever that of the bytes.
    scaled = images.to(torch.float32, memory_format=memory_format).div_(255.0)
    if mean is None or std is None:
        return scaled
    # In place on a tensor made here: an evaluation batch of full-size cells is large.
    # Not waited for: they are copied out of memory that is not pinned, so at once.
    shift, divisor = (
        torch.tensor(values, dtype=scaled.dtype).view(-1, 1, 1).to(scaled.device, non_blocking=True)
        for values in (mean, std)
    )
    return scaled.sub_(shift).div_(divisor)

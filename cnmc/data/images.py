"""Pixels of one cell: decoding, central crop and resizing, the same wherever a cell is read."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Pixels = NDArray[np.uint8]


class UnreadableImageError(Exception):
    """The bytes are no image, or only a part of one; the message says which, in a few words."""


def decode(data: bytes) -> Pixels:
    """Decode an image file.

    Args:
        data: The whole file.

    Returns:
        Red, green and blue in [0, 255], of shape (height, width, 3).

    Raises:
        UnreadableImageError: The file is empty, no image, or ends too early.
    """
    if not data:
        raise UnreadableImageError("empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image") from error
    # Pillow reports damage by exceptions of many kinds, depending on where the file ends.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(reason) from error


def center_crop(pixels: Pixels, size: int) -> Pixels:
    """Cut the central square out of an image.

    Args:
        pixels: Shape (height, width, 3), each side at least ``size``.
        size: Side of the square in pixels; where the margin is odd, the larger half is below and
            on the right.

    Returns:
        Shape (size, size, 3), a view.

    Raises:
        ValueError: The image is smaller than the square.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"{width} x {height} pixels are smaller than the crop of {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def crop_and_resize(pixels: Pixels, *, crop: int, resize: int | None) -> Pixels:
    """Bring an image to the size that the network sees.

    Args:
        pixels: Shape (height, width, 3), values in [0, 255].
        crop: Side of the central square in pixels (section 2 of the paper: 300).
        resize: Side in pixels to which the square is brought by averaging over areas; None
            leaves it as it is.

    Returns:
        Shape (side, side, 3), where side is ``resize`` or else ``crop``.

    Raises:
        ValueError: The image is smaller than the crop.
    """
    square = center_crop(pixels, crop)
    if resize is None or resize == crop:
        return square
    resized = cv2.resize(square, (resize, resize), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)

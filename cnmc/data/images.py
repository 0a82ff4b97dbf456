"""Pixels of one cell: reading, decoding, central crop and resizing, for training and screening."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

Pixels = NDArray[np.uint8]

SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Ends of the names of image files, in lower case."""

_FORMATS = ("BMP", "DIB", "PNG", "JPEG", "TIFF")
_MODES = ("L", "LA", "La", "RGB", "RGBA", "RGBa", "P", "PA")
_MAX_BYTES = 64 * 2**20
_MAX_PIXELS = 16_000_000


class UnreadableImageError(Exception):
    """A file cannot be used as the image of a cell; the message gives the reason in a few words."""


def read_file(path: Path) -> bytes:
    """Return the content of a regular file of at most 64 MB, or raise UnreadableImageError."""
    try:
        if path.is_symlink() and not path.exists():
            raise UnreadableImageError("broken link")
        status = path.stat()
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a regular file")
        if status.st_size > _MAX_BYTES:
            raise UnreadableImageError(f"larger than {_MAX_BYTES // 2**20} MB")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read ({error.strerror})") from error


def decode(data: bytes) -> Pixels:
    """Decode a BMP, PNG, JPEG or TIFF file of 8 bits a channel to RGB, height x width x 3.

    Palettes become their colours, transparent pixels become black (the background of segmented
    cells), and the orientation in the EXIF data is applied.

    Raises:
        UnreadableImageError: The file is empty, damaged, of another format, colour space or bit
            depth, has several images or more than 16 million pixels.
    """
    if not data:
        raise UnreadableImageError("empty file")
    try:
        # Without a list of formats Pillow would start Ghostscript for an EPS file.
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check(image)
            # np.asarray hides damage that load reports.
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if "transparency" in image.info or image.mode[-1] in "aA":
                black = Image.new("RGBA", image.size, (0, 0, 0, 255))
                visible = Image.alpha_composite(black, image.convert("RGBA"))
                return np.asarray(visible.convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError("too many pixels for one cell") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError("not an image (BMP, PNG, JPEG or TIFF)") from error
    # Pillow reports damage by exceptions of many kinds, depending on where the file ends.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableImageError(f"damaged ({reason})") from error


def center_crop(pixels: Pixels, size: int) -> Pixels:
    """Return the central square of an image, as a view; ValueError if the image is smaller."""
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"{width} x {height} pixels are smaller than the crop of {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def crop_and_resize(pixels: Pixels, *, crop: int, resize: int | None) -> Pixels:
    """Cut out the central square and resize it by area averaging; None keeps its size."""
    square = center_crop(pixels, crop)
    if resize is None or resize == crop:
        return square
    resized = cv2.resize(square, (resize, resize), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def _check(image: Image.Image) -> None:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise UnreadableImageError(f"{width} x {height}: too many pixels for one cell")
    num_images = getattr(image, "n_frames", 1)
    if num_images > 1:
        raise UnreadableImageError(f"{num_images} images in one file; expected one")
    if (bits := _bits(image)) != 8:
        raise UnreadableImageError(f"{bits} bits a channel; expected 8")
    if image.mode not in _MODES:
        raise UnreadableImageError(f"colours are {image.mode}; expected grey or RGB")


def _bits(image: Image.Image) -> int:
    """Return the bits of a channel in the file: Pillow converts 16-bit RGB to 8 bits."""
    if isinstance(image, PngImagePlugin.PngImageFile) and image.mode != "P":
        # The raw mode of the first tile, as in "RGB;16B" or "L;4".
        depth = str(image.tile[0].args).partition(";")[2].rstrip("B")
        return int(depth) if depth else (1 if image.mode == "1" else 8)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)
        return int(max(bits) if isinstance(bits, tuple) else bits)
    return 8

"""Reading an image of a cell that nobody has checked before."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffTags import TAGS_V2

from cnmc.data.images import Pixels, UnreadableImageError

_FORMATS = ("BMP", "DIB", "PNG", "JPEG", "TIFF")
_MODES = ("L", "LA", "La", "RGB", "RGBA", "RGBa", "P", "PA")
_MAX_BYTES = 2**26
_MAX_PIXELS = 16_000_000
"""Larger images are none of a single cell. One of this size takes some 200 MB while it is read, and
several are read at a time."""
# Pillow warns of some of them before they are refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
_BITS_PER_SAMPLE = next(tag for tag, info in TAGS_V2.items() if info.name == "BitsPerSample")


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        UnreadableImageError: It cannot be read; the message says why in a few words.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise UnreadableImageError("a link that leads nowhere")
        # Reading from a pipe would wait for ever.
        if not path.is_file():
            raise UnreadableImageError("not a regular file")
        if path.stat().st_size > _MAX_BYTES:
            raise UnreadableImageError(f"larger than {_MAX_BYTES // 2**20} MB")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"cannot be read ({error.strerror})") from error


def digest(data: bytes) -> str:
    """Return 32 hexadecimal digits that stand for the content of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def decode_checked(data: bytes, smallest: int) -> Pixels:
    """Decode an image, and refuse what a network could only misread.

    Palettes become their colours; transparency shows black, the background of segmented cells; the
    orientation that a camera notes is applied, so that the cell stands as everywhere else.

    Args:
        data: The whole file: BMP, PNG, JPEG or TIFF.
        smallest: Pixels that each side must have.

    Returns:
        Red, green and blue in [0, 255], of shape (height, width, 3).

    Raises:
        UnreadableImageError: The file is empty, damaged, of another kind, of more than 8 bits a
            channel, of several images, or too small; the message says which in a few words.
    """
    if not data:
        raise UnreadableImageError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check(image, data, smallest)
            # Damage shows here; numpy may hide it.
            image.load()
            # Whole copies are avoided: the image may be large.
            ImageOps.exif_transpose(image, in_place=True)
            upright: Image.Image = image
            if "transparency" in image.info or image.mode[-1] in "aA":
                over = image.convert("RGBA")
                black = Image.new("RGBA", over.size, (0, 0, 0, 255))
                upright = Image.alpha_composite(black, over)
            return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
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


def _check(image: Image.Image, data: bytes, smallest: int) -> None:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise UnreadableImageError(f"{width} x {height}: too many pixels for one cell")
    num_images = getattr(image, "n_frames", 1)
    if num_images > 1:
        raise UnreadableImageError(f"{num_images} images in one file; expected one")
    if (bits := _bits(image, data)) != 8:
        raise UnreadableImageError(f"{bits} bits a channel; expected 8")
    if image.mode not in _MODES:
        raise UnreadableImageError(f"colours are {image.mode}; expected grey or RGB")
    if min(width, height) < smallest:
        raise UnreadableImageError(
            f"{width} x {height} pixels, smaller than the crop of {smallest}"
        )


def _bits(image: Image.Image, data: bytes) -> int:
    """Return the bits of a channel as the file has them: Pillow reads 16-bit RGB as 8-bit."""
    if image.format == "PNG" and image.mode != "P":
        return data[24]  # of the header, which always comes first
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 1)
        return int(max(bits) if isinstance(bits, tuple) else bits)
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;") else 8)

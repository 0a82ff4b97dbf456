from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cnmc.data.images import (
    Pixels,
    UnreadableImageError,
    center_crop,
    crop_and_resize,
    decode,
    read_file,
)

from .trees import pixels

COLOUR = pixels(0, 20, 24)
IMAGE = Image.fromarray(COLOUR)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode16(kind: str, *channels: int) -> bytes:
    return cv2.imencode(kind, np.full((20, 24, *channels), 40_000, dtype=np.uint16))[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def with_chunk_before_header(png: bytes) -> bytes:
    return png[:8] + chunk(b"teXt", b"\x08" * 40) + png[8:]


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header promises more than follows."""
    data = encode(Image.new("L", (1, 1)), "PNG")
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def half_transparent(image: Image.Image) -> Image.Image:
    alpha = np.zeros(COLOUR.shape[:2], dtype=np.uint8)
    alpha[:10] = 255
    image.putalpha(Image.fromarray(alpha))
    return image


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF"])
def test_pixels_are_kept_in_rgb_order(kind: str, mode: str) -> None:
    image = IMAGE.convert(mode)
    expected = np.asarray(image).reshape(20, 24, -1) * np.ones((1, 1, 3), dtype=np.uint8)
    decoded = decode(encode(image, kind))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected if mode == "L" else COLOUR)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_keeps_smooth_colours(mode: str) -> None:
    rows, columns = np.mgrid[:20, :24]
    smooth = np.stack([5 * rows + 40, 8 * columns, 250 - 6 * rows], axis=2).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    data = encode(image, "JPEG", quality=95, **({"subsampling": 0} if mode == "RGB" else {}))
    assert np.abs(decode(data) - np.asarray(image.convert("RGB")).astype(int)).max() < 12


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_deflate"])
def test_a_compressed_tiff_is_read(compression: str) -> None:
    data = encode(Image.new("RGB", (24, 20), (120, 60, 200)), "TIFF", compression=compression)
    assert np.abs(decode(data).astype(int) - (120, 60, 200)).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_black(kind: str, mode: str) -> None:
    image = half_transparent(IMAGE.convert(mode))
    decoded = decode(encode(image, kind))
    np.testing.assert_array_equal(decoded[:10], np.asarray(image.convert("RGB"))[:10])
    assert not decoded[10:].any()


@pytest.mark.parametrize("kind", ["BMP", "PNG"])
def test_a_palette_becomes_its_colours(kind: str) -> None:
    image = IMAGE.quantize(16)
    np.testing.assert_array_equal(decode(encode(image, kind)), np.asarray(image.convert("RGB")))


def test_the_orientation_of_the_camera_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image = Image.fromarray(np.full((20, 24, 3), 90, dtype=np.uint8))
    image.paste((250, 250, 250), (0, 0, 12, 20))
    decoded = decode(encode(image, "JPEG", exif=exif, quality=95))
    assert decoded.shape == (24, 20, 3)
    assert decoded[:8].min() > 200
    assert decoded[-8:].max() < 120


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "not an image"),
        (encode(IMAGE, "GIF"), "not an image"),
        (encode(IMAGE, "WEBP"), "not an image"),
        (encode(IMAGE, "EPS"), "not an image"),
        (encode(IMAGE, "PNG")[:-200], "damaged"),
        (encode(IMAGE, "TIFF")[:100], "damaged|not an image"),
        (encode16(".png", 3), "16 bits"),
        (encode16(".png"), "16 bits"),
        (with_chunk_before_header(encode16(".png", 3)), "16 bits"),
        (encode16(".tiff", 3), "16 bits"),
        (encode16(".tiff"), "16 bits"),
        (encode(IMAGE.convert("1"), "PNG"), "1 bits"),
        (encode(IMAGE.convert("1"), "TIFF"), "1 bits"),
        (encode(IMAGE.convert("CMYK"), "JPEG"), "CMYK"),
        (encode(IMAGE.convert("CMYK"), "TIFF"), "CMYK"),
        (encode(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]), "2 images"),
        (encode(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(180)]), "2 images"),
        (png_of_size(4001, 4000), "too many pixels"),
        (png_of_size(13_000, 13_000), "too many pixels"),
        (png_of_size(100_000, 100_000), "damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unsuitable_images_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_bytes", [1, 10, 30, 54, 55, 1000, -1])
def test_a_file_cut_anywhere_is_refused(num_bytes: int) -> None:
    with pytest.raises(UnreadableImageError):
        decode(encode(IMAGE, "BMP")[:num_bytes])


def test_only_regular_files_of_limited_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**26 + 1)
    for path in (*tmp_path.iterdir(), Path("/dev/zero"), tmp_path, tmp_path / "missing"):
        with pytest.raises(UnreadableImageError):
            read_file(path)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(10, 10, 4), (11, 8, 4), (7, 7, 7), (5, 6, 5)]
)
def test_central_crop(height: int, width: int, size: int) -> None:
    image = pixels(0, height, width)
    top, left = (height - size) // 2, (width - size) // 2
    cropped = center_crop(image, size)
    np.testing.assert_array_equal(cropped, image[top : top + size, left : left + size])
    # As many pixels are lost on both sides, up to one.
    assert 0 <= (height - size - top) - top <= 1


def test_a_crop_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"6 x 5 .* 6"):
        center_crop(pixels(0, 5, 6), 6)


def test_resizing_to_the_size_of_the_crop_changes_nothing() -> None:
    image: Pixels = pixels(0)
    np.testing.assert_array_equal(
        crop_and_resize(image, crop=30, resize=30), center_crop(image, 30)
    )

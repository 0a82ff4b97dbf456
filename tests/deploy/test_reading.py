"""Every kind of file that a folder may hold, and what no cell of training looks like."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cnmc.data.images import Pixels, UnreadableImageError, decode
from cnmc.deploy.reading import decode_checked
from cnmc.deploy.typical import measure, warnings_of

COLOUR = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF"])
def test_colours_and_greys_are_read_as_they_are(kind: str) -> None:
    image = Image.fromarray(COLOUR)
    assert np.array_equal(decode_checked(encode(image, kind), 20), COLOUR)
    grey = image.convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
    assert np.array_equal(decode_checked(encode(grey, kind), 20), expected)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_nearly_as_it_was(mode: str) -> None:
    # Smooth, as JPEG rounds away what is not; other in each channel, so that swapped ones tell.
    rows, columns = np.mgrid[:20, :24]
    smooth = np.stack([5 * rows + 40, 8 * columns, 250 - 6 * rows], axis=2).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    expected = np.asarray(image.convert("RGB")).astype(int)
    data = encode(image, "JPEG", quality=95, **({"subsampling": 0} if mode == "RGB" else {}))
    pixels = decode_checked(data, 20)
    assert pixels.shape == (20, 24, 3)
    assert np.abs(pixels - expected).max() < 12
    if mode == "L":
        assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_that_is_transparent_is_black(kind: str) -> None:
    image = Image.fromarray(COLOUR).convert("LA")
    alpha = np.zeros(COLOUR.shape[:2], dtype=np.uint8)
    alpha[:10] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = decode_checked(encode(image, kind), 20)
    grey = np.asarray(image.getchannel("L"))[..., None]
    assert (pixels[:10] == grey[:10]).all()
    assert not pixels[10:].any()


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_deflate"])
def test_a_compressed_tiff_is_read(compression: str) -> None:
    flat = Image.new("RGB", (24, 20), (120, 60, 200))
    data = encode(flat, "TIFF", compression=compression)
    assert np.abs(decode_checked(data, 20).astype(int) - (120, 60, 200)).max() < 6


def test_what_is_transparent_is_black() -> None:
    image = Image.fromarray(COLOUR).convert("RGBA")
    alpha = np.zeros(COLOUR.shape[:2], dtype=np.uint8)
    alpha[:, :10] = 255
    image.putalpha(Image.fromarray(alpha))
    for kind in ("PNG", "TIFF"):
        pixels = decode_checked(encode(image, kind), 20)
        assert np.array_equal(pixels[:, :10], COLOUR[:, :10])
        assert not pixels[:, 10:].any()


def test_a_palette_becomes_its_colours() -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode_checked(encode(image, "PNG"), 20), expected)


def test_a_cell_stands_as_its_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    image = Image.fromarray(np.full((20, 24, 3), 90, dtype=np.uint8))
    image.paste((250, 250, 250), (0, 0, 12, 20))
    pixels = decode_checked(encode(image, "JPEG", exif=exif, quality=95), 20)
    assert pixels.shape == (24, 20, 3)
    assert pixels[:8].min() > 200
    assert pixels[-8:].max() < 120


def png16(colour: bool) -> bytes:
    shape = (20, 24, 3) if colour else (20, 24)
    return cv2.imencode(".png", np.full(shape, 40_000, dtype=np.uint16))[1].tobytes()


def tiff16(colour: bool) -> bytes:
    shape = (20, 24, 3) if colour else (20, 24)
    return cv2.imencode(".tiff", np.full(shape, 40_000, dtype=np.uint16))[1].tobytes()


IMAGE = Image.fromarray(COLOUR)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image at all", "not an image"),
        (encode(IMAGE, "GIF"), "not an image"),
        (encode(IMAGE, "BMP")[:-200], "damaged"),
        (encode(IMAGE, "PNG")[:-200], "damaged"),
        (encode(IMAGE, "TIFF")[:100], "damaged|not an image"),
        (png16(colour=True), "16 bits"),
        (png16(colour=False), "16 bits"),
        (tiff16(colour=True), "16 bits"),
        (tiff16(colour=False), "16 bits"),
        (encode(IMAGE.convert("1"), "PNG"), "1 bits"),
        (encode(IMAGE.convert("1"), "TIFF"), "1 bits"),
        (encode(IMAGE.convert("CMYK"), "JPEG"), "CMYK"),
        (encode(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]), "2 images"),
        (
            encode(IMAGE, "PNG", save_all=True, append_images=[IMAGE.convert("L").convert("RGB")]),
            "2 images",
        ),
        (encode(IMAGE.crop((0, 0, 24, 19)), "BMP"), "24 x 19 pixels, smaller than the crop of 20"),
    ],
)
def test_what_a_network_could_only_misread_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode_checked(data, 20)


def _png_of(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of this size, as the size is all that may be looked at."""
    data = encode(Image.new("L", (1, 1)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(
    ("width", "height"), [(4001, 4000), (7000, 7000), (10_000, 12_000), (100_000, 100_000)]
)
def test_an_image_that_would_fill_the_memory_is_refused(width: int, height: int) -> None:
    with pytest.raises(UnreadableImageError, match=r"too many pixels for one cell$") as caught:
        decode_checked(_png_of(width, height), 20)
    assert "\n" not in str(caught.value)


def _larger(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.resize(pixels, None, fx=2, fy=2), dtype=np.uint8)


def _on_white(pixels: Pixels) -> Pixels:
    return np.where(pixels.max(axis=2, keepdims=True) > 0, pixels, 255).astype(np.uint8)


@pytest.mark.real
def test_hardly_any_real_cell_is_warned_about(real_data_root: Path) -> None:
    files = sorted(real_data_root.rglob("*.bmp"))
    warned = sum(bool(warnings_of(measure(decode(path.read_bytes())))) for path in files[::10])
    assert warned <= 0.01 * len(files[::10])


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "warning", "share"),
    [
        (lambda pixels: 255 - pixels, "background not black", 1.0),
        (_on_white, "background not black", 1.0),
        (lambda pixels: pixels[..., [1, 0, 2]], "colour unlike training", 0.95),
        (lambda pixels: pixels[..., ::-1] // 2, "colour unlike training", 1.0),
        (_larger, "cell larger than in training", 0.9),
        (lambda pixels: pixels[::3, ::3], "cell smaller than in training", 0.9),
    ],
)
def test_real_cells_that_were_changed_are_warned_about(
    real_data_root: Path, change: Callable[[Pixels], Pixels], warning: str, share: float
) -> None:
    files = sorted(real_data_root.rglob("*.bmp"))[::40]
    warned = [warning in warnings_of(measure(change(decode(f.read_bytes())))) for f in files]
    assert np.mean(warned) >= share


def test_a_photograph_is_warned_about() -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    pixels = np.asarray(cv2.resize(photograph, (640, 480)), dtype=np.uint8)
    assert "background not black" in warnings_of(measure(pixels))

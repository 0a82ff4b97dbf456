from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cnmc.data.images import UnreadableImageError, center_crop, crop_and_resize, decode

from .trees import pixels


def bmp(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, format="BMP")
    return buffer.getvalue()


def test_decoding_keeps_every_pixel_in_rgb_order() -> None:
    np.testing.assert_array_equal(decode(bmp(3)), pixels(3))


@pytest.mark.parametrize("num_bytes", [0, 1, 10, 30, 54, 55, 3000, len(bmp()) - 1])
def test_a_file_cut_anywhere_is_refused(num_bytes: int) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(bmp()[:num_bytes])
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_reason_is_the_same_every_time() -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(UnreadableImageError) as caught:
            decode(b"no image at all")
        reasons.add(str(caught.value))
    assert reasons == {"not an image"}


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
    with pytest.raises(ValueError, match="6 x 5 pixels are smaller than the crop of 6"):
        center_crop(pixels(0, 5, 6), 6)


def test_resizing_to_the_size_of_the_crop_changes_nothing() -> None:
    image = pixels(0)
    np.testing.assert_array_equal(
        crop_and_resize(image, crop=30, resize=30), center_crop(image, 30)
    )

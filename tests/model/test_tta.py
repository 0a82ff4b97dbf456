from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnmc.errors import CnmcError
from cnmc.model.tta import predict_logits, rotate, rotation_columns, to_float


def noise(size: int, batch: int = 1, seed: int = 0) -> Tensor:
    """Make images without black pixels, which are then only those of the fill."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)


def by_pillow(images: Tensor, num_eighths: int) -> Tensor:
    rotated = [
        np.asarray(
            Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(
                45 * num_eighths, resample=Image.Resampling.NEAREST
            )
        )
        for image in images
    ]
    return torch.from_numpy(np.stack(rotated)).permute(0, 3, 1, 2)


def share_of_equal_pixels(first: Tensor, second: Tensor) -> float:
    return float((first == second).all(dim=1).float().mean())


@pytest.mark.parametrize("size", [1, 2, 33, 64, 300])
@pytest.mark.parametrize("num_eighths", range(8))
def test_views_are_those_of_pillow(size: int, num_eighths: int) -> None:
    images = noise(size, batch=2)
    ours = rotate(images, num_eighths)
    assert torch.equal(ours, by_pillow(images, num_eighths))
    if num_eighths % 2 == 1 and size > 2:
        # Black only in the corners that come from outside: their share is 3 - 2 sqrt(2).
        black = float((ours == 0).all(dim=1).float().mean())
        assert black == pytest.approx(3 - 2 * 2**0.5, abs=2 / size)


@pytest.mark.real
def test_views_of_real_cells_are_those_of_pillow(real_data_root: Path) -> None:
    paths = sorted(real_data_root.rglob("*.bmp"))[::200]
    assert paths
    cells = [np.asarray(Image.open(path).convert("RGB"))[75:375, 75:375] for path in paths]
    images = torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2)
    for num_eighths in range(8):
        assert torch.equal(rotate(images, num_eighths), by_pillow(images, num_eighths))


@pytest.mark.parametrize("size", [7, 8])
def test_turns_add_up(size: int) -> None:
    images = noise(size)
    assert torch.equal(rotate(images, 8), images)
    assert torch.equal(rotate(images, -1), rotate(images, 7))
    assert torch.equal(rotate(rotate(images, 2), 2), rotate(images, 4))
    # Mirrored, 45 degrees go the other way; the pixels on the diagonal lie between two others.
    mirrored = rotate(images.flip(3), 1).flip(3)
    assert share_of_equal_pixels(mirrored, rotate(images, 7)) > 0.8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64, torch.bool])
def test_any_dtype(dtype: torch.dtype) -> None:
    images = noise(17).to(dtype)
    rotated = rotate(images, 3)
    assert rotated.dtype == dtype
    assert torch.equal(rotated, rotate(noise(17), 3).to(dtype))


def test_the_layout_in_memory_does_not_matter() -> None:
    images = noise(16)
    channels_last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for num_eighths in range(8):
        assert torch.equal(rotate(channels_last, num_eighths), rotate(images, num_eighths))
    assert to_float(channels_last).is_contiguous()


def test_index_made_in_inference_mode_serves_training() -> None:
    images = torch.rand(1, 3, 19, 19)
    with torch.inference_mode():
        rotate(images, 1)
    images.requires_grad_()
    rotate(images, 1).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.sum() > 0


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8, 9)])
def test_images_must_be_square_batches(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected B x C x S x S"):
        rotate(torch.zeros(shape), 1)


@pytest.mark.parametrize(
    ("num_rotations", "columns"),
    [(1, (0,)), (2, (0, 4)), (4, (0, 2, 4, 6)), (8, (0, 1, 2, 3, 4, 5, 6, 7))],
)
def test_rotations_are_equally_spaced(num_rotations: int, columns: tuple[int, ...]) -> None:
    assert rotation_columns(num_rotations) == columns


@pytest.mark.parametrize("num_rotations", [0, 3, 16])
def test_other_numbers_of_rotations_are_refused(num_rotations: int) -> None:
    with pytest.raises(CnmcError, match=f"tta.num_rotations={num_rotations}"):
        rotation_columns(num_rotations)


class TestPredictLogits:
    @staticmethod
    def network(images: Tensor) -> Tensor:
        """Weight pixels by position, so that every rotation has another logit."""
        size = images.shape[-1]
        weights = torch.linspace(-1, 1, size * size).view(size, size)
        return (images * weights).mean(dim=(1, 2, 3)).unsqueeze(1)

    @pytest.mark.parametrize("num_rotations", [1, 2, 4, 8])
    def test_a_column_is_the_logit_of_a_rotation(self, num_rotations: int) -> None:
        images = noise(20, batch=3)
        before = images.clone()
        logits = predict_logits(self.network, images, num_rotations, to_float)
        assert logits.shape == (3, num_rotations)
        assert logits.dtype == torch.float32
        for column, num_eighths in enumerate(rotation_columns(num_rotations)):
            expected = self.network(rotate(images, num_eighths).float() / 255).squeeze(1)
            torch.testing.assert_close(logits[:, column], expected)
        assert torch.equal(images, before)
        assert len(set(logits[0].tolist())) == num_rotations

    def test_the_fill_is_black_before_normalisation(self) -> None:
        seen: list[Tensor] = []

        def network(images: Tensor) -> Tensor:
            seen.append(images)
            return images.mean(dim=(1, 2, 3))

        images = torch.full((1, 3, 20, 20), 255, dtype=torch.uint8)
        predict_logits(network, images, 8, lambda x: to_float(x, [0.5] * 3, [0.5] * 3))
        assert all(set(view.flatten().tolist()) <= {-1.0, 1.0} for view in seen)
        assert -1.0 in seen[1].flatten().tolist()


class TestToFloat:
    def test_scales_to_one_and_does_no_more(self) -> None:
        values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
        scaled = to_float(values)
        assert scaled.dtype == torch.float32
        assert torch.equal(scaled.flatten(), torch.arange(256, dtype=torch.float32) / 255)

    def test_normalises_by_channel(self) -> None:
        images = noise(5)
        mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
        normalised = to_float(images, mean, std)
        for channel in range(3):
            expected = (images[:, channel].double() / 255 - mean[channel]) / std[channel]
            torch.testing.assert_close(normalised[:, channel].double(), expected, rtol=0, atol=1e-6)

    def test_refuses_floats(self) -> None:
        with pytest.raises(TypeError, match=r"torch\.float32"):
            to_float(torch.rand(1, 3, 4, 4))

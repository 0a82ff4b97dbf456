"""A motion does the same by OpenCV on one image and by one gather on a batch, pixel for pixel."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as Pillow

from cnmc.data.augment import Motion, move, warp

Image = npt.NDArray[np.uint8]

TIE = 1e-3
"""Pixels from the border between two sources within which rounding decides: OpenCV rounds two
terms to 2**-10 pixels each."""


def noise(height: int, width: int) -> Image:
    """Return an image without black."""
    rng = np.random.default_rng([height, width])
    return rng.integers(1, 256, (height, width, 3), dtype=np.uint8)


def random_motions(num_motions: int, *, scale: float = 0.0) -> list[Motion]:
    rng = np.random.default_rng(num_motions)
    return [
        Motion(
            hflip=bool(rng.integers(2)),
            vflip=bool(rng.integers(2)),
            angle=rng.uniform(0, 360),
            scale=rng.uniform(1 - scale, 1 + scale),
            shift=(rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)),
        )
        for _ in range(num_motions)
    ]


def warp_all(images: Sequence[Image], motions: Sequence[Motion]) -> list[Image]:
    """Move images as one batch."""
    height, width = images[0].shape[:2]
    sources = np.stack([motion.sources(height, width) for motion in motions])
    return list(warp(torch.from_numpy(np.stack(images)), torch.from_numpy(sources)).numpy())


def warped(image: Image, motion: Motion) -> Image:
    return warp_all([image], [motion])[0]


def is_tie(motion: Motion, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels, H x W, whose source lies on the border between two, or nearly so."""
    inverse = cv2.invertAffineTransform(motion.matrix(height, width))
    y, x = np.mgrid[:height, :width]
    source = np.tensordot(inverse, np.stack([x, y, np.ones_like(x)]), axes=1)
    return np.asarray((abs(source % 1 - 0.5) < TIE).any(axis=0))


def assert_same(images: Sequence[Image], motions: Sequence[Motion]) -> None:
    """Compare both ways; ties may differ where OpenCV does not round as on x86-64."""
    for image, motion, ours in zip(images, motions, warp_all(images, motions), strict=True):
        differ = (ours != move(image, motion)).any(axis=2)
        if platform.machine() != "x86_64":
            differ &= ~is_tie(motion, *image.shape[:2])
        assert not differ.any(), f"{motion}: {differ.sum()} of {differ.size} pixels"


class TestMove:
    @pytest.mark.parametrize("size", [7, 8, 300])
    @pytest.mark.parametrize(
        ("motion", "expected"),
        [
            (Motion(), lambda i: i),
            (Motion(hflip=True), np.fliplr),
            (Motion(vflip=True), np.flipud),
            (Motion(angle=90.0), np.rot90),
            (Motion(angle=180.0), lambda i: np.rot90(i, 2)),
            (Motion(angle=270.0), lambda i: np.rot90(i, 3)),
            # Flip first, then turn.
            (Motion(hflip=True, angle=90.0), lambda i: np.rot90(np.fliplr(i))),
        ],
    )
    def test_special_motions_are_exact(
        self, size: int, motion: Motion, expected: Callable[[Any], Any]
    ) -> None:
        image = noise(size, size)
        assert np.array_equal(move(image, motion), expected(image))
        assert np.array_equal(warped(image, motion), expected(image))

    @pytest.mark.parametrize("angle", [10.0, 45.0, 123.4, 300.0])
    def test_turns_the_way_pillow_does(self, angle: float) -> None:
        image = noise(300, 300)
        theirs = np.asarray(
            Pillow.fromarray(image).rotate(angle, resample=Pillow.Resampling.NEAREST)
        )
        # Both round to the nearest pixel in fixed point, OpenCV with fewer digits.
        assert (move(image, Motion(angle=angle)) == theirs).all(axis=2).mean() > 0.99

    def test_shift_comes_after_the_turn(self) -> None:
        image = noise(20, 20)
        expected = np.zeros_like(image)
        expected[5:, :-2] = np.rot90(image)[:-5, 2:]
        assert np.array_equal(move(image, Motion(angle=90.0, shift=(-0.1, 0.25))), expected)

    def test_a_shift_does_not_cut_what_the_turn_moved_outside(self) -> None:
        image = np.full((40, 40, 3), 255, np.uint8)
        in_one = move(image, Motion(angle=45.0, shift=(0.0, 0.2)))
        in_two = move(move(image, Motion(angle=45.0)), Motion(shift=(0.0, 0.2)))
        assert (in_one > 0).sum() > (in_two > 0).sum()

    def test_scale_is_about_the_centre(self) -> None:
        image = np.zeros((41, 41, 3), np.uint8)
        image[17:24, 17:24] = 255
        expected = np.zeros_like(image)
        expected[10:31, 10:31] = 255
        assert np.array_equal(move(image, Motion(scale=3.0)), expected)


class TestWarp:
    @pytest.mark.parametrize("scale", [0.0, 0.5])
    @pytest.mark.parametrize(("height", "width"), [(300, 300), (61, 80), (80, 61), (7, 7), (1, 9)])
    def test_a_batch_of_random_motions_is_that_of_opencv(
        self, height: int, width: int, scale: float
    ) -> None:
        motions = random_motions(16, scale=scale)
        assert_same([noise(height, width)] * 16, motions)

    def test_ties_are_rounded_as_by_opencv(self) -> None:
        """Shifts by half a pixel, and turns that send rows and columns along borders."""
        half = [Motion(scale=scale, shift=(0.5 / 40, 0.0)) for scale in (0.5, 1.0, 2.0)]
        turns = [Motion(angle=15.0 * n, scale=s) for n in range(24) for s in (0.5, 1.0, 2.0)]
        motions = half + turns
        assert any(is_tie(motion, 40, 40).mean() > 0.4 for motion in motions)
        assert_same([noise(40, 40)] * len(motions), motions)

    def test_each_image_of_a_batch_has_its_own_motion(self) -> None:
        images = [noise(9, 9), noise(9, 9)[::-1].copy(), noise(9, 9)]
        motions = [Motion(), Motion(hflip=True), Motion(shift=(1.0, 0.0))]
        same, mirrored, gone = warp_all(images, motions)
        assert np.array_equal(same, images[0])
        assert np.array_equal(mirrored, np.fliplr(images[1]))
        assert not gone.any()

    def test_what_comes_from_outside_is_black_and_nothing_else(self) -> None:
        white = np.full((60, 60, 3), 255, np.uint8)
        for motion in random_motions(20):
            changed = warped(white, motion)
            assert set(np.unique(changed)) == {0, 255}
            assert np.array_equal(changed, move(white, motion))

    def test_the_batch_is_not_changed_and_keeps_its_type(self) -> None:
        images = torch.from_numpy(np.stack([noise(8, 8)] * 2))
        before = images.clone()
        sources = torch.from_numpy(np.stack([Motion(angle=30.0).sources(8, 8)] * 2))
        changed = warp(images, sources)
        assert torch.equal(images, before)
        assert (changed.dtype, changed.shape) == (torch.uint8, images.shape)
        assert changed.is_contiguous()
        # The layout of the bytes in memory is no matter, nor is their type.
        strided = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        assert torch.equal(warp(strided, sources), changed)
        assert torch.equal(warp(images.float(), sources), changed.float())

    def test_it_is_one_graph_without_data_that_steer_it(self) -> None:
        """On a GPU nothing waits for the host, and torch.compile finds one graph."""
        images = torch.from_numpy(np.stack([noise(12, 10)] * 3))
        sources = torch.from_numpy(np.stack([m.sources(12, 10) for m in random_motions(3)]))
        graph = torch.compile(warp, backend="eager", fullgraph=True)
        assert torch.equal(graph(images, sources), warp(images, sources))
        # A tensor without data could answer no question about them.
        assert warp(images.to("meta"), sources.to("meta")).shape == images.shape

    @pytest.mark.gpu
    def test_a_gpu_makes_the_same_pixels(self) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        images = torch.from_numpy(np.stack([noise(300, 300)] * 16))
        sources = torch.from_numpy(
            np.stack([motion.sources(300, 300) for motion in random_motions(16, scale=0.5)])
        )
        assert torch.equal(warp(images.cuda(), sources.cuda()).cpu(), warp(images, sources))

    @pytest.mark.real
    def test_real_cells_move_as_by_opencv(self, real_data_root: Path) -> None:
        paths = sorted(real_data_root.rglob("*.bmp"))[::40]
        motions = random_motions(16, scale=0.2)
        for path in paths:
            image = np.asarray(Pillow.open(path).convert("RGB"))
            assert_same([image[75:375, 75:375]] * 16, motions)

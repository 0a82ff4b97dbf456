"""What comes out of the augmentation, measured on a card with three spots.

The three centroids before and after determine the map that a draw applied: its linear part, which
tells rotation, flip and scale, and its shift.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from cnmc.config.groups import AugmentConfig
from cnmc.data.augment import CellAugmentation, Motion, move

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

HEIGHT, WIDTH = 150, 170
SPOTS = {50: (0.0, 0.0), 150: (30.0, 0.0), 250: (0.0, 30.0)}
"""Brightness of a spot and its place from the centre, (x, y) in pixels, y down."""

PAPER = {"hflip": 0.5, "vflip": 0.5, "rotate": 360.0, "translate": 0.2}
NOTHING = {"hflip": 0.0, "vflip": 0.0, "rotate": 0.0, "translate": 0.0}
NUM_DRAWS = 1500


def augmentation_of(**settings: float) -> CellAugmentation:
    return CellAugmentation(AugmentConfig(**settings))  # type: ignore[arg-type]


def card() -> Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for value, (right, down) in SPOTS.items():
        near = np.hypot(x - (WIDTH - 1) / 2 - right, y - (HEIGHT - 1) / 2 - down) <= 7
        image[near] = value
    return image


def recovered(image: Image) -> Floats:
    """Return the 2 x 3 map about the centre, (x, y) in pixels, that a card went through."""
    places = []
    for value in SPOTS:
        y, x = np.nonzero(image[..., 0] == value)
        places.append((x.mean() - (WIDTH - 1) / 2, y.mean() - (HEIGHT - 1) / 2))
    before = np.column_stack([np.array(list(SPOTS.values())), np.ones(3)])
    return np.linalg.solve(before, np.array(places)).T


@lru_cache(maxsize=8)
def draws(**changes: float) -> Floats:
    """Return the maps of many draws of the paper's augmentation with some settings changed."""
    augmentation = augmentation_of(**(PAPER | changes))
    image = card()
    seeds = [(i % 5, i // 5 % 6, i // 30) for i in range(NUM_DRAWS)]  # five runs of six epochs
    return np.stack([recovered(augmentation(image, seed=seed)) for seed in seeds])


def angles(maps: Floats) -> Floats:
    """Return counter-clockwise angles in [0, 360) degrees, a horizontal flip taken out."""
    across = np.sign(np.linalg.det(maps[:, :, :2]))
    turned: Floats = np.degrees(np.arctan2(-maps[:, 1, 0] * across, maps[:, 0, 0] * across)) % 360
    return turned


def uniform(values: Floats, low: float, high: float) -> bool:
    """Ask Kolmogorov and Smirnov; the draws are the same in every run of the test."""
    return bool(stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3)


def one_half(hits: npt.NDArray[np.bool_]) -> bool:
    return bool(stats.binomtest(int(hits.sum()), len(hits), 0.5).pvalue > 1e-3)


class TestMarginals:
    """Section 2 of the paper, read from the pixels."""

    def test_angle_is_uniform_over_the_circle(self) -> None:
        assert uniform(angles(draws()), 0, 360)

    def test_angle_is_uniform_up_to_its_limit(self) -> None:
        measured = angles(draws(hflip=0.0, vflip=0.0, rotate=90.0))
        assert uniform(measured, 0, 90)

    def test_shifts_are_uniform_within_a_fifth_of_each_side(self) -> None:
        right, down = draws()[:, 0, 2] / WIDTH, draws()[:, 1, 2] / HEIGHT
        assert uniform(right, -0.2, 0.2)
        assert uniform(down, -0.2, 0.2)
        assert max(abs(right).max() * WIDTH, abs(down).max() * HEIGHT) <= 0.2 * WIDTH + 0.5
        assert abs(down).max() * HEIGHT <= 0.2 * HEIGHT + 0.5

    def test_shift_is_along_the_image_at_every_angle(self) -> None:
        maps = draws()
        turned = angles(maps)
        for quadrant in range(4):
            part = maps[(turned // 90) == quadrant]
            assert uniform(part[:, 0, 2] / WIDTH, -0.2, 0.2)
            assert uniform(part[:, 1, 2] / HEIGHT, -0.2, 0.2)

    def test_draws_are_independent_of_one_another(self) -> None:
        maps = draws()
        mirrored = np.linalg.det(maps[:, :, :2]) < 0
        columns = np.column_stack([angles(maps), maps[:, 0, 2], maps[:, 1, 2], mirrored])
        correlation = np.corrcoef(columns, rowvar=False)[np.triu_indices(4, 1)]
        assert abs(correlation).max() < 4 / NUM_DRAWS**0.5
        follow = [np.corrcoef(c[1:], c[:-1])[0, 1] for c in columns.T]
        assert np.abs(follow).max() < 4 / NUM_DRAWS**0.5

    def test_one_half_is_mirrored(self) -> None:
        # One flip mirrors and two turn by 180 degrees, which the angle hides.
        assert one_half(np.linalg.det(draws()[:, :, :2]) < 0)

    def test_each_flip_has_one_half_and_they_are_independent(self) -> None:
        maps = draws(rotate=0.0)
        horizontal, vertical = maps[:, 0, 0] < 0, maps[:, 1, 1] < 0
        assert one_half(horizontal)
        assert one_half(vertical)
        assert one_half(horizontal ^ vertical)
        assert (draws(rotate=0.0, vflip=0.0)[:, 1, 1] > 0).all()

    def test_scale_never_changes(self) -> None:
        linear = draws()[:, :, :2]
        lengths = np.linalg.svd(linear, compute_uv=False)
        # The centroid of a spot is known to a fraction of a pixel in 30.
        assert abs(lengths - 1).max() < 0.03
        assert abs(lengths.mean() - 1) < 0.001

    def test_scale_where_it_is_asked_for(self) -> None:
        lengths = np.linalg.svd(draws(scale=0.3)[:, :, :2], compute_uv=False).mean(axis=1)
        assert uniform(lengths, 0.7, 1.3)

    def test_no_colour_is_made(self) -> None:
        rng = np.random.default_rng(0)
        palette = rng.integers(1, 256, (40, 3), dtype=np.uint8)
        image = palette[rng.integers(0, 40, (64, 64))]
        known = {tuple(color) for color in palette.tolist()} | {(0, 0, 0)}
        augmentation = augmentation_of(**PAPER)
        seen: set[tuple[int, ...]] = set()
        for index in range(50):
            changed = augmentation(image, seed=(0, 0, index))
            seen |= {tuple(color) for color in changed.reshape(-1, 3).tolist()}
        assert seen == known

    def test_the_fill_is_black(self) -> None:
        white = np.full((60, 60, 3), 255, np.uint8)
        augmentation = augmentation_of(**PAPER)
        shares = []
        for index in range(50):
            changed = augmentation(white, seed=(0, 0, index))
            assert set(np.unique(changed)) <= {0, 255}
            shares.append((changed == 0).mean())
        assert 0.1 < np.mean(shares) < 0.5


class TestRepeatability:
    def test_a_seed_repeats_itself_in_any_order(self) -> None:
        image = card()
        first, second = (augmentation_of(**PAPER, scale=0.1, color=0.2) for _ in range(2))
        seeds = [(7, epoch, index) for epoch in range(3) for index in range(5)]
        forward = {seed: first(image, seed=seed) for seed in seeds}
        for seed in reversed(seeds):
            assert np.array_equal(second(image, seed=seed), forward[seed])
            assert np.array_equal(first(image, seed=seed), forward[seed])

    def test_no_two_seeds_are_alike(self) -> None:
        augmentation = augmentation_of(**PAPER)
        image = card()
        seeds = [(run, e, i) for run in range(4) for e in range(6) for i in range(40)]
        seeds += [(2**32 - 1, 0, 0), (0, 2**32, 0), (0, 0, 2**63)]
        results = {augmentation(image, seed=seed).tobytes() for seed in seeds}
        assert len(results) == len(seeds)

    def test_the_image_is_not_changed(self) -> None:
        image = card()
        image.setflags(write=False)  # as the cache hands it out
        changed = augmentation_of(**PAPER)(image, seed=(0, 0, 0))
        assert np.array_equal(image, card())
        assert changed.flags.writeable
        assert changed.flags.c_contiguous
        assert changed.dtype == np.uint8

    def test_one_setting_does_not_change_the_draws_of_the_others(self) -> None:
        image = card()
        full = augmentation_of(**PAPER)
        for name in ("translate", "rotate"):
            part = augmentation_of(**(PAPER | {name: 0.0}))
            for index in range(5):
                ours = recovered(part(image, seed=(0, 0, index)))
                theirs = recovered(full(image, seed=(0, 0, index)))
                if name == "translate":
                    np.testing.assert_allclose(ours[:, :2], theirs[:, :2], atol=0.05)
                else:
                    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], atol=1)

    def test_zero_settings_change_nothing(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        changed = augmentation_of(**NOTHING)(image, seed=(0, 0, 0))
        assert np.array_equal(changed, image)
        assert changed is not image
        assert augmentation_of(**NOTHING).draw((0, 0, 0)) == Motion()


@pytest.mark.parametrize("changes", [{}, {"scale": 0.3}, {"vflip": 0.0, "translate": 0.0}])
def test_a_device_gets_the_motions_of_the_host_in_any_order(changes: dict[str, float]) -> None:
    image = card()
    augmentation, other = (augmentation_of(**(PAPER | changes)) for _ in range(2))
    seeds = [(7, epoch, index) for epoch in range(3) for index in range(5)]
    motions = {seed: other.draw(seed) for seed in reversed(seeds)}
    for seed in seeds:
        assert np.array_equal(move(image, motions[seed]), augmentation(image, seed=seed))
        assert augmentation.draw(seed) == motions[seed]


class TestColor:
    def test_color_jitter_changes_colours_and_moves_nothing(self) -> None:
        image = np.full((20, 20, 3), (120, 90, 160), np.uint8)
        augmentation = augmentation_of(**NOTHING, color=0.3)
        colors = [augmentation(image, seed=(0, 0, i)) for i in range(20)]
        assert all((c == c[0, 0]).all() for c in colors)
        assert len({tuple(c[0, 0].tolist()) for c in colors}) > 15

    def test_color_does_not_follow_the_rotation(self) -> None:
        turn = augmentation_of(**(NOTHING | {"rotate": 360.0}))
        tint = augmentation_of(**NOTHING, color=0.3)
        gray = np.full((8, 8, 3), 100, np.uint8)
        image = card()
        angle, brightness = [], []
        for index in range(300):
            angle.append(angles(recovered(turn(image, seed=(0, 0, index)))[None])[0])
            brightness.append(float(tint(gray, seed=(0, 0, index)).mean()))
        assert np.std(brightness) > 5
        assert stats.spearmanr(angle, brightness).pvalue > 0.01

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnmc.data.sources import synthetic_cells
from cnmc.data.sources.synthetic_cells import Image, draw_cell, subject_traits

NUM_SUBJECTS = 40


def draw(label: int, number: int, image_size: int = 450, canvas_size: int | None = None) -> Image:
    rng = np.random.default_rng([7, label, number])
    traits = subject_traits(0, 0, label, number % NUM_SUBJECTS)
    return draw_cell(rng, label, traits, image_size, canvas_size)


def box(image: Image) -> tuple[int, int]:
    """Width and height of what is not black."""
    rows, columns = np.nonzero(image.any(axis=2))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def depths(image: Image) -> NDArray[np.float32]:
    """Distance of every pixel from the black around the cell."""
    inside = np.asarray(image.any(axis=2), np.uint8)
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)


def test_sizes_are_those_of_the_release() -> None:
    normal, blasts = (
        np.array([np.mean(box(draw(label, number, 225))) * 2.0 for number in range(280)])
        for label in (0, 1)
    )
    assert normal.mean() == pytest.approx(184.0, abs=5.0)
    assert blasts.mean() == pytest.approx(224.0, abs=5.0)
    assert normal.std() == pytest.approx(26.0, abs=6.0)
    assert blasts.std() == pytest.approx(28.0, abs=6.0)
    # The classes overlap.
    middle = (normal.mean() + blasts.mean()) / 2.0
    assert 0.1 < (normal > middle).mean() < 0.4
    assert 0.1 < (blasts < middle).mean() < 0.4


@pytest.mark.parametrize("label", [0, 1])
def test_background_is_black_and_the_cell_is_nowhere_black(label: int) -> None:
    for number in range(12):
        image = draw(label, number, 225)
        assert image.dtype == np.uint8
        assert image.shape == (225, 225, 3)
        black = image == 0
        assert (black.any(axis=2) == black.all(axis=2)).all()
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert not corners.any()
        assert 0.05 < 1.0 - black.all(axis=2).mean() < 0.6


def test_larger_canvas_holds_the_same_cell() -> None:
    small, large = draw(0, 1, 96), draw(0, 1, 96, 128)
    assert large.shape == (128, 128, 3)
    assert np.array_equal(large[16:112, 16:112], small)
    assert np.count_nonzero(large) == np.count_nonzero(small)


@pytest.mark.parametrize("label", [0, 1])
def test_cells_scale_with_the_image(label: int) -> None:
    for number in range(8):
        large, small = draw(label, number), draw(label, number, 150)
        assert np.allclose(np.array(box(small)) * 3.0, box(large), atol=9.0)
        colours = [image[image.any(axis=2)].mean(axis=0) for image in (large, small)]
        assert np.allclose(colours[0], colours[1], atol=6.0)


def areas(monkeypatch: pytest.MonkeyPatch, cut: float, background: float) -> np.ndarray:
    monkeypatch.setattr(synthetic_cells, "CUT_RATE", cut)
    monkeypatch.setattr(synthetic_cells, "BACKGROUND_RATE", background)
    return np.array([np.count_nonzero(draw(1, n, 150).any(axis=2)) for n in range(20)])


def test_cut_removes_a_piece_and_background_adds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = areas(monkeypatch, 0.0, 0.0)
    cut = areas(monkeypatch, 1.0, 0.0) / whole
    background = areas(monkeypatch, 0.0, 1.0) / whole
    assert (cut <= 1.0).all()
    assert (cut > 0.3).all()
    assert cut.mean() < 0.95
    assert (background >= 1.0).all()
    assert background.mean() > 1.03


def test_traits_of_few_subjects_average_out() -> None:
    for part in range(3):
        for label in (0, 1):
            traits = np.array([subject_traits(0, part, label, index) for index in range(12)])
            assert abs(traits[:, 0].mean()) < 5.0
            assert traits[:, 0].std() > 6.0
            assert abs(traits[:, 1].mean()) < 0.2
    assert subject_traits(0, 0, 1, 0) != subject_traits(0, 1, 1, 0) != subject_traits(1, 0, 1, 0)


def features(image: Image) -> list[float]:
    """Size, colour, and contrast by scale of the red of the nucleus."""
    nucleus = depths(image) > 0.045 * len(image)
    red = image[..., 0].astype(np.float32)
    blurred = [red, *(cv2.GaussianBlur(red, (0, 0), sigma) for sigma in (0.7, 1.4, 2.8, 5.6))]
    bands = [float((a - b)[nucleus].std()) for a, b in pairwise(blurred)]
    pixels = image[image.any(axis=2)]
    return [float(len(pixels)), *pixels.mean(axis=0), *pixels.std(axis=0), *bands]


def test_classes_can_be_learned_but_not_perfectly() -> None:
    labels = np.array([number % 3 > 0 for number in range(900)], int)
    table = np.array([features(draw(int(labels[n]), n, 150)) for n in range(900)])
    # Subjects 0 to 24 of each class teach, 25 to 39 are tested.
    unseen = np.arange(900) % NUM_SUBJECTS >= 25

    def f1(columns: slice) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        model.fit(table[~unseen, columns], labels[~unseen])
        predicted = model.predict(table[unseen, columns])
        return float(f1_score(labels[unseen], predicted, average="weighted"))

    by_size, by_all = f1(slice(0, 1)), f1(slice(None))
    assert 0.65 < by_size < by_all - 0.03
    assert 0.82 < by_all < 0.96


@pytest.mark.real
def test_generated_cells_measure_like_real_ones(real_data_root: Path) -> None:
    for name, label in (("all", 1), ("hem", 0)):
        real = [
            np.asarray(PIL.Image.open(path).convert("RGB"))
            for path in sorted(real_data_root.rglob(f"*_{name}.bmp"))[::20]
        ]
        generated = [draw(label, number) for number in range(40)]
        sides, colours, contrasts = zip(
            *(
                (
                    np.mean([box(image) for image in images]),
                    np.mean([image[image.any(axis=2)].mean(axis=0) for image in images], axis=0),
                    np.mean([image[image.any(axis=2)].std(axis=0) for image in images], axis=0),
                )
                for images in (real, generated)
            ),
            strict=True,
        )
        assert sides[1] == pytest.approx(sides[0], abs=16.0)
        assert np.allclose(colours[1], colours[0], atol=8.0)
        assert np.allclose(contrasts[1], contrasts[0], rtol=0.35)

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cnmc.data.cache as module
from cnmc.data.audit import usable_cells
from cnmc.data.cache import CellCache, open_cache
from cnmc.data.images import Pixels, decode
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.errors import CnmcError

from .trees import SIDE, TRAIN, pixels, write_bmp, write_release


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    root = write_release(tmp_path / "data", "paper")
    return load_manifest(root, tmp_path / "work", num_workers=1, show_progress=False)


def cache_of(
    manifest: Manifest,
    *,
    crop: int = 32,
    resize: int | None = None,
    num_cells: int | None = None,
    verify_all: bool = False,
) -> CellCache:
    return open_cache(
        manifest,
        manifest.cells.iloc[:num_cells],
        crop=crop,
        resize=resize,
        work_dir=manifest.root.parent / "work",
        num_workers=2,
        verify_all=verify_all,
        show_progress=False,
    )


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record every image that is decoded, by its number of bytes."""
    sizes: list[int] = []

    def record(data: bytes) -> object:
        sizes.append(len(data))
        return decode(data)

    monkeypatch.setattr(module, "decode", record)
    return sizes


def test_pixels_are_the_central_crop(manifest: Manifest) -> None:
    cache = cache_of(manifest, crop=31)
    assert cache.images.shape == (len(manifest.cells), 31, 31, 3)
    assert cache.images.dtype == np.uint8
    # Margins of 17 pixels: 8 above and on the left, 9 below and on the right.
    for seed, (_, stem) in enumerate(TRAIN):
        row = cache.rows[f"train/{stem}"]
        np.testing.assert_array_equal(cache.images[row], pixels(seed)[8:39, 8:39])
    assert list(cache.rows) == manifest.cells["cell_id"].to_list()


def area_means(image: Pixels, side: int) -> NDArray[np.float64]:
    """Average a square image over the areas of ``side`` x ``side`` squares, by definition."""
    edges = np.linspace(0, len(image), side + 1)
    lower = np.maximum(edges[:-1, None], np.arange(len(image)))
    upper = np.minimum(edges[1:, None], np.arange(len(image)) + 1)
    shares = np.clip(upper - lower, 0, None) * side / len(image)
    means: NDArray[np.float64] = np.einsum("iy,yxc,jx->ijc", shares, image, shares, optimize=True)
    return means


@pytest.mark.parametrize("side", [16, 20])
def test_resizing_averages_areas(manifest: Manifest, side: int) -> None:
    cache = cache_of(manifest, crop=32, resize=side)
    assert cache.images.shape[1:] == (side, side, 3)
    expected = area_means(pixels(0)[8:40, 8:40], side)
    assert np.abs(cache.images[cache.rows["train/UID_1_1_1_all"]] - expected).max() < 0.51


def test_a_second_opening_decodes_nothing(manifest: Manifest, decoded: list[int]) -> None:
    first = cache_of(manifest)
    assert len(decoded) == len(manifest.cells)
    second = cache_of(manifest)
    assert len(decoded) == len(manifest.cells)
    assert second.path == first.path
    np.testing.assert_array_equal(second.images, first.images)


def test_another_choice_makes_another_file(manifest: Manifest) -> None:
    paths = {
        cache_of(manifest).path,
        cache_of(manifest, crop=30).path,
        cache_of(manifest, crop=30, resize=32).path,
        cache_of(manifest, num_cells=5).path,
    }
    assert len(paths) == 4


def test_changed_data_are_cached_again(manifest: Manifest) -> None:
    before = cache_of(manifest)
    write_bmp(manifest.root / "phase3/1.bmp", pixels(999))
    os.utime(manifest.root / "phase3/1.bmp", ns=(1, 1))
    work_dir = manifest.root.parent / "work"
    changed = load_manifest(manifest.root, work_dir, num_workers=1, show_progress=False)
    after = cache_of(changed)
    assert after.path != before.path
    np.testing.assert_array_equal(after.images[after.rows["final/1"]], pixels(999)[8:40, 8:40])


def test_pixels_cannot_be_written(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="read-only"):
        cache_of(manifest).images[0] = 0


def test_pickling_takes_no_pixels_along(manifest: Manifest) -> None:
    cache = cache_of(manifest, crop=SIDE)
    data = pickle.dumps(cache)
    assert len(data) < cache.images.nbytes / 20
    copy = pickle.loads(data)  # noqa: S301
    assert copy == cache
    assert isinstance(copy.images, np.memmap)
    np.testing.assert_array_equal(copy.images, cache.images)


@pytest.mark.parametrize("size", [0, 50, 5000])
def test_a_truncated_cache_is_built_again(manifest: Manifest, size: int) -> None:
    cache = cache_of(manifest)
    expected = np.array(cache.images)
    path = cache.path
    del cache
    with path.open("r+b") as file:
        file.truncate(size)
    np.testing.assert_array_equal(cache_of(manifest).images, expected)


def test_an_interruption_leaves_nothing_behind(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bytes] = []

    def interrupt(data: bytes) -> object:
        calls.append(data)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return decode(data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache_of(manifest)
    work_dir = manifest.root.parent / "work"
    assert [path.name for path in work_dir.glob("*images*")] == ["images.lock"]
    assert cache_of(manifest).images.shape[0] == len(manifest.cells)


def test_leftovers_of_a_killed_builder_are_removed(manifest: Manifest) -> None:
    work_dir = manifest.root.parent / "work"
    for name in (".images-0123456789ab.npy.4711.tmp", ".images-ba9876543210.npy.1.tmp"):
        (work_dir / name).write_bytes(b"half")
    path = cache_of(manifest).path
    assert {p.name for p in work_dir.glob("*images*")} == {
        path.name,
        path.with_suffix(".crc32.npy").name,
        "images.lock",
    }


@pytest.mark.parametrize("change", ["zeroed", "one cell"])
def test_pixels_that_were_changed_in_place_are_built_again(
    manifest: Manifest, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(manifest)
    expected = np.array(cache.images)
    changed = np.lib.format.open_memmap(cache.path, mode="r+")
    if change == "zeroed":
        changed[:] = 0
    else:
        changed[3, 5, 7, 1] ^= 1
    changed.flush()
    np.testing.assert_array_equal(cache_of(manifest).images, expected)
    assert cache.path.name in caplog.text


@pytest.mark.parametrize("verify_all", [False, True])
def test_a_sample_is_verified_or_all(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, verify_all: bool
) -> None:
    cache = cache_of(manifest)
    changed = np.lib.format.open_memmap(cache.path, mode="r+")
    changed[:] = 0
    changed.flush()
    monkeypatch.setattr(module, "_NUM_SAMPLED", 0)
    assert bool(cache_of(manifest, verify_all=verify_all).images.any()) == verify_all


def test_a_full_disk_is_an_error(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", refuse)
    with pytest.raises(CnmcError, match=r"data\.work_dir.*space"):
        cache_of(manifest)
    assert list((manifest.root.parent / "work").glob("*images-*")) == []


def test_an_image_that_vanished_is_named(manifest: Manifest) -> None:
    (manifest.root / "phase3/2.bmp").unlink()
    with pytest.raises(CnmcError, match=r"phase3/2\.bmp"):
        cache_of(manifest)
    assert list((manifest.root.parent / "work").glob("*images-*")) == []


def test_an_image_smaller_than_the_crop_is_named(manifest: Manifest) -> None:
    with pytest.raises(CnmcError, match=r"\.bmp: 48 x 48 pixels are smaller .* data\.crop=49"):
        cache_of(manifest, crop=49)


@pytest.mark.real
def test_real_cells(real_data_root: Path, tmp_path: Path) -> None:
    manifest = load_manifest(real_data_root, tmp_path, num_workers=2, show_progress=False)
    cells = usable_cells(manifest, crop=300, skip_unreadable=False)
    assert len(cells) == 1618
    chosen = cells.iloc[::161]
    for resize in (None, 160):
        cache = open_cache(
            manifest,
            chosen,
            crop=300,
            resize=resize,
            work_dir=tmp_path,
            num_workers=2,
            show_progress=False,
        )
        for cell_id, path in zip(chosen["cell_id"], chosen["path"], strict=True):
            with Image.open(real_data_root / path) as image:
                expected = np.asarray(image.crop((75, 75, 375, 375)))
            cached = cache.images[cache.rows[cell_id]]
            assert cached.any()
            if resize is None:
                np.testing.assert_array_equal(cached, expected)
            else:
                # The means are equal to float rounding; a mean near one half goes either way.
                assert np.abs(cached - area_means(expected, resize)).max() < 0.51

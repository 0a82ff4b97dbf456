"""The cache of decoded cells."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnmc.config import DataConfig
from cnmc.data import store
from cnmc.data.images import Pixels, decode
from cnmc.data.manifest import Manifest, load_manifest
from cnmc.data.store import CellCache, read_cells
from cnmc.errors import CnmcError

from .trees import TRAIN, pixels, write_bmp, write_release


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return load_manifest(
        write_release(tmp_path / "data", "paper"), tmp_path / "work", num_workers=1
    )


def cache_of(
    manifest: Manifest, *, crop: int = 32, resize: int | None = None, verify_all: bool = False
) -> CellCache:
    work_dir = manifest.root.parent / "work"
    data = DataConfig(str(manifest.root), str(work_dir), crop=crop, resize=resize)
    return read_cells(manifest, data, verify_all=verify_all)[1]


def files_of(manifest: Manifest) -> set[str]:
    return {path.name for path in (manifest.root.parent / "work").glob("*images*")}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record every image that is decoded, by its number of bytes."""
    sizes: list[int] = []

    def record(data: bytes) -> object:
        sizes.append(len(data))
        return decode(data)

    monkeypatch.setattr(store, "decode", record)
    return sizes


def test_pixels_are_the_central_crop(manifest: Manifest) -> None:
    cache = cache_of(manifest, crop=31)
    labelled = manifest.cells[manifest.cells["label"].notna()]
    assert cache.images.shape == (len(labelled), 31, 31, 3)
    assert cache.images.dtype == np.uint8
    # Margins of 17 pixels: 8 above and on the left, 9 below and on the right.
    for seed, (_, stem) in enumerate(TRAIN):
        row = cache.rows[f"train/{stem}"]
        np.testing.assert_array_equal(cache.images[row], pixels(seed)[8:39, 8:39])
    assert list(cache.rows) == labelled["cell_id"].to_list()


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
    assert len(decoded) == len(first.rows)
    second = cache_of(manifest)
    assert len(decoded) == len(first.rows)
    assert second.path == first.path
    np.testing.assert_array_equal(second.images, first.images)


def test_another_size_makes_another_file(manifest: Manifest) -> None:
    sizes = ((32, None), (30, None), (30, 32))
    assert len({cache_of(manifest, crop=crop, resize=resize).path for crop, resize in sizes}) == 3


def test_changed_data_are_cached_again(manifest: Manifest) -> None:
    before = cache_of(manifest)
    write_bmp(manifest.root / "phase2/1.bmp", pixels(999))
    os.utime(manifest.root / "phase2/1.bmp", ns=(1, 1))
    after = cache_of(load_manifest(manifest.root, before.path.parent, num_workers=1))
    assert after.path != before.path
    np.testing.assert_array_equal(after.images[after.rows["prelim/1"]], pixels(999)[8:40, 8:40])


def test_pixels_cannot_be_written(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="read-only"):
        cache_of(manifest).images[0] = 0


@pytest.mark.parametrize("size", [0, 50, 5000])
def test_a_truncated_cache_is_built_again(manifest: Manifest, size: int) -> None:
    cache = cache_of(manifest)
    expected = np.array(cache.images)
    os.truncate(cache.path, size)
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
        patch.setattr(store, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache_of(manifest)
    assert files_of(manifest) == {"images.lock"}
    assert cache_of(manifest).images.any(axis=(1, 2, 3)).all()


def test_leftovers_of_a_killed_builder_are_removed(manifest: Manifest) -> None:
    work_dir = manifest.root.parent / "work"
    for name in (".images-0123456789ab.npy.4711.tmp", ".images-ba9876543210.npy.1.tmp"):
        (work_dir / name).write_bytes(b"half")
    path = cache_of(manifest).path
    assert files_of(manifest) == {path.name, "images.lock"}


def change(cache: CellCache) -> None:
    table = np.load(cache.path, mmap_mode="r+")
    table["pixels"][3, 5, 7, 1] ^= 1
    table.flush()


def test_changed_pixels_are_built_again(
    manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(manifest)
    expected = np.array(cache.images)
    change(cache)
    np.testing.assert_array_equal(cache_of(manifest).images, expected)
    assert cache.path.name in caplog.text


@pytest.mark.parametrize("verify_all", [False, True])
def test_a_sample_is_verified_or_all(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, verify_all: bool
) -> None:
    cache = cache_of(manifest)
    before = np.array(cache.images)
    change(cache)
    monkeypatch.setattr(store, "_NUM_SAMPLED", 0)
    after = cache_of(manifest, verify_all=verify_all).images
    assert np.array_equal(after, before) == verify_all


def test_a_full_disk_is_an_error(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", refuse)
    with pytest.raises(CnmcError, match=r"data\.work_dir"):
        cache_of(manifest)
    assert files_of(manifest) == {"images.lock"}


def test_an_image_that_vanished_is_named(manifest: Manifest) -> None:
    (manifest.root / "phase2/2.bmp").unlink()
    with pytest.raises(CnmcError, match=r"phase2/2\.bmp"):
        cache_of(manifest)
    assert files_of(manifest) == {"images.lock"}


@pytest.mark.real
@pytest.mark.parametrize("resize", [None, 160])
def test_real_cells(real_data_root: Path, tmp_path: Path, resize: int | None) -> None:
    for path in sorted(real_data_root.rglob("*.bmp"))[::161]:
        link = tmp_path / "data" / path.relative_to(real_data_root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    manifest = load_manifest(tmp_path / "data", tmp_path / "work", num_workers=2)
    cache = cache_of(manifest, crop=300, resize=resize)
    paths = manifest.cells.set_index("cell_id")["path"]
    assert len(cache.rows) > 5
    for cell_id, row in cache.rows.items():
        with Image.open(manifest.root / paths[cell_id]) as image:
            expected = np.asarray(image.crop((75, 75, 375, 375)))
        cached = cache.images[row]
        assert cached.any()
        if resize is None:
            np.testing.assert_array_equal(cached, expected)
        else:
            # The means are equal to float rounding; a mean near one half goes either way.
            assert np.abs(cached - area_means(expected, resize)).max() < 0.51

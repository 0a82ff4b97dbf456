"""The cells of a network's run are found, and nothing is written to the folders of the run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cnmc.config.groups import DataConfig, SplitConfig, SyntheticConfig
from cnmc.data.store import open_split
from cnmc.deploy.formats import cells_to_check, find_cells
from cnmc.deploy.graph import CellGraph, TrainedNetwork
from cnmc.deploy.networks import GraphInfo
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from tests.deploy.networks import random_graph

NUMBERS = {"train_subjects_all": 3, "train_subjects_hem": 3, "train_cells_all": 9}
NUMBERS |= {"train_cells_hem": 8, "prelim_subjects_all": 1, "prelim_subjects_hem": 1}
NUMBERS |= {"prelim_cells_all": 2, "prelim_cells_hem": 2, "image_size": 48}
NUMBERS |= {f"final_{what}_{name}": 0 for what in ("subjects", "cells") for name in ("all", "hem")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    """The network of a run on a few generated cells."""
    folder = tmp_path_factory.mktemp("run")
    root, work_dir = str(folder / "data"), str(folder / "work")
    data = DataConfig(root, work_dir, crop=40, synthetic=SyntheticConfig(**NUMBERS))
    split = SplitConfig("nested")
    opened = open_split(data, split)
    run = {
        "manifest_fingerprint": opened.manifest.fingerprint,
        "split_fingerprint": opened.split.fingerprint,
    }
    config = {"data": asdict(data), "split": asdict(split)}
    info = GraphInfo("test_resnet", crop=40, run=run)
    graph = CellGraph(random_graph("test_resnet", 40).network, info)
    return TrainedNetwork(folder / "best.ckpt", graph, config, RunFolder(folder))


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_the_cells_of_a_run_are_found_without_a_change_to_its_folders(
    trained: TrainedNetwork,
) -> None:
    folder = trained.path.parent
    before = contents(folder)
    found = find_cells(trained, None)
    assert len(found.cells) == 21
    assert set(found.cells["role"]) == {"train", "val", "test"}
    images, labels, origin = cells_to_check(trained, found, 8)
    assert images.shape == (len(labels), 40, 40, 3)
    assert set(labels) == {0, 1}
    assert origin.startswith(f"{len(labels)} ")
    assert contents(folder) == before


def test_other_cells_and_a_checkpoint_elsewhere_are_refused(
    trained: TrainedNetwork,
) -> None:
    alone = TrainedNetwork(trained.path, trained.graph, trained.config, None)
    with pytest.raises(CnmcError, match="run folder"):
        find_cells(alone, None)
    data = trained.path.parent / "data"
    assert len(find_cells(alone, data).cells) == 21
    with pytest.raises(CnmcError, match=r"data\.root="):
        find_cells(trained, data / "no such folder")
    next(iter(sorted(data.rglob("*.bmp")))).unlink()
    with pytest.raises(CnmcError, match=r"data\.root="):
        find_cells(trained, None)

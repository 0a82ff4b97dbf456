"""The cells of a network's run are found, and nothing is written where its checkpoint says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from cnmc.analysis.decision import Decision
from cnmc.config import DataConfig, SplitConfig, SyntheticConfig
from cnmc.data import manifest
from cnmc.data.store import open_split
from cnmc.deploy.run_cells import find_cells
from cnmc.deploy.trained import TrainedNetwork
from cnmc.errors import CnmcError

NUMBERS = {"train_subjects_all": 3, "train_subjects_hem": 3, "train_cells_all": 9}
NUMBERS |= {"train_cells_hem": 8, "prelim_subjects_all": 1, "prelim_subjects_hem": 1}
NUMBERS |= {"prelim_cells_all": 2, "prelim_cells_hem": 2, "image_size": 48}
NUMBERS |= {f"final_{what}_{name}": 0 for what in ("subjects", "cells") for name in ("all", "hem")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    """What a run on a few generated cells keeps; its data and working folder are there."""
    folder = tmp_path_factory.mktemp("run")
    root, work_dir = str(folder / "data"), str(folder / "work")
    data = DataConfig(root, work_dir, crop=40, synthetic=SyntheticConfig(**NUMBERS))
    split = SplitConfig("nested")
    opened = open_split(data, split, show_progress=False)
    run = {
        "manifest_fingerprint": opened.manifest.fingerprint,
        "split_fingerprint": opened.split.fingerprint,
    }
    config = {"data": asdict(data), "split": asdict(split)}
    return TrainedNetwork(folder / "best.ckpt", {}, config, run, 1, Decision(), None)


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Return what the files below a folder hold, and when they were written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("lost", ["nothing", "the split", "the manifest"])
def test_nothing_is_written_where_the_run_worked(
    lost: str, trained: TrainedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    work_dir = trained.path.parent / "work"
    if lost != "nothing":
        for path in list(work_dir.rglob("splits/*" if lost == "the split" else "manifest*")):
            path.unlink()
    before = contents(trained.path.parent)
    if lost != "the manifest":  # what is known of the images there is not read again
        monkeypatch.setattr(manifest, "_read", lambda *_: pytest.fail("read"))
    cells = find_cells(trained, None).cells
    assert contents(trained.path.parent) == before
    assert len(cells) == 21
    assert set(cells["role"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("data", "root", None), ("data", "work_dir", 3), ("split", "kind", "whim"), ("split", "", 0)],
)
def test_a_checkpoint_that_does_not_say(
    section: str, key: str, value: object, trained: TrainedNetwork
) -> None:
    config = {**trained.config, section: {**trained.config[section], key: value}}
    if not key:
        del config[section]
    other = TrainedNetwork(trained.path, {}, config, trained.run, 1, Decision(), None)
    with pytest.raises(CnmcError, match="does not say which cells it was trained on") as caught:
        find_cells(other, None)
    assert "\n" not in str(caught.value)

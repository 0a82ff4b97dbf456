"""Screening by checkpoints of training, and Grad-CAM."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnmc.cli.app import compose
from cnmc.config import PredictConfig
from cnmc.deploy.explain import evidence, overlay
from cnmc.errors import CnmcError
from cnmc.predict import predict
from cnmc.runs.folder import RunFolder, logit_columns
from cnmc.study.plan import job_folder
from cnmc.train import train
from tests.conftest import TINY
from tests.deploy.networks import cells, random_graph


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of the tiny study."""
    root = tmp_path_factory.mktemp("runs")
    data = [f"data.root={tiny_data / 'data'}", f"data.work_dir={tiny_data / 'work'}"]
    config, resolved = compose([*TINY, *data, f"run.root={root}"])
    folder = job_folder(config, [], {})
    train(config, resolved, folder)
    return folder


def test_the_stored_logits_of_a_run_are_reproduced(
    trained: RunFolder, tiny_data: Path, tmp_path: Path
) -> None:
    stored = _stored(trained)
    files = [path for path in _files(tiny_data / "data", stored) if "prelim" in path.lower()]
    assert len(files) == len(stored) == 18
    config = PredictConfig(
        experiment="proposal",
        root=str(trained.path.parents[1]),
        input=files,
        output=str(tmp_path / "out"),
        # At this threshold no cell of a network that has hardly learnt is doubtful.
        threshold="0.05",
        gradcam=4,
    )
    assert predict(config) == 0
    found = {Path(row["file"]).stem: float(row["mean_logit"]) for row in _rows(tmp_path / "out")}
    assert found.keys() == stored.keys()
    assert max(abs(found[name] - stored[name]) for name in stored) < 1e-5
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert page.count('alt="Grad-CAM"') == 4
    sections = [page.index(f'id="{name}"') for name in ("doubtful", "decisive", "others")]
    assert sections == sorted(sections)
    assert "proposal/seed=0" in page


@pytest.fixture(scope="module")
def two(trained: RunFolder, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of that run and one of another seed."""
    root = tmp_path_factory.mktemp("two") / "runs"
    shutil.copytree(trained.path.parents[1], root)
    data = [f"data.root={tiny_data / 'data'}", f"data.work_dir={tiny_data / 'work'}"]
    config, resolved = compose([*TINY, *data, f"run.root={root}", "seed=1"])
    train(config, resolved, RunFolder(root / "proposal" / "seed=1"))
    return root


def _stored(folder: RunFolder) -> dict[str, float]:
    """Return the mean logits of a run's best epoch by the name of the cell."""
    predictions, info = folder.read_predictions(), folder.read_info()
    assert predictions is not None
    assert info is not None
    best = predictions[predictions["epoch"] == info.best_epoch]
    mean = best[logit_columns(best)].mean(axis=1)
    return dict(zip(best["cell_id"].str.rpartition("/")[2], mean, strict=True))


def _files(root: Path, stored: dict[str, float]) -> list[str]:
    return [str(path) for path in sorted(root.rglob("*.bmp")) if path.stem in stored]


def _rows(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_runs_of_an_experiment_are_an_ensemble(
    two: Path, tiny_data: Path, tmp_path: Path
) -> None:
    first, second = (_stored(RunFolder(two / "proposal" / f"seed={seed}")) for seed in (0, 1))
    files = _files(tiny_data / "data", first)
    keys: dict[str, Any] = {"experiment": "proposal", "root": str(two), "input": files}
    config = PredictConfig(**keys, output=str(tmp_path / "out"), top=2, gradcam=0, num_threads=1)
    assert predict(config) == 0
    for row in _rows(tmp_path / "out"):
        name = Path(row["file"]).stem
        assert float(row["mean_logit"]) == pytest.approx((first[name] + second[name]) / 2, abs=1e-5)
        assert row["views"] == "16"
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert "proposal/seed=0" in page
    assert "proposal/seed=1" in page
    with pytest.raises(CnmcError, match=r"^top=3: .* has 2 .*top=2"):
        predict(PredictConfig(**keys, output=str(tmp_path / "new"), top=3))
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_of_another_name_is_explained(trained: RunFolder, tmp_path: Path) -> None:
    shutil.copy(trained.best_checkpoint, tmp_path / "best.pth")
    (tmp_path / "cells").mkdir()
    for number, pixels in enumerate(cells(12, 40)):
        Image.fromarray(pixels).save(tmp_path / "cells" / f"{number}.bmp")
    config = PredictConfig(
        checkpoint=str(tmp_path / "best.pth"),
        input=str(tmp_path / "cells"),
        output=str(tmp_path / "out"),
        threshold="0.05",
        gradcam=2,
    )
    assert predict(config) == 0
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert page.count('alt="Grad-CAM"') == 2


# Turned by 45 degrees, pixels of a turned cell are rounded to others than those of the cell itself.
@pytest.mark.parametrize(("num_rotations", "tolerance"), [(4, 1e-4), (8, 0.05)])
def test_grad_cam_turns_with_the_cell(num_rotations: int, tolerance: float) -> None:
    graph = random_graph("test_resnet", 64, num_rotations)
    cell = torch.from_numpy(cells(1, 64)).permute(0, 3, 1, 2)
    straight = evidence(graph, cell)
    assert straight.shape == (1, 1, 64, 64)
    # The views of a turned cell are the same, each turned back further.
    turned = evidence(graph, torch.rot90(cell, 1, dims=(2, 3)))
    largest = straight.abs().max()
    assert (torch.rot90(turned, -1, dims=(2, 3)) - straight).abs().max() < tolerance * largest
    assert (turned - straight).abs().max() > 2 * tolerance * largest


def test_an_overlay_is_grey_without_evidence() -> None:
    cell = cells(1, 32)[0]
    heat = np.zeros((32, 32), dtype=np.float32)
    heat[:16] = 1
    shown = overlay(cell, heat)
    assert np.ptp(shown[16:].astype(int), axis=2).max() == 0
    assert (shown[:16, :, 0].astype(int) > shown[:16, :, 2]).all()

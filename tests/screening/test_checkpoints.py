"""Screening by checkpoints of training, and Grad-CAM."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from cnmc.app import compose
from cnmc.config import PredictConfig
from cnmc.inference.graph import CellGraph
from cnmc.predict import predict
from cnmc.runs import RunFolder, logit_columns
from cnmc.screening.explain import _evidence, overlay
from cnmc.study.plan import job_folder
from cnmc.train import train
from tests.conftest import TINY
from tests.inference.networks import cells, random_graph


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
    predictions, info = trained.read_predictions(), trained.read_info()
    assert predictions is not None
    assert info is not None
    best = predictions[predictions["epoch"] == info.best_epoch]
    mean = best[logit_columns(best)].mean(axis=1)
    stored = dict(zip(best["cell_id"].str.rpartition("/")[2], mean, strict=True))
    files = [path for path in (tiny_data / "data").rglob("*.bmp") if path.stem in stored]
    files = [path for path in files if "prelim" in str(path).lower()]
    assert len(files) == len(stored) == 18
    config = PredictConfig(
        experiment="proposal",
        root=str(trained.path.parents[1]),
        input=[str(path) for path in files],
        output=str(tmp_path / "out"),
        gradcam=4,
    )
    assert predict(config) == 0
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {Path(row["file"]).stem: float(row["mean_logit"]) for row in rows}
    assert found.keys() == stored.keys()
    assert max(abs(found[name] - stored[name]) for name in stored) < 1e-5
    page = (tmp_path / "out" / "screening.html").read_text(encoding="utf-8")
    assert page.count('alt="Grad-CAM"') == 4
    sections = [page.index(f'id="{name}"') for name in ("doubtful", "decisive", "others")]
    assert sections == sorted(sections)
    assert "proposal/seed=0" in page


def _map(graph: CellGraph, cell: torch.Tensor) -> torch.Tensor:
    return _evidence(graph, cell, Path("best.ckpt"))


# Turned by 45 degrees, pixels of a turned cell are rounded to others than those of the cell itself.
@pytest.mark.parametrize(("num_rotations", "tolerance"), [(4, 1e-4), (8, 0.05)])
def test_grad_cam_turns_with_the_cell(num_rotations: int, tolerance: float) -> None:
    graph = random_graph("test_resnet", 64, num_rotations)
    cell = torch.from_numpy(cells(1, 64)).permute(0, 3, 1, 2)
    straight = _map(graph, cell)
    assert straight.shape == (1, 1, 64, 64)
    # The views of a turned cell are the same, each turned back further.
    turned = _map(graph, torch.rot90(cell, 1, dims=(2, 3)))
    largest = straight.abs().max()
    assert (torch.rot90(turned, -1, dims=(2, 3)) - straight).abs().max() < tolerance * largest
    assert (turned - straight).abs().max() > 2 * tolerance * largest


def test_an_overlay_leaves_what_speaks_for_nothing_grey() -> None:
    cell = cells(1, 32)[0]
    heat = np.zeros((32, 32), dtype=np.float32)
    heat[:16] = 1
    shown = overlay(cell, heat)
    assert np.ptp(shown[16:].astype(int), axis=2).max() == 0
    assert (shown[:16, :, 0].astype(int) > shown[:16, :, 2]).all()

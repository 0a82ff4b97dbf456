"""``python -m cnmc.export``: only files that were checked are written, each with its card."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from cnmc.config import ExportConfig, to_config
from cnmc.data.manifest import Manifest
from cnmc.data.sources import Found
from cnmc.deploy.agreement import Agreement
from cnmc.deploy.graph import CellGraph
from cnmc.deploy.model_card import card_path, model_card
from cnmc.deploy.opening import open_network
from cnmc.deploy.release import Check
from cnmc.deploy.run_cells import CellsOfRun
from cnmc.deploy.runtime import GraphInfo
from cnmc.deploy.trained import read_trained
from cnmc.errors import CnmcError
from cnmc.export import export
from cnmc.runs.folder import RunFolder
from tests.conftest import ROOT
from tests.deploy.networks import random_graph
from tests.deploy.test_opening import SIZE, content
from tests.studies import write_run

NAME = "a|b <img src=x> [x](y) `c`\n# d"


@pytest.fixture(scope="module")
def graph() -> CellGraph:
    return random_graph("test_resnet", SIZE, num_rotations=2)


@pytest.fixture
def folder(graph: CellGraph, tmp_path: Path) -> RunFolder:
    """An honest run whose cells are not here and whose subjects have bad names."""
    folder = write_run(tmp_path, "proposal", 0, num_views=2, protocol="honest")
    predictions = folder.read_predictions()
    info = folder.read_info()
    assert predictions is not None
    assert info is not None
    folder.add_predictions(predictions.replace({"subject": {"H25": NAME}}))
    folder.best_checkpoint.parent.mkdir()
    whole = content(graph, run=info.identity(), epoch=info.best_epoch)
    whole["cnmc"]["config"]["data"] |= {"root": "no/such/folder", "work_dir": "no/such/folder"}
    whole["cnmc"]["config"]["split"] = {"kind": "nested", "seed": 3, NAME: 1, "path": "/secret/s"}
    whole["cnmc"]["config"]["model"]["weights"] = "/secret/w.pth"
    del whole["cnmc"]["decision"]
    folder.write_config(whole["cnmc"]["config"])
    torch.save(whole, folder.best_checkpoint)
    return folder


def test_file_and_card_of_a_run_folder(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    output = tmp_path / "out" / "cells.onnx"
    export(ExportConfig(checkpoint=str(folder.path), output=str(output)))
    told = capsys.readouterr().out
    assert "no/such/folder: no such folder" in told
    assert "checked on 8 generated cells: logits at most" in told
    assert open_network(output).info == open_network(folder.path).info
    card = (tmp_path / "out" / "model_card.md").read_text()
    written = {path.name for path in output.parent.iterdir()}
    assert written == {"cells.onnx", "model_card.md"}
    for expected in (
        "Not a medical device",
        "Protocol: honest",
        "### Cells that chose nothing (honest protocol)",
        "fingerprint of the data: " + "a" * 64,
        "checked on 8 generated cells",
        "training cells: not known: the data set is not here",
        "| sensitivity:0.95 |",
        "split.seed: 3",
        "CC BY 3.0",
    ):
        assert expected in card, expected
    # What files say is shown, and nothing more.
    assert r"a\|b \<img src=x\> \[x\]\(y\) \`c\` \# d | HEM |" in card
    assert r"- split.a\|b \<img src=x\> \[x\]\(y\) \`c\` \# d: 1" in card
    assert "<img" not in card.replace(r"\<img", "")
    for path in output.parent.iterdir():
        assert not [place for place in (b"/secret", bytes(tmp_path)) if place in path.read_bytes()]
    predictions = folder.read_predictions()
    assert predictions is not None
    num_cells = (predictions.query("role == 'test'")["subject"] == "53").sum()
    assert f"| 53 | ALL | {num_cells} | " in card


def test_a_checkpoint_alone_says_what_is_not_known(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.ckpt"
    folder.best_checkpoint.rename(alone)
    export(ExportConfig(str(alone), "torchscript", str(tmp_path / "cells.pt")))
    assert "logits at most" in capsys.readouterr().out
    card = (tmp_path / "model_card.md").read_text()
    assert card.count("not known: the checkpoint lies outside its run folder") == 3
    assert "No temperature or threshold was chosen" in card


def test_a_file_that_gives_something_else_is_not_written(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Agreement(to_eager=0.5, to_exact=0.5, rounding=1e-6, same_decisions=1.0)
    monkeypatch.setattr("cnmc.deploy.release.compare", lambda *_, **__: wrong)
    output = tmp_path / "out" / "cells.pt"
    output.parent.mkdir()
    output.write_text("earlier")
    with pytest.raises(CnmcError, match=r"cells\.pt: not written.*at most 5\.0e-01") as caught:
        export(ExportConfig(str(folder.path), "torchscript", str(output)))
    assert "\n" not in str(caught.value)
    assert output.read_text() == "earlier"
    assert list(output.parent.iterdir()) == [output]


def test_a_file_of_wrong_probabilities_is_not_written(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(images)
        return logits, torch.sigmoid(logits.mean(dim=1) / (2 * self.temperature))

    monkeypatch.setattr("cnmc.deploy.formats._Answer.forward", forward)
    output = tmp_path / "out" / "cells.pt"
    with pytest.raises(CnmcError, match=r"not written, .*, the probability \S+ from that of its"):
        export(ExportConfig(str(folder.path), "torchscript", str(output)))
    assert not output.parent.exists()


@pytest.mark.parametrize(
    ("at_once", "probability", "passed"),
    [
        (1e-4, 1e-5, True),
        (3e-4, 1e-5, False),
        (1e-4, 2e-4, False),
        (float("nan"), 0.0, False),
        (0.0, float("nan"), False),
    ],
)
def test_both_outputs_are_checked(at_once: float, probability: float, passed: bool) -> None:
    agreement = Agreement(1e-5, 1e-5, 1e-6, 1.0)
    check = Check(agreement, "8 cells", GraphInfo("resnet18", 8), at_once, probability)
    assert check.is_passed is passed


def test_a_card_that_fails_leaves_neither(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("cnmc.export.model_card", fail)
    output = tmp_path / "out" / "cells.pt"
    with pytest.raises(CnmcError, match=r"cells\.pt: cannot be written \(disk full\)"):
        export(ExportConfig(str(folder.path), "torchscript", str(output)))
    assert not output.parent.exists()


def test_a_card_takes_the_place_of_its_own_alone(tmp_path: Path) -> None:
    one, other = tmp_path / "a_b.onnx", tmp_path / "b.onnx"
    common = tmp_path / "model_card.md"
    assert card_path(one) == card_path(other) == common
    common.write_text("# Model card\n\n## What it is\n\n- file: a\\_b.onnx\n")
    assert card_path(one) == common
    assert card_path(other) == tmp_path / "b.onnx.model_card.md"
    common.write_bytes(b"\xff")
    assert card_path(one) == tmp_path / "a_b.onnx.model_card.md"


def test_the_card_of_another_file_stays(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.pt", "b.pt"):
        export(ExportConfig(str(folder.path), "torchscript", str(tmp_path / name)))
    assert "a.pt, model_card.md\n" in capsys.readouterr().out
    assert "- file: a.pt\n" in (tmp_path / "model_card.md").read_text()
    assert "- file: b.pt\n" in (tmp_path / "b.pt.model_card.md").read_text()


def test_a_card_tells_of_the_training_cells_and_of_eight_bits(
    folder: RunFolder, tmp_path: Path
) -> None:
    rows = [("train", 1, "2"), ("train", 1, "2"), ("train", 0, "H1"), ("val", 0, "H2")]
    cells = pd.DataFrame(rows, columns=["role", "label", "subject"])
    found = CellsOfRun(Manifest(tmp_path, cells, "", Found(cells)), cells, generated=False)
    info = GraphInfo("test_resnet", SIZE, precision="int8")
    agreement = Agreement(1.0, 1.0, 1e-6, 0.99, f1=0.8792, f1_of_eager=0.8800)
    trained = read_trained(folder.best_checkpoint)
    card = model_card(trained, Check(agreement, "512 cells", info), tmp_path / "a.xml", found)
    assert r"- training cells: 3 \(2 ALL, 1 HEM\) of 2 subjects" in card
    assert "results are those of the 32-bit network" in card
    assert "on 512 cells its F1 is -0.08 points from that" in card
    card = model_card(
        trained, Check(agreement, "8", replace(info, precision="float32")), tmp_path, found
    )
    assert "32-bit network" not in card


@pytest.mark.parametrize("key", ["data", "split"])
def test_a_configuration_that_is_none(key: str, graph: CellGraph, tmp_path: Path) -> None:
    whole = content(graph)
    whole["cnmc"]["config"][key] = "official"
    torch.save(whole, tmp_path / "best.ckpt")
    output = tmp_path / "out" / "cells.pt"
    with pytest.raises(CnmcError, match=rf"metadata cannot be read .*config\.{key} is no mapping"):
        export(ExportConfig(str(tmp_path / "best.ckpt"), "torchscript", str(output)))
    assert not output.parent.exists()


def test_eight_bits_need_the_cells_of_the_training(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(CnmcError, match=r"no/such/folder: no such folder"):
        export(ExportConfig(str(folder.path), "openvino_int8", str(tmp_path / "cells.xml")))


@pytest.mark.parametrize(("f1", "passed"), [(0.8792, True), (0.8779, True), (0.8775, False)])
def test_eight_bits_may_not_move_f1(f1: float, passed: bool) -> None:
    agreement = Agreement(3.0, 3.0, 1e-6, 0.99, f1=f1, f1_of_eager=0.8788)
    check = Check(agreement, "512 cells", GraphInfo("resnet18", 8, precision="int8"))
    assert check.is_passed is passed
    assert f"F1 {100 * f1:.2f}, of PyTorch 87.88, 99.0 % of decisions the same" in check.line()


@pytest.mark.parametrize(
    ("kind", "output", "said"),
    [
        ("tensorrt", "cells.onnx", "^format=tensorrt: expected one of onnx, "),
        ("onnx", "cells.xml", r"^output=cells\.xml: expected a file name that ends in \.onnx"),
    ],
)
def test_mistakes_are_named(kind: str, output: str, said: str) -> None:
    with pytest.raises(CnmcError, match=said):
        ExportConfig("best.ckpt", kind, output)


def test_what_was_not_given_is_named() -> None:
    wanted = "^checkpoint: must be given; add checkpoint=VALUE output=VALUE$"
    with pytest.raises(CnmcError, match=wanted):
        to_config(OmegaConf.structured(ExportConfig))


def test_the_name_of_a_run_folder_needs_no_quotes(tmp_path: Path) -> None:
    overrides = [f"checkpoint={tmp_path}/seed=0", "output=cells.onnx"]
    command = [sys.executable, "-m", "cnmc.export", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/seed=0: no such file")
    assert done.stderr.count("\n") == 1

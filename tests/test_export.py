"""``python -m cnmc.export``: only checked files are written, each with its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cnmc.config import ExportConfig, check
from cnmc.deploy.formats import CellsOfRun, Check
from cnmc.deploy.graph import read_trained
from cnmc.deploy.model_card import card_path, model_card
from cnmc.deploy.networks import open_network
from cnmc.errors import CnmcError
from cnmc.export import export
from cnmc.runs.folder import RunFolder
from tests.conftest import ROOT
from tests.deploy.networks import checkpoint_content, random_graph
from tests.studies import write_run

SIZE = 40
NAME = "a|b <img src=x> [x](y) `c`\n# d"
SHOWN = r"a\|b \<img src=x\> \[x\]\(y\) \`c\` \# d"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An honest run whose cells are not here and whose subjects have bad names."""
    root = tmp_path_factory.mktemp("runs")
    folder = write_run(root, "proposal", 0, num_views=2, protocol="honest")
    predictions, info = folder.read_predictions(), folder.read_info()
    assert predictions is not None
    assert info is not None
    folder.add_predictions(predictions.replace({"subject": {"H25": NAME}}))
    folder.best_checkpoint.parent.mkdir()
    whole = checkpoint_content(random_graph("test_resnet", SIZE, num_rotations=2))
    whole["cnmc"] |= {"run": info.identity(), "epoch": info.best_epoch}
    config = whole["cnmc"]["config"]
    config["data"] |= {"root": "/no/such/folder", "work_dir": "/no/such/work"}
    config["split"]["path"] = "/secret/split.csv"
    config["model"][NAME] = 1
    config["model"]["weights"] = "/secret/weights.pth"
    del whole["cnmc"]["decision"]
    folder.write_config(config)
    torch.save(whole, folder.best_checkpoint)
    return folder


@pytest.fixture(scope="module")
def exported(folder: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as an ONNX file."""
    output = tmp_path_factory.mktemp("exported") / "out" / "cells.onnx"
    export(ExportConfig(checkpoint=str(folder.path), output=str(output)))
    return output


def test_file_and_card_of_a_run_folder(folder: RunFolder, exported: Path) -> None:
    assert open_network(exported).info == open_network(folder.path).info
    assert {path.name for path in exported.parent.iterdir()} == {"cells.onnx", "model_card.md"}
    card = (exported.parent / "model_card.md").read_text()
    for expected in (
        "- file: cells.onnx\n- network: test\\_resnet\n",
        "Not a medical device",
        "### Cells that chose nothing",
        "| fingerprint of the data | " + "a" * 64,
        "8 generated cells",
        "| training cells | unknown |",
        "| sensitivity:0.95 |",
        "| split.seed | 3 |",
        "| model.weights | weights.pth |",
        "| split.path | split.csv |",
        f"| {SHOWN} | HEM |",
        f"| model.{SHOWN} | 1 |",
    ):
        assert expected in card, expected
    assert "<img" not in card.replace(r"\<img", "")
    predictions = folder.read_predictions()
    assert predictions is not None
    num_cells = (predictions.query("role == 'test'")["subject"] == "53").sum()
    assert f"| 53 | ALL | {num_cells} | " in card


def test_nothing_names_a_folder_of_the_machine(folder: RunFolder, exported: Path) -> None:
    for path in exported.parent.iterdir():
        for place in ("/secret", "/no/such", str(folder.path.parents[1]), str(ROOT)):
            assert place.encode() not in path.read_bytes()


def test_a_checkpoint_outside_its_run_folder(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "alone.ckpt").write_bytes(folder.best_checkpoint.read_bytes())
    config = ExportConfig(str(tmp_path / "alone.ckpt"), "openvino", str(tmp_path / "cells.xml"))
    export(config)
    card = (tmp_path / "model_card.md").read_text()
    assert "### Cells that" not in card
    assert (tmp_path / "cells.bin").exists()
    # Eight bits need the cells of the training.
    with pytest.raises(CnmcError, match="run folder"):
        export(replace(config, format="openvino_int8"))


def test_a_file_with_other_logits_is_not_written(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(images)
        return logits + 0.5, torch.sigmoid(logits.mean(dim=1))

    monkeypatch.setattr("cnmc.deploy.formats._Outputs.forward", forward)
    output = tmp_path / "cells.onnx"
    output.write_text("earlier")
    with pytest.raises(CnmcError, match=r"cells\.onnx") as caught:
        export(ExportConfig(str(folder.path), "onnx", str(output)))
    assert "\n" not in str(caught.value)
    assert output.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("failing", ["model_card", "copyfile"])
def test_all_files_are_written_or_none(
    failing: str, folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(f"cnmc.export.{failing}", fail)
    output = tmp_path / "cells.onnx"
    with pytest.raises(CnmcError, match="disk full"):
        export(ExportConfig(str(folder.path), "onnx", str(output)))
    assert not list(tmp_path.iterdir())


def test_a_card_replaces_only_its_own(tmp_path: Path) -> None:
    one, other = tmp_path / "a_b.onnx", tmp_path / "b.onnx"
    common = tmp_path / "model_card.md"
    assert card_path(one) == card_path(other) == common
    common.write_text("# Model card\n\n## What it is\n\n- file: a\\_b.onnx\n")
    assert card_path(one) == common
    assert card_path(other) == tmp_path / "b.onnx.model_card.md"


def test_a_card_of_eight_bits_and_of_training_cells(folder: RunFolder, tmp_path: Path) -> None:
    rows = [("train", 1, "2"), ("train", 1, "2"), ("train", 0, "H1"), ("val", 0, "H2")]
    found = CellsOfRun(tmp_path, pd.DataFrame(rows, columns=["role", "label", "subject"]))
    trained = read_trained(folder.best_checkpoint)
    result = Check("checked", -0.0008)
    card = model_card(trained, result, "a.xml", found)
    assert r"| training cells | 3 \(2 ALL, 1 HEM\) of 2 subjects |" in card
    assert "-0.08 points" in card
    assert "-0.08" not in model_card(trained, Check("checked", None), "a.xml", found)


@pytest.mark.parametrize(("kind", "output"), [("tensorrt", "cells.onnx"), ("onnx", "cells.xml")])
def test_formats_and_suffixes(kind: str, output: str) -> None:
    with pytest.raises(CnmcError, match="onnx"):
        check(ExportConfig("best.ckpt", kind, output))

"""Imports point down: the rooms of the design, lowest first."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cnmc"

LAYERS: dict[str, int] = {
    "errors": 0,
    "config": 0,
    "devices": 0,
    "extras": 0,
    "files": 0,
    "needs_train": 0,
    "runs": 0,
    "signals": 0,
    "provenance": 0,
    "data": 1,
    "model": 1,
    "analysis": 1,
    "callbacks": 2,
    "inference": 2,
    "benchmarking": 3,
    "build": 3,
    "launchers": 3,
    "reporting": 3,
    "screening": 3,
    "lifecycle": 3,
    "study": 3,
    "tracking": 3,
    "app": 3,
    "best": 4,
    "export": 4,
    "benchmark": 4,
    "report": 4,
    "train": 4,
    "predict": 4,
    "prepare": 4,
}
# Inside a room of its layer, one file may stand above the others.
LIGHTNING = {"model.module", "data.datamodule"}


def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py"
    }


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = [f"cnmc.{alias.name}" for alias in node.names if node.module == "cnmc"]
            names |= set(whole or [node.module or ""])
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def _room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_has_a_layer() -> None:
    assert {_room(module) for module in _modules()} == set(LAYERS)


@pytest.mark.parametrize("module", sorted(_modules()))
def test_imports_point_down(module: str) -> None:
    room = _room(module)
    for name in _imports(_modules()[module]):
        if not name.startswith("cnmc."):
            continue
        other = name.removeprefix("cnmc.")
        if _room(other) == room:
            # Inside a room the Lightning classes stand above the parts that they put together.
            assert other not in LIGHTNING, f"{module} imports {other}"
            continue
        assert LAYERS[_room(other)] <= LAYERS[room], f"{module} imports {other}, which is above it"
        # Neighbours in a layer of rooms stay apart: data and model never import each other.
        if LAYERS[room] == 1:
            assert LAYERS[_room(other)] == 0, f"{module} imports {other}"


@pytest.mark.parametrize("module", sorted(m for m in _modules() if _room(m) == "analysis"))
def test_analysis_needs_no_torch(module: str) -> None:
    roots = {name.split(".")[0] for name in _imports(_modules()[module])}
    assert not roots & {
        "torch",
        "pytorch_lightning",
        "torchmetrics",
        "timm",
        "albumentations",
        "cv2",
    }


def test_analysis_leaves_torch_alone_when_imported() -> None:
    code = "import sys, cnmc.analysis.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Each room imports only the rooms below it; the table is the one of the design."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cnmc"

FOUNDATION = {"errors", "files", "devices", "signals", "config"}
"""Small modules that every room may import."""

ALLOWED: dict[str, set[str]] = {
    "errors": {"signals"},
    "signals": set(),
    "files": {"errors"},
    "devices": {"errors"},
    "config": {"errors", "files", "devices"},
    "runs": FOUNDATION,
    "data": FOUNDATION,
    "model": FOUNDATION,
    "analysis": FOUNDATION | {"runs"},
    "training": FOUNDATION | {"data", "model", "runs", "analysis"},
    "tracking": FOUNDATION | {"runs", "analysis"},
    "reporting": FOUNDATION | {"runs", "analysis", "data"},
    "deploy": FOUNDATION | {"runs", "analysis", "data", "model"},
    "study": FOUNDATION | {"runs", "training"},
    "cli": FOUNDATION,
    "benchmarking": FOUNDATION | {"runs", "data", "model", "analysis", "training", "deploy"},
}
"""Which rooms the modules of a room may import, besides their own."""

COMMANDS = {"train", "prepare", "report", "best", "export", "predict", "benchmark"}
"""Modules that may import every room, and that no module imports."""

TORCH_FREE = {"analysis", "runs", "reporting", "cli"}
TORCH = {"torch", "torchvision", "pytorch_lightning", "torchmetrics", "timm", "albumentations"}


def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
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


def _rooms_imported(room: str) -> set[str]:
    """Return the other rooms that the modules of a room import."""
    names = {
        name.split(".")[1]
        for module, path in _modules().items()
        if _room(module) == room
        for name in _imports(path)
        if name.startswith("cnmc.")
    }
    return names - {room}


def test_every_module_is_in_the_table() -> None:
    rooms = {_room(module) for module in _modules()} - {"__init__", "__main__"}
    assert rooms == set(ALLOWED) | COMMANDS


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_is_below_them(room: str) -> None:
    assert _rooms_imported(room) <= ALLOWED[room]


def test_the_table_has_no_circle() -> None:
    left = dict(ALLOWED)
    while left:
        lowest = {room for room, below in left.items() if not below & (set(left) - {room})}
        assert lowest, f"a circle among {sorted(left)}"
        left = {room: below for room, below in left.items() if room not in lowest}


@pytest.mark.parametrize("room", sorted(TORCH_FREE))
def test_no_torch_where_it_is_not_needed(room: str) -> None:
    for module, path in _modules().items():
        if _room(module) == room:
            assert not {name.split(".")[0] for name in _imports(path)} & TORCH, module


def test_importing_the_analysis_does_not_import_torch() -> None:
    code = "import sys, cnmc.analysis.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_name_occurs_once() -> None:
    names = [path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))

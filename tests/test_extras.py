"""The base installation runs exported networks; what trains is an extra."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from itertools import chain

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cnmc.cli.app import TRAIN
from tests.conftest import ROOT

HIDDEN = (*TRAIN, "torchvision", "pyarrow", "scipy", "matplotlib", "safetensors", "sklearn")
HIDE = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN!r})); "
"""Importing any of these fails then, as if it were not installed."""

COMMANDS = ("best", "benchmark", "export", "prepare", "report", "train")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_what_runs_exported_networks_needs_no_more() -> None:
    done = _python(f"{HIDE}import cnmc.predict")
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_says_what_to_install() -> None:
    done = _python(
        f"{HIDE}from pathlib import Path; from cnmc.deploy.networks import open_network\n"
        "try:\n open_network(Path('pyproject.toml'))\n"
        "except ValueError as error:\n print(error)"
    )
    assert "cnmc[train]" in done.stdout, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_to_install(name: str) -> None:
    done = _python(f"{HIDE}import runpy; runpy.run_module('cnmc.{name}', run_name='__main__')")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cnmc[train]" in done.stderr


def test_the_extras_bring_what_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra, modules in (
        ("train", {*TRAIN, "scikit_learn"}),
        ("screen", {"onnxruntime", "openvino"}),
    ):
        items = project["optional-dependencies"][extra]
        brought = {item.partition(">")[0].partition("=")[0].replace("-", "_") for item in items}
        assert brought >= modules


def test_the_pinned_versions_are_those_that_the_package_accepts() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {
        canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines)
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    items = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    for requirement in map(Requirement, items):
        if requirement.name != "cnmc":
            pin = pins[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(pin), f"{requirement}: {pin}"

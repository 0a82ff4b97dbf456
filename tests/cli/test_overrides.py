"""Overrides: a path that a shell accepts needs no further quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnmc.cli.app import compose, quoted
from cnmc.config import Config, ReportConfig
from cnmc.errors import CnmcError

PATHS = (
    "2024_05_12",
    "1e3",
    "0012",
    "1.50",
    "true",
    "nan",
    "cells",
    "/lab/Patient Müller 1",
    "/Zelläpfel",
    "runs/run (copy)",
    "runs/a/seed=0,optimizer.lr=0.001",
    "C:\\cells\\",
    "a\\b",
    "it's",
    'a "b" c',
    "a{b}",
    "a:b",
    "$HOME",
    "%",
    "#1",
    "-x",
    " a ",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_read_as_it_was_typed(path: str) -> None:
    config, _ = compose([f"checkpoint={path}", f"input={path}", f"++output={path}"], "predict")
    assert (config.checkpoint, config.input, config.output) == ([path], [path], path)
    config, _ = compose([f"run.root={path}"])
    assert config.run.root == path


@pytest.mark.parametrize("path", [path for path in PATHS if "," not in path])
def test_a_path_that_a_study_could_sweep_is_read_as_it_was_typed(path: str) -> None:
    config, _ = compose([f"data.root={path}", f"model.weights={path}"])
    assert (config.data.root, config.model.weights) == (path, path)


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("[2024_05_12, b/1e3,1e3]", ["2024_05_12", "b/1e3", "1e3"]),
        ("[runs/a/seed=0,runs/b (copy)]", ["runs/a/seed=0", "runs/b (copy)"]),
        ('["a,b",c]', ["a,b", "c"]),
        ('"a b"', ["a b"]),
    ],
)
def test_lists_and_quotes_keep_their_meaning(value: str, paths: list[str]) -> None:
    config, _ = compose(["checkpoint=a", f"input={value}"], "predict")
    assert config.input == paths


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(CnmcError, match=r"^input=\[\]"):
        compose(["checkpoint=a", "input=[]"], "predict")


def test_a_comma_is_a_sweep_unless_the_path_exists(tmp_path: Path) -> None:
    sweep = [f"data.root={tmp_path}/a,{tmp_path}/b"]
    assert quoted(sweep, Config) == sweep
    (tmp_path / "a,b").mkdir()
    assert quoted([f"data.root={tmp_path}/a,b"], Config) == [f'data.root="{tmp_path}/a,b"']
    assert quoted(["data.root=a,b"], ReportConfig) == ['data.root="a,b"']


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["data.root=~/x", "run.root=~", "model.weights=a~/b", "split.path=null"]
    config, _ = compose(given)
    assert (config.data.root, config.run.root) == ("/home/me/x", "/home/me")
    assert (config.model.weights, config.split.path) == ("a~/b", None)


def test_other_arguments_are_quoted_only_where_hydra_cannot_read_them() -> None:
    given = ["optimizer.lr=1e-3", "seed=range(3)", "--cfg", "job", "~experiment", "split=a,b"]
    assert quoted(given, Config) == given
    assert quoted(["reference=norot (seed=1)"], ReportConfig) == ['reference="norot (seed=1)"']

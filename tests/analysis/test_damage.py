"""Damaged run folders: each is listed with its reason, and the other runs are reported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from cnmc.analysis.loading import read_study
from cnmc.analysis.results import run_table
from cnmc.analysis.summary import summarise
from cnmc.runs.folder import CONFIG, INFO, METRICS_CSV, PREDICTIONS
from tests.studies import write_run

Damage = Callable[[Path], object]
"""Damages the files of a run folder."""

NAN = float("nan")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three runs; seed 1 is the one to be damaged."""
    root = tmp_path_factory.mktemp("template")
    for seed in range(3):
        folder = write_run(root, "proposal", seed, num_epochs=2, num_views=2)
        folder.best_checkpoint.parent.mkdir()
        folder.best_checkpoint.write_bytes(b"not read by any of the tests")
    return root


@pytest.fixture
def runs(template: Path, tmp_path: Path) -> Path:
    """Return a copy of the three runs."""
    return shutil.copytree(template, tmp_path / "runs")


def _info(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        values = json.loads((folder / INFO).read_text()) | changes
        kept = {key: value for key, value in values.items() if value is not ...}
        (folder / INFO).write_text(json.dumps(kept))

    return damage


def _config(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(folder: Path) -> None:
        values = yaml.safe_load((folder / CONFIG).read_text())
        changed = change(values)
        (folder / CONFIG).write_text(yaml.safe_dump(values if changed is None else changed))

    return damage


def _predictions(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    def damage(folder: Path) -> None:
        change(pd.read_parquet(folder / PREDICTIONS)).to_parquet(folder / PREDICTIONS)

    return damage


def _metrics(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    def damage(folder: Path) -> None:
        change(pd.read_csv(folder / METRICS_CSV)).to_csv(folder / METRICS_CSV, index=False)

    return damage


def _replace(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def _truncate(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return damage


def _overwrite(name: str, seed: int) -> Damage:
    def damage(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        content = bytearray((folder / name).read_bytes())
        start, length = int(rng.integers(len(content))), int(rng.integers(1, 40))
        content[start : start + length] = rng.bytes(len(content[start : start + length]))
        (folder / name).write_bytes(content)

    return damage


def _first(column: str, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a change of the first row: one cell before training."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        values = table[column].tolist()
        values[0] = value
        return table.assign(**{column: values})

    return change


INFO_VALUES: dict[str, list[Any]] = {
    "status": [..., "done", 3],
    **{key: [...] for key in ("seed", "experiment", "name", "manifest_fingerprint", "started")},
    "protocol": [..., "other", 1],
    "config_hash": [..., "0" * 12, None],
}

CERTAIN: dict[str, tuple[str, Damage]] = {
    **{
        f"{INFO}: {key} {'missing' if value is ... else value!r}": (INFO, _info(**{key: value}))
        for key, values in INFO_VALUES.items()
        for value in values
    },
    **{
        f"{name}: {kind}": (name, _replace(name, content))
        for name in (INFO, CONFIG, METRICS_CSV, PREDICTIONS)
        for kind, content in {
            "nothing": b"",
            "zeros": bytes(300),
            "random": np.random.default_rng(0).bytes(300),
            "a list": b"[1, 2]",
            "nested": b"[" * 100_000,
            "a number": b"3",
        }.items()
    },
    f"{INFO}: another best epoch": (METRICS_CSV, _info(best_epoch=99)),
    f"{CONFIG}: truncated": (CONFIG, _truncate(CONFIG, 0.6)),
    f"{CONFIG}: a key is missing": (CONFIG, _config(lambda c: c.pop("optimizer") and None)),
    f"{CONFIG}: a date": (CONFIG, _config(lambda c: c.update(seed=date(2026, 1, 1)))),
    f"{CONFIG}: NaN": (CONFIG, _config(lambda c: c["optimizer"].update(lr=NAN))),
    **{
        f"{PREDICTIONS}: no {name}": (
            PREDICTIONS,
            _predictions(lambda t, name=name: t.drop(columns=name)),  # type: ignore[misc]
        )
        for name in ("epoch", "role", "cell_id", "subject", "label", "logit_0")
    },
    **{
        f"{PREDICTIONS}: {kind}": (PREDICTIONS, _predictions(change))
        for kind, change in {
            "label 2": _first("label", 2),
            "label NaN": _first("label", NAN),
            "label as text": lambda t: t.assign(label=t["label"].astype(str)),
            "a label differs between epochs": _first("label", 0),
            "a subject differs between epochs": _first("subject", "elsewhere"),
            "a subject is missing": _first("subject", None),
            "subjects are numbers": lambda t: t.assign(subject=5),
            "cells are numbers": lambda t: t.assign(cell_id=range(len(t))),
            "an epoch is NaN": _first("epoch", NAN),
            "every row has its own epoch": lambda t: t.assign(epoch=range(len(t))),
            "a role is missing": _first("role", None),
            "logits are text": lambda t: t.assign(logit_0="high"),
            "a logit is NaN": _first("logit_0", NAN),
            "a logit is infinite": _first("logit_0", float("inf")),
            "a row twice": lambda t: pd.concat([t, t.iloc[[5]]]),
            "a row is missing": lambda t: t.drop(index=5),
            "the best epoch is missing": lambda t: t[t["epoch"] == 0],
            "another cell in one epoch": _first("cell_id", "another"),
            "no rows": lambda t: t[:0],
        }.items()
    },
    **{
        f"{METRICS_CSV}: {kind}": (METRICS_CSV, _metrics(change))
        for kind, change in {
            "no epoch": lambda t: t.drop(columns="epoch"),
            "epochs are text": lambda t: t.assign(epoch="first"),
            "F1 is text": _first("val/f1", "high"),
            "an epoch twice": lambda t: pd.concat([t, t]),
            "only the first epoch": lambda t: t[:1],
            "no rows": lambda t: t[:0],
        }.items()
    },
}

UNCERTAIN: dict[str, tuple[str, Damage]] = {
    **{
        f"{name}: bytes overwritten ({seed})": (name, _overwrite(name, seed))
        for name in (INFO, CONFIG, METRICS_CSV, PREDICTIONS)
        for seed in range(12)
    },
    **{
        f"{name}: truncated to {share}": (name, _truncate(name, share))
        for name in (INFO, CONFIG, METRICS_CSV, PREDICTIONS)
        for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
    },
}


@pytest.mark.parametrize("kind", CERTAIN)
def test_a_damaged_run_is_left_out_with_its_reason(runs: Path, kind: str) -> None:
    name, damage = CERTAIN[kind]
    damage(runs / "proposal/seed=1")
    study = read_study(runs)
    assert [group.seeds for group in study.groups] == [[0, 2]]
    (line,) = study.gaps
    assert line.startswith(f"left out: {runs / 'proposal/seed=1'}")
    assert name in line
    assert "\n" not in line
    assert line in summarise(study)


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_random_damage_stops_nothing(runs: Path, template: Path, kind: str) -> None:
    name, damage = UNCERTAIN[kind]
    damage(runs / "proposal/seed=1")
    study = read_study(runs)
    summarise(study)
    if study.gaps:
        assert [group.seeds for group in study.groups] == [[0, 2]]
        assert name in study.gaps[0]
    elif name in (CONFIG, PREDICTIONS):
        # Only damage that changes no number is accepted.
        numbers = ["seed", "best_epoch", "f1", "auroc"]
        before, after = (run_table(read_study(root).groups)[numbers] for root in (template, runs))
        pd.testing.assert_frame_equal(before, after)


def _outcome(*command: str) -> Iterator[str]:
    whole = [sys.executable, "-m", *command]
    done = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    yield from done.stdout.splitlines()


def test_the_commands_list_what_is_left_out(runs: Path, tmp_path: Path) -> None:
    kinds = [
        f"{INFO}: status 'done'",
        f"{PREDICTIONS}: a label differs between epochs",
        f"{METRICS_CSV}: F1 is text",
        f"{CONFIG}: a date",
    ]
    for number, kind in enumerate(kinds, start=3):
        folder = shutil.copytree(runs / "proposal/seed=1", runs / f"proposal/seed={number}")
        CERTAIN[kind][1](folder)
    shutil.copytree(runs / "proposal/seed=1", runs / os.fsdecode(b"proposal/seed=9\xff"))
    lines = list(_outcome("cnmc.report", f"runs={runs}", f"output={tmp_path / 'report'}"))
    left_out = [line for line in lines if line.startswith("left out: ")]
    assert len(left_out) == len(kinds) + 1
    assert r"seed=9\xff" in left_out[-1]
    page = (tmp_path / "report/report.html").read_text()
    for number, kind in enumerate(kinds, start=3):
        assert f"proposal/seed={number}" in left_out[number - 3]
        assert CERTAIN[kind][0] in left_out[number - 3]
        assert f"proposal/seed={number}" in page
    table = pd.read_csv(tmp_path / "report/tables/runs.csv")
    assert sorted(set(table["seed"])) == [0, 1, 2]
    best = "\n".join(_outcome("cnmc.best", f"runs={runs}"))
    assert "best of 3 runs" in best
    assert f"left out: {len(kinds) + 1} runs" in best

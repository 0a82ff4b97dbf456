"""``python -m cnmc.best source=wandb``: runs and checkpoints at W&B."""

from __future__ import annotations

import builtins
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb

from cnmc.best import best
from cnmc.config import BestConfig
from cnmc.errors import CnmcError
from cnmc.tracking import keys
from cnmc.tracking.remote import Project
from tests.studies import write_run
from tests.tracking.fake_api import (
    ADDRESS,
    ENTITY,
    HONEST_SPLIT,
    OTHER_DATA,
    PROJECT,
    FakeApi,
    checkpoint,
    files_below,
    origin,
)

BEST = keys.artifact_name("proposal1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """An empty project."""
    made = FakeApi()
    monkeypatch.setattr(wandb, "Api", lambda: made)
    return made


@pytest.fixture
def study(api: FakeApi) -> FakeApi:
    """Three finished runs, one that is not, and runs of another kind and another program."""
    api.add_run(origin("proposal", 0), 0.87, {"best/f1_norot": 0.86})
    api.add_run(origin("proposal", 1), 0.89, {"best/auroc": 0.95})
    api.add_run(origin("proposal", 2), "NaN")
    api.add_run(origin("proposal", 3), 0.99, state="crashed")
    api.add_run(origin("proposal", 4), 0.99, job_type=keys.STUDY)
    api.add_run(origin("norot", 0), 0.5)
    api.add_run(None, 0.999)
    return api


def _best(**changes: Any) -> None:
    best(BestConfig(source="wandb", experiment="proposal", **changes))


@pytest.mark.usefixtures("study")
def test_finished_trainings_are_read() -> None:
    candidates, num_others = Project(PROJECT, None).candidates("proposal")
    first, second = candidates
    assert [run.label for run in candidates] == ["proposal/seed=0", "proposal/seed=1"]
    assert num_others == 2
    assert (first.f1, first.epoch, first.choosing["f1_norot"]) == (0.87, 3, 0.86)
    assert second.checkpoint == f"{ENTITY}/{PROJECT}/{BEST}:best"
    assert second.choosing["auroc"] == 0.95
    assert second.reported == {}
    everything, _ = Project(PROJECT, ENTITY).candidates(None)
    assert {run.origin["experiment"] for run in everything} == {"proposal", "norot"}


def test_a_run_that_an_agent_repeated_counts_once(study: FakeApi) -> None:
    study.add_run(origin("proposal", 1), 0.89)
    study.add_run(origin("proposal", 1), 0.89, state="running")
    candidates, num_others = Project(PROJECT, None).candidates("proposal")
    assert (len(candidates), num_others) == (2, 2)


def test_the_best_run_is_printed(study: FakeApi, capfd: pytest.CaptureFixture[str]) -> None:
    _best()
    shown = capfd.readouterr()
    assert "proposal/seed=1, seed 1, F1 89.00 at epoch 3" in shown.out
    assert f"{ENTITY}/{PROJECT}/{BEST}:best" in shown.out
    assert shown.err == ""
    assert study.changed == []


def test_test_cells_do_not_choose_the_run(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    honest = {"protocol": "honest", "split_fingerprint": HONEST_SPLIT}
    api.add_run(origin("proposal", 0, **honest), 0.87, {"test/f1": 0.91})
    api.add_run(origin("proposal", 1, **honest), 0.89, {"test/f1": 0.81})
    _best()
    shown = capsys.readouterr().out
    assert "proposal/seed=1, seed 1, F1 89.00" in shown
    assert "81.00" in shown


def test_runs_on_other_cells_are_not_compared(study: FakeApi) -> None:
    study.add_run(origin("proposal", 5, manifest_fingerprint=OTHER_DATA), 0.95)
    with pytest.raises(CnmcError, match="manifest=dddddddddddd"):
        _best()
    _best(manifest="dd")


def test_an_unknown_experiment_is_reported_with_the_known_ones(study: FakeApi) -> None:
    with pytest.raises(CnmcError, match=r"propsal.* norot, proposal$"):
        Project(PROJECT, None).candidates("propsal")
    study.stored.clear()
    with pytest.raises(CnmcError, match=f"{ENTITY}/{PROJECT}.*wandb sync"):
        Project(PROJECT, None).candidates("proposal")


def test_the_checkpoint_is_downloaded(study: FakeApi, tmp_path: Path) -> None:
    for _ in range(2):
        _best(download=True, output=str(tmp_path))
        assert files_below(tmp_path) == ["proposal-seed=1/best.ckpt"]
    content = (tmp_path / "proposal-seed=1/best.ckpt").read_bytes()
    assert content == study.artifacts["proposal1"].content


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (str(self.path), "w")


def test_a_wrong_checkpoint_is_not_written(study: FakeApi, tmp_path: Path) -> None:
    output, executed = tmp_path / "out", tmp_path / "executed"
    item = study.artifacts["proposal1"]
    buffer = io.BytesIO()
    torch.save({"cnmc": {}, "state_dict": _Attack(executed)}, buffer)
    output.mkdir()

    def refused(words: str) -> None:
        with pytest.raises(CnmcError, match=words):
            _best(download=True, output=str(output))
        assert files_below(output) == []

    for content, words in (
        (checkpoint(origin("proposal", 0), 3), f"{BEST}:best.*proposal0"),
        (checkpoint(origin("proposal", 1), 2), f"{BEST}:best.*2"),
        (buffer.getvalue(), "best.ckpt"),
    ):
        item.content = content
        refused(words)
    assert not executed.exists()
    item.damaged = True
    refused(BEST)
    study.artifacts.clear()
    refused("proposal/seed=1")


@pytest.mark.usefixtures("study")
def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CnmcError, match=r"output=.*file"):
        _best(download=True, output=str(tmp_path / "file"))


def test_one_checkpoint_is_the_best_of_its_study(study: FakeApi) -> None:
    study.add_run(origin("proposal", 7, manifest_fingerprint=OTHER_DATA), 0.95)
    for run_id in ("proposal0", "proposal3", "proposal7", "norot0"):
        study.artifacts[run_id].aliases.append(keys.BEST_OF_STUDY)
    _best(promote=True, manifest="aa")
    assert study.holders() == ["proposal1", "norot0", "proposal7"]
    # The new one has the alias before the others lose it.
    first, *others = study.changed
    assert first == BEST
    assert set(others) == {keys.artifact_name("proposal0"), keys.artifact_name("proposal3")}
    assert study.artifacts["proposal1"].aliases == ["best", "seed-1", keys.BEST_OF_STUDY]
    study.changed.clear()
    _best(promote=True, manifest="aa")
    assert study.changed == []


def test_the_best_local_run_is_promoted_in_its_own_project(study: FakeApi, tmp_path: Path) -> None:
    logger = {"kind": "wandb", "project": PROJECT, "entity": None}
    options: dict[str, Any] = {"run_id": "proposal1", "best_epoch": 3, "config": {"logger": logger}}
    folder = write_run(tmp_path / "runs", "proposal", 1, **options)
    folder.best_checkpoint.parent.mkdir()
    folder.best_checkpoint.write_bytes(checkpoint(origin("proposal", 1), 3))
    best(BestConfig(runs=str(tmp_path / "runs"), promote=True))
    assert study.holders() == ["proposal1"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (wandb.errors.CommError(f"POST {ADDRESS}/graphql: HTTP 403"), "CommError.*wandb login"),
        (wandb.errors.UsageError(f"api_key not configured, {ADDRESS}"), "UsageError"),
        (ConnectionError(f"{ADDRESS}: no route"), "ConnectionError.*network"),
    ],
)
def test_an_error_of_the_server_is_one_line_without_its_address(
    study: FakeApi, error: Exception, words: str
) -> None:
    study.error = error
    with pytest.raises(CnmcError, match=words) as caught:
        _best()
    assert caught.value.__cause__ is None
    assert ADDRESS not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_project_or_entity_is_named(study: FakeApi) -> None:
    with pytest.raises(CnmcError, match=f"{ENTITY}/other.*project=NAME"):
        _best(project="other")
    study.default_entity = None
    with pytest.raises(CnmcError, match="entity=NAME"):
        _best()

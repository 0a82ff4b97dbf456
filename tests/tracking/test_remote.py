"""Runs and checkpoints at W&B, through its own public API over recorded answers."""

from __future__ import annotations

import builtins
import errno
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
import wandb
from wandb.apis.public.service_api import ServiceApi

from cnmc.best import best
from cnmc.config import BestConfig
from cnmc.errors import CnmcError
from cnmc.model.checkpoint import load_checkpoint
from cnmc.tracking import keys as names
from cnmc.tracking.remote import Project
from tests.studies import write_run
from tests.tracking.recorded import (
    ENTITY,
    FILES,
    HONEST_SPLIT,
    HOST,
    KEY,
    OTHER_DATA,
    PROJECT,
    Server,
    checkpoint,
    files_below,
    origin,
    refuse,
)

BEST, SECOND = names.artifact_name("proposal1"), names.artifact_name("proposal0")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server that answers W&B's client, which is logged in."""
    for name in ("ENTITY", "PROJECT", "MODE", "SILENT", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("DIR", "CACHE_DIR", "DATA_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb"))
    (tmp_path / "wandb").mkdir()
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", f"https://{HOST}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    made = Server()
    # Not bound to what they replace, so they are called without it.
    monkeypatch.setattr(ServiceApi, "send_api_request", made.send)
    monkeypatch.setattr(requests.Session, "send", made.fetch)
    # What other tests have set up would keep its own settings.
    wandb.teardown()
    yield made
    wandb.teardown()


@pytest.fixture
def study(server: Server) -> Server:
    """Three finished runs, one that is not, and runs of another kind and another program."""
    server.add_run(origin("proposal", 0), 0.87, summary={"best/f1_norot": 0.86})
    server.add_run(origin("proposal", 1), 0.89, summary={"best/auroc": 0.95})
    server.add_run(origin("proposal", 2), "NaN")
    server.add_run(origin("proposal", 3), 0.99, state="crashed")
    server.add_run(origin("proposal", 4), 0.99, job_type=names.STUDY)
    server.add_run(origin("norot", 0), 0.5)
    server.add_run(None, 0.999)
    return server


def _best(**changes: Any) -> None:
    best(BestConfig(source="wandb", experiment="proposal", **changes))


def test_finished_trainings_are_read(study: Server) -> None:
    candidates, num_unfinished = Project(PROJECT, None).candidates("proposal")
    assert study.filters == [{"jobType": "train", "group": "proposal"}] * len(study.filters)
    assert len(study.filters) > 1, "the listing has several pages"
    assert [run.label for run in candidates] == [f"proposal/seed={seed}" for seed in range(3)]
    assert num_unfinished == 1
    first, second, third = candidates
    assert (first.f1, first.epoch, first.choosing["f1_norot"]) == (0.87, 3, 0.86)
    assert second.checkpoint == f"{ENTITY}/{PROJECT}/{BEST}:best"
    assert second.choosing["auroc"] == 0.95
    assert second.reported == {}
    assert math.isnan(third.f1)


@pytest.mark.parametrize("f1", ["NaN", "Infinity", None, {"max": 0.9}])
def test_what_is_no_number_is_no_f1(server: Server, f1: Any) -> None:
    server.add_run(origin("proposal", 0), f1)
    server.add_run(origin("proposal", 1), 0.9, epoch="NaN")
    candidates, _ = Project(PROJECT, None).candidates("proposal")
    assert [math.isnan(run.f1) for run in candidates] == [True, True]


def test_all_experiments_are_read_without_one(study: Server) -> None:
    candidates, _ = Project(PROJECT, ENTITY).candidates(None)
    assert study.filters[0] == {"jobType": "train"}
    assert {run.origin["experiment"] for run in candidates} == {"proposal", "norot"}


def test_the_best_run_is_named_without_server_or_key(
    study: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    _best()
    told = capfd.readouterr()
    assert "best of 2 runs: proposal/seed=1, seed 1, F1 89.00 at epoch 3" in told.out
    assert f"checkpoint {ENTITY}/{PROJECT}/{BEST}:best" in told.out
    assert "left out: 1 run not finished" in told.out
    assert "left out: 1 run finished without an F1" in told.out
    assert "download=true fetches" in told.out
    assert told.err == ""
    assert HOST not in told.out
    assert KEY not in told.out
    assert study.changes == []


def test_reported_cells_never_choose(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    honest = {"protocol": "honest", "split_fingerprint": HONEST_SPLIT}
    server.add_run(origin("proposal", 0, **honest), 0.87, summary={"test/f1": 0.91})
    server.add_run(origin("proposal", 1, **honest), 0.89, summary={"test/f1": 0.81})
    _best()
    told = capsys.readouterr().out
    assert "best of 2 runs: proposal/seed=1" in told
    chosen, reported = told.split("which chose nothing")
    assert "89.00" in chosen
    assert "81.00" not in chosen
    assert "81.00" in reported


@pytest.mark.parametrize(
    ("changes", "differing", "way"),
    [
        ({"manifest_fingerprint": OTHER_DATA}, "manifest", "manifest=dddddddddddd"),
        ({"split_fingerprint": HONEST_SPLIT}, "split", "split=cccccccccccc"),
        (
            {"split_fingerprint": HONEST_SPLIT, "protocol": "honest"},
            "protocol and split",
            "protocol=honest",
        ),
    ],
)
def test_runs_on_other_cells_are_not_compared(
    study: Server, changes: dict[str, str], differing: str, way: str
) -> None:
    study.add_run(origin("proposal", 5, **changes), 0.95)
    with pytest.raises(CnmcError, match=f"differ in {differing}, .* or {way}"):
        _best()
    key, value = way.split("=")
    _best(**{key: value})


def test_an_unknown_experiment_is_told_with_those_there_are(study: Server) -> None:
    with pytest.raises(CnmcError, match=r"no run of propsal there; it has norot, proposal$"):
        Project(PROJECT, None).candidates("propsal")
    study.runs.clear()
    with pytest.raises(CnmcError, match="no run of this program there"):
        Project(PROJECT, None).candidates("proposal")


def test_the_checkpoint_is_fetched(
    study: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        _best(download=True, output=str(tmp_path / "out"))
        assert files_below(tmp_path / "out") == ["proposal-seed=1/best.ckpt"]
    path = tmp_path / "out/proposal-seed=1/best.ckpt"
    assert path.read_bytes() == study.stored("proposal1").content
    assert load_checkpoint(path)["cnmc"]["run"]["run_id"] == "proposal1"
    told = capfd.readouterr()
    assert f"model.weights={path}" in told.out
    assert told.err == ""


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.open, (str(self.path), "w")


def test_what_is_not_the_runs_own_is_never_written(study: Server, tmp_path: Path) -> None:
    output, ran = tmp_path / "out", tmp_path / "ran"
    item = study.stored("proposal1")
    good = item.content

    def refused(words: str) -> None:
        with pytest.raises(CnmcError, match=words) as told:
            _best(download=True, output=str(output))
        assert FILES not in str(told.value)
        assert files_below(output) == []

    output.mkdir()
    item.content = checkpoint(origin("proposal", 0), 3)
    refused("its run_id is proposal0, but proposal1")
    item.content = checkpoint(origin("proposal", 1), 2)
    refused("its epoch is 2, but 3")
    buffer = io.BytesIO()
    torch.save({"cnmc": {}, "state_dict": _Attack(ran)}, buffer)
    item.content = buffer.getvalue()
    refused("broken, so nothing was written")
    assert not ran.exists()
    item.content, item.sent = good, good[:-1] + b"?"
    refused("what came is not what was sent")
    item.metadata["split_fingerprint"] = HONEST_SPLIT
    refused("split_fingerprint is c+, but b+ in the run")


@pytest.mark.usefixtures("study")
def test_a_disk_that_refuses_is_told_from_a_network_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CnmcError, match=r"output=.*file: the checkpoint cannot be written"):
        _best(download=True, output=str(tmp_path / "file"))

    def fail(error: OSError) -> Any:
        def send(*_: Any, **__: Any) -> Any:
            raise error

        return send

    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(requests.Session, "send", fail(full))
    with pytest.raises(CnmcError, match=r"output=.*cannot be written .*No space left"):
        _best(download=True, output=str(tmp_path / "out"))
    lost = requests.ConnectionError(f"HTTPSConnectionPool(host='{HOST}')")
    monkeypatch.setattr(requests.Session, "send", fail(lost))
    with pytest.raises(CnmcError, match=r"downloading .*: no answer of use \(ConnectionError\)"):
        _best(download=True, output=str(tmp_path / "out"))
    assert files_below(tmp_path / "out") == []


def test_a_checkpoint_that_was_not_sent_is_told(study: Server) -> None:
    study.artifacts.clear()
    with pytest.raises(CnmcError, match=rf"{BEST}:best: W&B has no checkpoint of proposal/seed=1"):
        _best(download=True)


def test_one_checkpoint_is_the_best_of_its_study(
    study: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    other = origin("proposal", 7, manifest_fingerprint=OTHER_DATA)
    study.add_run(other, 0.95)
    for run_id in ("proposal0", "proposal3", "proposal7", "norot0"):
        study.stored(run_id).aliases.append(names.BEST_OF_STUDY)
    _best(promote=True, manifest="aa")
    crashed, kept = names.artifact_name("proposal3"), [names.artifact_name("norot0")]
    kept.append(names.artifact_name("proposal7"))
    assert study.holders() == [BEST, *kept]
    # The new one has it before the others lose it.
    assert study.changes == [
        ("add", (BEST, names.BEST_OF_STUDY)),
        ("delete", (SECOND, names.BEST_OF_STUDY)),
        ("delete", (crashed, names.BEST_OF_STUDY)),
    ]
    assert study.stored("proposal1").aliases[:2] == ["best", "seed-1"]
    assert study.stored("proposal1").metadata["epoch"] == 3
    assert f"no longer: {SECOND}" in capsys.readouterr().out
    study.changes.clear()
    _best(promote=True, manifest="aa")
    assert study.changes == []


def test_the_best_of_run_folders_is_promoted_where_it_was_logged(
    study: Server, tmp_path: Path
) -> None:
    logger = {"kind": "wandb", "project": PROJECT, "entity": None}
    options: dict[str, Any] = {"run_id": "proposal1", "best_epoch": 3, "config": {"logger": logger}}
    folder = write_run(tmp_path / "runs", "proposal", 1, **options)
    folder.best_checkpoint.parent.mkdir()
    folder.best_checkpoint.write_bytes(checkpoint(origin("proposal", 1), 3))
    best(BestConfig(runs=str(tmp_path / "runs"), promote=True))
    assert study.holders() == [BEST]


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        (refuse(401), "the key was refused; wandb login, or set WANDB_API_KEY"),
        (refuse(None), "there is no network, or the key is none; wandb login"),
        (refuse(None, "Runs"), r"no answer of use \(WandbApiFailedError\); try again"),
        (refuse(502, "Runs"), r"no answer of use \(HTTP 502\); try again"),
        (refuse(403, "Runs"), r"not open to this account; .* \(HTTP 403\)"),
        (refuse(500, "ArtifactMembershipByName"), rf"{BEST}:best: no answer of use \(HTTP 500\)"),
        (refuse(403, "AddAliases"), r"promoting: .*not open to this account"),
    ],
)
def test_a_server_that_refuses_is_told_in_one_line(study: Server, failing: Any, words: str) -> None:
    study.failing = failing
    with pytest.raises(CnmcError, match=words) as told:
        _best(promote=True)
    assert told.value.__cause__ is None, "the client's own words would be shown"
    assert KEY not in str(told.value)
    assert HOST not in str(told.value)
    assert "\n" not in str(told.value)
    assert not study.holders()


def test_a_project_or_entity_that_is_not_there_is_told(study: Server) -> None:
    with pytest.raises(CnmcError, match=r"reading hematology/other: not there.*give project=NAME"):
        _best(project="other")
    study.default_entity = None
    with pytest.raises(CnmcError, match=r"entity=null: .*give entity=NAME"):
        _best()


@pytest.mark.usefixtures("server")
def test_a_key_is_never_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"wandb.errors.term._sys_{stream}_isatty", lambda: True)
    monkeypatch.setattr("wandb.util.prompt_choices", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(CnmcError, match="nobody is logged in; wandb login"):
        Project(PROJECT, None)

"""What W&B receives of runs and studies, read back from its offline files."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from scipy.special import expit

from cnmc.analysis.loading import load_study
from cnmc.analysis.metrics import METRICS, auroc
from cnmc.analysis.results import run_table
from cnmc.cli.app import compose
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder, RunInfo, find_runs
from cnmc.runs.identity import without_folders
from cnmc.study.plan import job_folder
from cnmc.tracking import keys, wandb_run
from cnmc.tracking.loggers import log_study
from cnmc.train import study_figures, train
from cnmc.training.recorder import RunRecorder
from tests.conftest import TINY
from tests.studies import write_run
from tests.tracking.transactions import LoggedRun, read_logs

KEY = "0123456789abcdef0123456789abcdef01234567"
PERSON = "somebody@somewhere.example"
MACHINE, SERVER = "somebodys-machine", "wandb.somebodys-server.example"
OFFLINE = ("logger=wandb", "logger.mode=offline")


@pytest.fixture(scope="module", autouse=True)
def _surroundings() -> Iterator[None]:
    """A key, a machine and a server whose names must not be found anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_BASE_URL", f"https://{SERVER}")
        patch.setenv("SLURM_SUBMIT_HOST", MACHINE)
        patch.setenv("SLURM_JOB_NODELIST", MACHINE)
        patch.setenv("WANDB_USER_EMAIL", PERSON)
        patch.setattr(socket, "gethostname", lambda: MACHINE)
        yield


def _train(data: Path, root: Path, *overrides: str) -> RunFolder:
    places = [f"data.root={data / 'data'}", f"data.work_dir={data / 'work'}", f"run.root={root}"]
    config, resolved = compose([*TINY, *OFFLINE, *places, *overrides])
    folder = job_folder(config, [], {})
    train(config, resolved, folder)
    return folder


def _info(folder: RunFolder) -> RunInfo:
    info = folder.read_info()
    assert info is not None
    return info


def _test_cells(folder: RunFolder) -> Any:
    """Return the predictions of the test cells, with the probability of ALL."""
    predictions = folder.read_predictions()
    assert predictions is not None
    test = predictions[predictions["role"] == "test"]
    return test.assign(p=expit(test.filter(like="logit_").astype(float).mean(axis=1)))


Train = Callable[..., RunFolder]


@pytest.fixture
def trained(tiny_data: Path, tmp_path: Path) -> Train:
    """Train in this process, logged offline."""
    return lambda *overrides: _train(tiny_data, tmp_path / "runs", *overrides)


@pytest.fixture(scope="module")
def two(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Two runs of one process, with protocol honest."""
    root = tmp_path_factory.mktemp("two") / "runs"
    overrides = ("split=nested", "split.val_fraction=0.4", "logger.log_last=true")
    return [_train(tiny_data, root, *overrides, f"seed={seed}") for seed in (0, 1)]


@pytest.fixture(scope="module")
def logged(two: list[RunFolder]) -> list[tuple[RunFolder, LoggedRun]]:
    found = [read_logs(folder.path) for folder in two]
    assert [len(runs) for runs in found] == [1, 1]
    return [(folder, runs[0]) for folder, runs in zip(two, found, strict=True)]


Logged = list[tuple[RunFolder, LoggedRun]]


def test_each_run_has_its_identity_and_configuration(logged: Logged) -> None:
    for seed, (folder, log) in enumerate(logged):
        info, run = _info(folder), log.run
        assert (run.run_id, run.display_name) == (info.run_id, f"proposal/seed={seed}")
        assert (run.run_group, run.job_type) == ("proposal", keys.TRAIN)
        assert list(run.tags) == ["honest", "test_resnet"]
        assert run.notes.startswith("PROPOSAL: ")
        assert "@package" not in run.notes
        assert log.exit_code == 0
        stored = without_folders(folder.read_config())
        assert {key: log.config[key] for key in stored} == stored
        origin = log.config[keys.ORIGIN]
        assert {key: origin[key] for key in info.identity()} == info.identity()
        assert origin["versions"] == info.versions


def test_no_folder_person_machine_or_key_leaves_the_machine(logged: Logged) -> None:
    for folder, log in logged:
        root = Path(folder.read_config()["data"]["root"])
        assert root.is_absolute()
        assert log.config["data"]["root"] == root.name
        for place in (str(root.parent), str(folder.path.parent)):
            assert place not in json.dumps(log.config)
            for path in (folder.best_checkpoint, folder.last_checkpoint):
                assert place.encode() not in path.read_bytes()
        for path in folder.path.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not any(s.encode() in content for s in (KEY, MACHINE, SERVER, PERSON)), path


def test_the_history_is_the_metrics_by_epoch(logged: Logged) -> None:
    for folder, log in logged:
        metrics = folder.read_metrics()
        assert [row[keys.EPOCH] for row in log.epochs] == metrics["epoch"].tolist() == [0, 1, 2]
        for row, (_, stored) in zip(log.epochs, metrics.iterrows(), strict=True):
            assert {k: row[k] for k in stored.dropna().index} == stored.dropna().to_dict()
        assert all(keys.EPOCH not in row for row in log.history if keys.LOSS_STEP in row)
        axes = log.metrics
        assert axes["train/*"] == axes["val/*"] == axes["lr/*"] == keys.EPOCH
        assert axes[keys.LOSS_STEP] == "trainer/global_step"


def test_the_summary_is_that_of_the_best_epoch(logged: Logged) -> None:
    for folder, log in logged:
        info = _info(folder)
        best = folder.read_metrics().set_index("epoch").loc[info.best_epoch]
        assert log.summary["best/epoch"] == info.best_epoch
        for name in (*METRICS, "loss", "f1_norot"):
            assert log.summary[f"best/{name}"] == best[f"val/{name}"]
        assert log.summary["best/checkpoint"] == f"model-{info.run_id}:best"
        test = _test_cells(folder)
        expected = auroc(test["label"].to_numpy(), test["p"].to_numpy())
        assert log.summary["test/auroc"] == pytest.approx(expected)


def _table(folder: RunFolder, log: LoggedRun, key: str) -> dict[str, list[Any]]:
    (path,) = folder.path.glob(f"wandb/offline-run-*/files/{log.summary[key]['path']}")
    table = json.loads(path.read_text())
    columns = zip(*table["data"], strict=True)
    return dict(zip(table["columns"], map(list, columns), strict=True))


def test_tables_and_charts_show_the_reported_cells(logged: Logged) -> None:
    for folder, log in logged:
        test = _test_cells(folder)
        wrong = (test["p"] > 0.5) != (test["label"] == 1)
        subjects = _table(folder, log, keys.SUBJECTS)
        right = (~wrong).groupby(test["subject"]).mean()
        assert dict(zip(subjects["subject"], subjects["accuracy"], strict=True)) == pytest.approx(
            right.to_dict()
        )
        cells = _table(folder, log, keys.WRONG_CELLS)
        found = dict(zip(cells["cell_id"], cells["probability"], strict=True))
        expected = dict(zip(test["cell_id"][wrong], test["p"][wrong], strict=True))
        assert found == pytest.approx(expected)
        distance = np.abs(np.array(cells["probability"]) - np.array(cells["label"]))
        assert (np.diff(distance) <= 0).all()
        (table,) = (a for a in log.artifacts if a.name.endswith(keys.WRONG_CELLS))
        images = [e for e in table.manifest.contents if e.path.endswith(".png")]
        assert len(images) == len(cells["cell_id"])
        for chart in (keys.CONFUSION_MATRIX, keys.ROC, keys.PRECISION_RECALL):
            assert log.summary[f"{chart}_table"]["_type"] == "table-file"
        matrix = _table(folder, log, f"{keys.CONFUSION_MATRIX}_table")
        by_cell = zip(matrix["Actual"], matrix["Predicted"], matrix["nPredictions"], strict=True)
        assert sum(n for truth, called, n in by_cell if truth != called) == wrong.sum()


def _models(log: LoggedRun) -> list[Any]:
    return [artifact for artifact in log.artifacts if artifact.type == keys.MODEL]


def test_checkpoints_are_artifacts(logged: Logged) -> None:
    for seed, (folder, log) in enumerate(logged):
        info = _info(folder)
        best, last = _models(log)
        assert set(best.aliases) >= {keys.BEST, f"seed-{seed}"}
        assert keys.LAST in last.aliases
        assert keys.BEST not in last.aliases
        assert best.name == last.name == f"model-{info.run_id}"
        metadata = json.loads(best.metadata)
        assert metadata["epoch"] == info.best_epoch
        assert metadata["summary"]["best/f1"] == info.best_f1
        assert metadata["manifest_fingerprint"] == info.manifest_fingerprint
        for artifact, path in ((best, folder.best_checkpoint), (last, folder.last_checkpoint)):
            (entry,) = artifact.manifest.contents
            # The file is not copied.
            assert Path(entry.local_path) == path
            assert (entry.size, entry.path) == (path.stat().st_size, path.name)


def test_checkpoints_and_images_can_be_kept_local(
    trained: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = trained("logger.log_model=false", "logger.num_images=0", "trainer.max_epochs=1")
    (log,) = read_logs(folder.path)
    assert _models(log) == []
    assert keys.WRONG_CELLS not in log.summary
    assert "best/checkpoint" not in log.summary
    assert log.summary["best/epoch"] == 1
    shown = "".join(capfd.readouterr())
    assert shown.count("wandb sync") == 1
    assert not any(secret in shown for secret in (KEY, MACHINE, SERVER))


class _StoppedError(BaseException):
    """Stands for Ctrl-C."""


def test_a_resumed_run_continues_the_same_wandb_run(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = RunRecorder._store_metrics

    def stop(self: RunRecorder, trainer: Any, epoch: int) -> None:
        if epoch == 2:
            raise _StoppedError
        store(self, trainer, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecorder, "_store_metrics", stop)
        with pytest.raises(_StoppedError):
            trained("trainer.max_epochs=3")
    (first,) = read_logs(tmp_path / "runs" / "proposal" / "seed=0")
    assert first.exit_code == 1
    assert first.summary["best/epoch"] == 1
    folder = trained("trainer.max_epochs=3")
    _, second = read_logs(folder.path)
    assert first.run.run_id == second.run.run_id == _info(folder).run_id
    assert [row["epoch"] for row in first.epochs] == [0, 1]
    assert [row["epoch"] for row in second.epochs] == [2, 3]
    assert second.summary["best/epoch"] == _info(folder).best_epoch


def test_a_run_of_an_agent_has_the_id_of_the_agent_even_if_it_was_finished(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = trained()
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nseed:\n  value: 0\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    assert trained().path == folder.path
    before, again = sorted(read_logs(folder.path), key=lambda log: log.run.run_id == "agents")
    assert again.run.run_id == "agents" != before.run.run_id
    assert [row["epoch"] for row in again.epochs] == [0, 1, 2]
    for key in ("best/f1", "best/epoch", "best/loss", "best/checkpoint"):
        assert again.summary[key] == before.summary[key]
    (artifact,) = _models(again)
    assert artifact.name == f"model-{before.run.run_id}"


def test_a_failure_of_wandb_leaves_the_run_finished(
    trained: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every call of W&B raises at random."""
    dice = random.Random(5)
    raised: set[str] = set()

    def break_at_random(owner: Any, name: str, probability: float = 0.5) -> None:
        real = getattr(owner, name)

        def broken(*args: Any, **kwargs: Any) -> Any:
            if dice.random() < probability:
                raised.add(name)
                raise OSError(28, f"No space left on {MACHINE}")
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)

    for name in ("log", "log_artifact", "finish"):
        break_at_random(wandb.Run, name)
    break_at_random(wandb.Run, "define_metric", 0.1)
    break_at_random(wandb, "init", 0.1)
    break_at_random(wandb.plot, "roc_curve")
    for seed in range(5):
        folder = trained(f"seed={seed}", "trainer.max_epochs=1")
        assert _info(folder).status == "finished"
        predictions = folder.read_predictions()
        assert predictions is not None
        assert predictions["epoch"].unique().tolist() == [0, 1]
        for path in (folder.best_checkpoint, folder.last_checkpoint):
            load_checkpoint(path)
    assert {"log", "finish"} <= raised
    shown = capsys.readouterr().err
    assert MACHINE not in shown
    # One at the start of a run, and one after it.
    assert 0 < shown.count("(OSError)") <= 10


def test_an_unreachable_server_leaves_the_run_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = wandb.init

    def unreachable(**arguments: Any) -> Any:
        if arguments["mode"] == "online":
            raise wandb.errors.CommError(f"cannot reach {SERVER}")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", unreachable)
    config, resolved = compose(["logger=wandb", "logger.mode=online"])
    info = _info(write_run(tmp_path, "proposal", 0))
    names = {"job_type": keys.TRAIN, "run_id": "somewhere", "name": "name" * 50}
    run = wandb_run.start(config.logger, tmp_path, info, resolved, **names)
    assert run is not None
    assert run.offline
    run.finish(exit_code=0)
    (log,) = read_logs(tmp_path)
    assert log.run.display_name == ("name" * 50)[:128]
    shown = capsys.readouterr().err
    assert "CommError" in shown
    assert SERVER not in shown


@pytest.mark.parametrize(("login", "mode"), [(True, "online"), (False, "offline")])
def test_the_mode_follows_the_login(
    monkeypatch: pytest.MonkeyPatch, login: bool, mode: str
) -> None:
    monkeypatch.setattr(wandb, "login", lambda prompt: login and not prompt)
    wandb_run.default_mode.cache_clear()
    assert wandb_run.default_mode() == mode


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_the_commands_wandb_disabled_and_wandb_offline_hold(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {mode}\n")
    wandb.teardown()
    wandb_run.default_mode.cache_clear()
    try:
        assert wandb_run.default_mode() == mode
    finally:
        wandb.teardown()


def test_a_failed_login_means_offline_and_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> bool:
        raise wandb.errors.AuthenticationError(f"{SERVER} refused {KEY}")

    monkeypatch.setattr(wandb, "login", refuse)
    wandb_run.default_mode.cache_clear()
    assert [wandb_run.default_mode() for _ in range(3)] == ["offline"] * 3
    shown = capsys.readouterr().err
    assert shown.count("AuthenticationError") == 1
    assert not any(secret in shown for secret in (KEY, SERVER))


def test_the_same_command_logs_what_an_interrupted_one_did_not(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wandb_run, "_log_checkpoints", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("trainer.max_epochs=1")
    folder = trained("trainer.max_epochs=1")
    first, second = read_logs(folder.path)
    assert first.run.run_id == second.run.run_id
    assert (len(_models(first)), len(_models(second))) == (0, 1)
    trained("trainer.max_epochs=1")
    assert len(read_logs(folder.path)) == 2


MODEL = {"model": {"name": "test_resnet"}}


def _log_study(root: Path, *overrides: str) -> dict[str, LoggedRun]:
    options = compose([*OFFLINE, *overrides])[0].logger
    log_study(options, load_study(find_runs(root)), root, study_figures)
    return {log.run.run_group: log for log in read_logs(root)}


def test_each_group_of_a_study_has_a_run_with_its_spread_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(4):
        begun = f"2026-01-0{4 - seed}T00:00:00+00:00"
        write_run(tmp_path, "proposal", seed, config=MODEL, started=begun, run_id=f"abc-{seed}")
    write_run(tmp_path, "norot", 0, config=MODEL, num_views=1, run_id="def-0")
    logs = _log_study(tmp_path)
    assert set(logs) == {"proposal", "norot"}
    table = run_table(load_study(find_runs(tmp_path)).groups)
    for experiment, log in logs.items():
        assert (log.run.job_type, list(log.run.tags)) == (keys.STUDY, ["paper", "test_resnet"])
        assert log.exit_code == 0
        rows = table[table["experiment"] == experiment]
        shown = rows[rows["view"] == rows["view"].iloc[0]]
        assert log.summary["n"] == len(shown)
        for metric in METRICS:
            for name, value in shown[metric].agg(["mean", "min", "max"]).items():
                assert log.summary[f"{metric}/{name}"] == pytest.approx(value)
            # One run has no spread.
            spread = [shown[metric].std(ddof=0)] if len(shown) > 1 else []
            logged = [log.summary[key] for key in [f"{metric}/std"] if key in log.summary]
            assert logged == pytest.approx(spread)
        upright = rows[rows["view"] == "no rotation"]["f1"]
        assert log.summary["f1_norot/mean"] == pytest.approx(upright.mean())
        assert log.summary[keys.METRICS_TABLE]["_type"] == "table-file"
        for name in ("figure2", "figure3", "intervals", "roc", "persons"):
            assert log.summary[f"figures/{name}"]["_type"] == "image-file"
    whole, single = logs["proposal"], logs["norot"]
    # The id is that of the run that started first.
    assert (whole.run.run_id, single.run.run_id) == ("study-abc-3", "study-def-0")
    assert whole.summary["f1/ci_low"] < whole.summary["f1/mean"] < whole.summary["f1/ci_high"]
    assert "f1/ci_low" not in single.summary, "one run has no interval"
    assert whole.config["seeds"] == [0, 1, 2, 3]
    assert "seed" not in whole.config
    shown = capsys.readouterr().out
    assert shown.count("wandb sync") == 1
    assert str(tmp_path / "wandb/offline-run-*") in shown


def test_a_study_that_cannot_be_logged_is_reported_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError("no room")

    write_run(tmp_path, "proposal", 0, config=MODEL)
    monkeypatch.setattr(wandb, "init", fail)
    assert _log_study(tmp_path) == {}
    assert "OSError" in capsys.readouterr().err


@pytest.mark.parametrize("overrides", [["logger=csv"], ["logger.mode=disabled"]])
def test_another_logger_logs_no_study(tmp_path: Path, overrides: list[str]) -> None:
    write_run(tmp_path, "proposal", 0, config=MODEL)
    assert _log_study(tmp_path, *overrides) == {}
    assert not (tmp_path / "wandb").exists()

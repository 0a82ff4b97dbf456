"""What W&B is told of runs, read back from its offline files."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import wandb
from scipy.special import expit

from cnmc.analysis.metrics import METRICS, auroc
from cnmc.cli.app import compose
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import RunFolder
from cnmc.runs.identity import without_folders
from cnmc.study.plan import job_folder
from cnmc.tracking import keys, wandb_run
from cnmc.train import train
from cnmc.training.recorder import RunRecorder
from tests.conftest import TINY
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


Train = Callable[..., RunFolder]


@pytest.fixture
def trained(tiny_data: Path, tmp_path: Path) -> Train:
    """Train in this process, logged offline."""
    return lambda *overrides: _train(tiny_data, tmp_path / "runs", *overrides)


@pytest.fixture(scope="module")
def two(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Two runs of one process, whose cells for reports are others than those that chose."""
    root = tmp_path_factory.mktemp("two") / "runs"
    overrides = ("split=nested", "split.val_fraction=0.4", "logger.log_last=true")
    return [_train(tiny_data, root, *overrides, f"seed={seed}") for seed in (0, 1)]


@pytest.fixture(scope="module")
def logged(two: list[RunFolder]) -> list[LoggedRun]:
    found = [read_logs(folder.path) for folder in two]
    assert [len(runs) for runs in found] == [1, 1]
    return [runs[0] for runs in found]


def test_two_runs_of_a_process_are_apart(two: list[RunFolder], logged: list[LoggedRun]) -> None:
    infos = [folder.read_info() for folder in two]
    assert [run.id for run in logged] == [info.run_id for info in infos if info]
    assert logged[0].id != logged[1].id
    assert [run.config["seed"] for run in logged] == [0, 1]
    assert [run.name for run in logged] == ["proposal/seed=0", "proposal/seed=1"]
    for info, run in zip(infos, logged, strict=True):
        assert info is not None
        assert run.id.startswith(info.config_hash)
        assert run.exit_code == 0
        assert (run.group, run.job_type) == ("proposal", keys.TRAIN)
        assert run.tags == ["honest", "test_resnet"]
        assert run.notes.startswith("PROPOSAL: ")
        assert "@package" not in run.notes


def test_the_configuration_is_logged_with_its_origin(
    two: list[RunFolder], logged: list[LoggedRun]
) -> None:
    for folder, run in zip(two, logged, strict=True):
        info = folder.read_info()
        assert info is not None
        stored = without_folders(folder.read_config())
        assert {key: run.config[key] for key in stored} == stored
        origin = run.config[keys.ORIGIN]
        assert {key: origin[key] for key in info.identity()} == info.identity()
        assert origin["versions"] == info.versions


def test_no_folder_of_the_machine_leaves_it(two: list[RunFolder], logged: list[LoggedRun]) -> None:
    for folder, run in zip(two, logged, strict=True):
        root = folder.read_config()["data"]["root"]
        assert Path(root).is_absolute()
        assert run.config["data"]["root"] == Path(root).name
        places = [str(Path(root).parent), str(folder.path.parent)]
        for path in (folder.best_checkpoint, folder.last_checkpoint):
            assert not [place for place in places if place.encode() in path.read_bytes()]
        assert not [place for place in places if place in json.dumps(run.config)]


def test_the_history_is_the_metrics_by_epoch(two: list[RunFolder], logged: list[LoggedRun]) -> None:
    for folder, run in zip(two, logged, strict=True):
        rows = [row for row in run.history if keys.EPOCH in row]
        metrics = folder.read_metrics()
        assert [row[keys.EPOCH] for row in rows] == metrics["epoch"].tolist() == [0, 1, 2]
        for row, (_, stored) in zip(rows, metrics.iterrows(), strict=True):
            assert {k: row[k] for k in stored.dropna().index} == stored.dropna().to_dict()
        wanted = {f"val/{name}" for name in (*METRICS, "loss", "f1_norot")}
        assert wanted | {"train/loss", "lr/stage1", "lr/head"} <= set(rows[-1])
        steps = [row for row in run.history if keys.LOSS_STEP in row]
        assert all(keys.EPOCH not in row for row in steps)
        axes = run.metrics
        assert axes["train/*"] == axes["val/*"] == axes["lr/*"] == keys.EPOCH
        assert axes[keys.LOSS_STEP] == "trainer/global_step"


def test_the_summary_is_that_of_the_best_epoch(
    two: list[RunFolder], logged: list[LoggedRun]
) -> None:
    for folder, run in zip(two, logged, strict=True):
        info, metrics = folder.read_info(), folder.read_metrics().set_index("epoch")
        assert info is not None
        assert run.summary["best/epoch"] == info.best_epoch
        assert run.summary["best/f1"] == info.best_f1
        best = metrics.loc[info.best_epoch]
        for name in (*METRICS, "loss", "f1_norot"):
            assert run.summary[f"best/{name}"] == best[f"val/{name}"]
        assert run.summary["best/checkpoint"] == f"model-{info.run_id}:best"
        predictions = folder.read_predictions()
        assert predictions is not None
        test = predictions[predictions["role"] == "test"]
        logits = test.filter(like="logit_").mean(axis=1)
        expected = auroc(test["label"].to_numpy(), logits.to_numpy())
        assert run.summary["test/auroc"] == pytest.approx(expected)


def _table(folder: RunFolder, run: LoggedRun, key: str) -> dict[str, list[Any]]:
    (path,) = folder.path.glob(f"wandb/offline-run-*/files/{run.summary[key]['path']}")
    table = json.loads(path.read_text())
    columns = zip(*table["data"], strict=True)
    return dict(zip(table["columns"], map(list, columns), strict=True))


def test_tables_and_charts_show_the_reported_cells(
    two: list[RunFolder], logged: list[LoggedRun]
) -> None:
    for folder, run in zip(two, logged, strict=True):
        predictions = folder.read_predictions()
        assert predictions is not None
        test = predictions[predictions["role"] == "test"]
        probability = expit(test.filter(like="logit_").astype(float).mean(axis=1))
        wrong = (probability > 0.5) != (test["label"] == 1)
        subjects = _table(folder, run, keys.SUBJECTS)
        right = (~wrong).groupby(test["subject"]).mean()
        assert dict(zip(subjects["subject"], subjects["accuracy"], strict=True)) == pytest.approx(
            right.to_dict()
        )
        cells = _table(folder, run, keys.WRONG_CELLS)
        assert set(cells["cell_id"]) == set(test["cell_id"][wrong])
        found = dict(zip(cells["cell_id"], cells["probability"], strict=True))
        assert [found[cell] for cell in test["cell_id"][wrong]] == pytest.approx(
            probability[wrong].tolist()
        )
        distance = np.abs(np.array(cells["probability"]) - np.array(cells["label"]))
        assert (np.diff(distance) <= 0).all()
        (table,) = (a for a in run.artifacts if a.name.endswith(keys.WRONG_CELLS))
        images = [e for e in table.manifest.contents if e.path.endswith(".png")]
        assert len(images) == len(cells["cell_id"])
        shown = [np.asarray(cv2.imread(image.local_path)) for image in images]
        assert {picture.shape for picture in shown} == {(40, 40, 3)}
        for chart in (keys.CONFUSION_MATRIX, keys.ROC, keys.PRECISION_RECALL):
            assert run.summary[f"{chart}_table"]["_type"] == "table-file"
        matrix = _table(folder, run, f"{keys.CONFUSION_MATRIX}_table")
        by_cell = zip(matrix["Actual"], matrix["Predicted"], matrix["nPredictions"], strict=True)
        assert sum(n for truth, called, n in by_cell if truth != called) == wrong.sum()


def _models(run: LoggedRun) -> list[Any]:
    return [artifact for artifact in run.artifacts if artifact.type == keys.MODEL]


def test_checkpoints_are_artifacts(two: list[RunFolder], logged: list[LoggedRun]) -> None:
    for seed, (folder, run) in enumerate(zip(two, logged, strict=True)):
        info = folder.read_info()
        assert info is not None
        best, last = _models(run)
        assert set(best.aliases) >= {keys.BEST, f"seed-{seed}"}
        assert keys.LAST in last.aliases
        assert keys.BEST not in last.aliases
        assert best.name == last.name == f"model-{info.run_id}"
        metadata = json.loads(best.metadata)
        assert metadata["epoch"] == info.best_epoch
        assert metadata["summary"]["best/f1"] == info.best_f1
        assert metadata["manifest_fingerprint"] == info.manifest_fingerprint
        assert metadata["split_fingerprint"] == info.split_fingerprint
        for artifact, path in ((best, folder.best_checkpoint), (last, folder.last_checkpoint)):
            (entry,) = artifact.manifest.contents
            # No copy is made; it is sent from where it is, as it stays.
            assert Path(entry.local_path) == path
            assert entry.size == path.stat().st_size
            assert entry.path == path.name
        assert load_checkpoint(folder.last_checkpoint).keys() == {"state_dict", "cnmc"}


def test_no_key_and_no_name_of_a_machine_server_or_person_is_written(two: list[RunFolder]) -> None:
    files = [path for folder in two for path in folder.path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in (KEY, MACHINE, SERVER, PERSON):
            assert secret.encode() not in content, path


def test_no_checkpoint_and_no_image_leaves_where_that_is_said(
    trained: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = trained("logger.log_model=false", "logger.num_images=0", "trainer.max_epochs=1")
    (run,) = read_logs(folder.path)
    assert _models(run) == []
    assert keys.WRONG_CELLS not in run.summary
    assert "best/checkpoint" not in run.summary
    assert run.summary["best/epoch"] == 1
    shown = "".join(capfd.readouterr())
    assert shown.count("wandb sync") == 1
    assert not any(secret in shown for secret in (KEY, MACHINE, SERVER))


class _StoppedError(BaseException):
    """Somebody pressed Ctrl-C."""


def test_a_resumed_run_goes_on_in_the_same_one(
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
    info = folder.read_info()
    assert info is not None
    assert first.id == second.id == info.run_id
    assert [row["epoch"] for row in first.history if "epoch" in row] == [0, 1]
    assert [row["epoch"] for row in second.history if "epoch" in row] == [2, 3]
    # Also where the best epoch was one of the first process.
    assert second.summary["best/epoch"] == info.best_epoch


def test_an_agents_run_has_the_agents_name_also_when_it_was_finished_before(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = trained()
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nseed:\n  value: 0\n")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(parameters))
    assert trained().path == folder.path
    before, again = sorted(read_logs(folder.path), key=lambda run: run.id == "agents")
    assert again.id == "agents" != before.id
    assert [row["epoch"] for row in again.history if "epoch" in row] == [0, 1, 2]
    for key in ("best/f1", "best/epoch", "best/loss", "best/checkpoint"):
        assert again.summary[key] == before.summary[key]
    # A checkpoint is known by its run folder, whoever asked for the run.
    (artifact,) = _models(again)
    assert artifact.name == f"model-{before.id}"
    (other,) = read_logs(trained("seed=5").path)
    assert other.id == "agents"


def test_whatever_fails_at_wandb_the_run_is_finished(
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
    break_at_random(wandb.Artifact, "add_file")
    break_at_random(wandb.plot, "roc_curve")
    begun: list[str] = []
    ended: list[str] = []
    init, finish = wandb.init, wandb.Run.finish

    def begin(**options: Any) -> Any:
        run = init(**options)
        begun.append(run.id)
        return run

    def end(run: Any, **options: Any) -> None:
        ended.append(run.id)
        finish(run, **options)

    monkeypatch.setattr(wandb, "init", begin)
    monkeypatch.setattr(wandb.Run, "finish", end)
    for seed in range(6):
        folder = trained(f"seed={seed}", "trainer.max_epochs=1")
        info = folder.read_info()
        assert info is not None
        assert info.status == "finished"
        assert len(folder.read_metrics()) == 2
        predictions = folder.read_predictions()
        assert predictions is not None
        assert predictions["epoch"].unique().tolist() == [0, 1]
        for path in (folder.best_checkpoint, folder.last_checkpoint):
            load_checkpoint(path)
    assert {"log", "finish"} <= raised
    told = capsys.readouterr().err
    assert MACHINE not in told
    assert 0 < told.count("(OSError)") <= 6
    assert begun == ended != []


def test_an_error_of_the_training_ends_its_wandb_run(
    trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(RunRecorder, "on_train_epoch_end", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        trained()
    (run,) = read_logs(tmp_path / "runs" / "proposal" / "seed=0")
    assert run.exit_code == 1
    assert run.kinds[-1] == "exit"


def test_a_server_that_is_not_there_leaves_the_run_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = wandb.init

    def unreachable(**arguments: Any) -> Any:
        if arguments["mode"] == "online":
            raise wandb.errors.CommError(f"cannot reach {SERVER}")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", unreachable)
    options = compose(["logger=wandb", "logger.mode=online"])[0].logger
    name, tag = "name" * 50, "tag" * 50
    run = wandb_run.start(options, tmp_path, id="somewhere", name=name, tags=[tag])
    assert run is not None
    assert run.offline
    run.log({"a": 1})
    wandb_run.finish(run, exit_code=0)
    (log,) = read_logs(tmp_path)
    assert log.history[0]["a"] == 1
    assert (log.name, log.tags) == (name[:128], [tag[:64]])
    told = capsys.readouterr().err
    assert "logged offline" in told
    assert SERVER not in told


@pytest.mark.parametrize(("login", "answer"), [(True, "online"), (False, "offline")])
def test_the_mode_follows_the_login(
    monkeypatch: pytest.MonkeyPatch, login: bool, answer: str
) -> None:
    monkeypatch.setattr(wandb, "login", lambda prompt: login and not prompt)
    wandb_run._is_logged_in.cache_clear()
    assert wandb_run.wandb_mode(None) == answer
    assert wandb_run.wandb_mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    assert wandb_run.wandb_mode(None) == "offline"


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_what_users_switched_off_stays_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    """As ``wandb disabled`` and ``wandb offline`` do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text(f"[default]\nmode = {mode}\n")
    monkeypatch.setattr(wandb_run, "_is_logged_in", lambda: True)
    wandb.teardown()
    try:
        assert wandb_run.wandb_mode(None) == mode
    finally:
        wandb.teardown()


def test_a_login_that_fails_is_told_once_and_means_offline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> bool:
        raise wandb.errors.AuthenticationError(f"{SERVER} refused {KEY}")

    monkeypatch.setattr(wandb, "login", refuse)
    wandb_run._is_logged_in.cache_clear()
    assert [wandb_run.wandb_mode(None) for _ in range(3)] == ["offline"] * 3
    told = capsys.readouterr().err
    assert told.count("AuthenticationError") == 1
    assert SERVER not in told
    assert KEY not in told


def test_what_was_interrupted_at_the_end_is_logged_by_the_same_command(
    trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wandb_run, "log_checkpoints", stop)
        with pytest.raises(KeyboardInterrupt):
            trained("trainer.max_epochs=1")
    folder = trained("trainer.max_epochs=1")
    first, second = read_logs(folder.path)
    assert first.id == second.id
    # The training itself was finished.
    assert first.exit_code == second.exit_code == 0
    assert _models(first) == []
    assert len(_models(second)) == 1
    assert second.summary["best/checkpoint"]
    trained("trainer.max_epochs=1")
    assert len(read_logs(folder.path)) == 2

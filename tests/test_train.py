"""The main job on a tiny network and generated cells: what a run leaves, repeats and resumes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, partialmethod
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cnmc.analysis.calibration import choose_of_epoch
from cnmc.analysis.decision import Decision
from cnmc.analysis.loading import load_study
from cnmc.analysis.metrics import evaluate, mean_logits
from cnmc.analysis.results import run_table
from cnmc.cli.app import compose
from cnmc.config import CellsConfig, ExportConfig
from cnmc.config.groups import TrainerConfig
from cnmc.data.store import open_cells
from cnmc.deploy.networks import open_network
from cnmc.errors import CnmcError
from cnmc.export import export
from cnmc.files import replacing
from cnmc.model.checkpoint import load_checkpoint
from cnmc.model.module import CellClassifier
from cnmc.runs.folder import RunFolder, RunInfo, logit_columns
from cnmc.runs.identity import config_hash
from cnmc.study.plan import job_folder
from cnmc.train import train
from cnmc.training.build import build_classifier, lightning_precision
from tests.conftest import TINY
from tests.data.trees import write_release
from tests.test_experiments import EXPERIMENTS

Run = Callable[..., RunFolder]


@pytest.fixture
def run(tiny: list[str]) -> Run:
    """Train in this process; returns the run folder."""

    def _run(*overrides: str) -> RunFolder:
        config, resolved = compose([*tiny, *overrides])
        folder = job_folder(config)
        train(config, resolved, folder)
        return folder

    return _run


# A step of the schedule between the epochs, so that a lost scheduler would show.
DECAY = "optimizer.decay_every=1"


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of two epochs that no test changes."""
    root = tmp_path_factory.mktemp("trained")
    data = [f"data.root={tiny_data / 'data'}", f"data.work_dir={tiny_data / 'work'}"]
    config, resolved = compose([*TINY, *data, DECAY, f"run.root={root}"])
    folder = job_folder(config)
    train(config, resolved, folder)
    return folder


@pytest.fixture
def own(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of that run where the fixture ``run`` finds it."""
    path = tmp_path / "runs" / "proposal" / "seed=0"
    shutil.copytree(trained.path, path)
    return RunFolder(path)


def _info(folder: RunFolder) -> RunInfo:
    info = folder.read_info()
    assert info is not None
    return info


def test_a_run_of_the_whole_recipe_has_the_papers_rates(run: Run) -> None:
    """Section 4.1, as the optimiser had them in each of the six epochs."""
    short = [f"trainer.limit_{part}_batches=1" for part in ("train", "val")]
    metrics = run("trainer.max_epochs=6", *short).read_metrics()
    assert metrics["epoch"].tolist() == list(range(7))
    bases = [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    for stage, rate in {"stage1": 1e-6, "stage3": 1e-4, "stage5": 1e-4, "head": 1e-2}.items():
        assert metrics[f"lr/{stage}"].iloc[1:].tolist() == pytest.approx([rate * b for b in bases])


def _predictions(folder: RunFolder) -> pd.DataFrame:
    stored = folder.read_predictions()
    assert stored is not None
    return stored


def test_a_run_leaves_everything_in_its_folder(trained: RunFolder) -> None:
    assert trained.path.parts[-2:] == ("proposal", "seed=0")
    names = {path.name for path in trained.path.iterdir()}
    assert names == {"config.yaml", "run.json", "metrics.csv", "predictions.parquet", "checkpoints"}
    assert {p.name for p in (trained.path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    info = _info(trained)
    assert (info.status, info.seed, info.protocol, info.epochs_done) == ("finished", 0, "paper", 2)
    assert (info.best_epoch, info.best_f1) == trained.best_epoch()
    assert info.versions["torch"] == version("torch")
    assert info.seconds > 0

    metrics = trained.read_metrics()
    assert metrics["epoch"].tolist() == [0, 1, 2]
    assert metrics["train/loss"].isna().tolist() == [True, False, False]
    assert metrics["lr/head"].iloc[1:].tolist() == pytest.approx([0.01, 0.001])

    table = _predictions(trained)
    head = ["epoch", "role", "cell_id", "subject", "label"]
    assert list(table.columns) == head + [f"logit_{k}" for k in range(8)]
    assert table.groupby("epoch").size().tolist() == [18, 18, 18]
    assert set(table["role"]) == {"val"}
    assert table["cell_id"].str.startswith("prelim/").all()


def test_stored_metrics_can_be_recomputed_from_the_predictions(trained: RunFolder) -> None:
    table = _predictions(trained)
    for row in trained.read_metrics().to_dict("records"):
        epoch = int(row["epoch"])
        rows = table[table["epoch"] == epoch]
        labels = rows["label"].to_numpy()
        for name, value in evaluate(labels, mean_logits(rows)).items():
            assert row[f"val/{name}"] == pytest.approx(value, abs=1e-6), (epoch, name)
        upright = evaluate(labels, rows["logit_0"].to_numpy())["f1"]
        assert row["val/f1_norot"] == pytest.approx(upright, abs=1e-6)
        # 16 normal and 24 ALL cells train.
        logits, truth = torch.tensor(mean_logits(rows)), torch.tensor(labels, dtype=torch.float64)
        weight = torch.tensor(16 / 24)
        bce = nn.functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight)
        assert row["val/loss"] == pytest.approx(float(bce), rel=1e-5)


def test_the_best_checkpoint_gives_the_stored_logits(trained: RunFolder, tiny: list[str]) -> None:
    best = trained.best_epoch()
    assert best is not None
    checkpoint = load_checkpoint(trained.best_checkpoint)
    assert checkpoint["cnmc"]["epoch"] == best[0]
    config, _ = compose(tiny)
    module = build_classifier(config, pos_weight=1.0)
    module.load_state_dict(checkpoint["state_dict"])
    module.eval()
    store = open_cells(config.data, config.split)
    rows = _predictions(trained).query(f"epoch == {best[0]}").reset_index(drop=True)
    images = np.stack([store.cache.images[store.cache.rows[cell]] for cell in rows["cell_id"]])
    with torch.no_grad():
        logits = module.rotation_logits(torch.from_numpy(images))
    stored = rows[logit_columns(rows)].to_numpy()
    np.testing.assert_allclose(logits.numpy(), stored, atol=1e-5)
    # Opened for prediction, it gives them too, and decides as its predictions chose.
    network = open_network(trained.path, num_threads=1)
    np.testing.assert_allclose(network.logits(images), stored, atol=1e-5)
    chosen = choose_of_epoch(_predictions(trained), best[0])
    assert chosen.num_cells == 18
    assert network.info.decision == chosen == Decision.from_values(checkpoint["cnmc"]["decision"])


def test_a_trained_network_is_exported_by_its_own_cells(
    own: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(ExportConfig(str(own.path), "onnx", str(tmp_path / "cells.onnx")))
    assert "checked on 8 generated cells of data (role val)" in capsys.readouterr().out
    data = CellsConfig(str(write_release(tmp_path / "others")))
    with pytest.raises(CnmcError, match=r"data.root=.*fingerprint"):
        export(ExportConfig(str(own.path), "onnx", str(tmp_path / "cells.onnx"), data))


@pytest.mark.parametrize("device", ["augment.device=false", "augment.device=true"])
def test_a_seed_repeats_itself_to_the_last_bit_whatever_the_workers(run: Run, device: str) -> None:
    run = partial(run, device)
    first = _predictions(run("run.name=a", "data.num_workers=0"))
    again = _predictions(run("run.name=b", "data.num_workers=2"))
    other = _predictions(run("run.name=c", "seed=1"))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not np.array_equal(first["logit_0"], other["logit_0"])


def test_a_run_learns_the_same_where_the_device_moves_the_pixels(run: Run) -> None:
    """Up to ties, of which OpenCV makes the same on some machines."""
    host, device, bare = (
        run(f"run.name={name}", "trainer.max_epochs=1", override)
        for name, override in (
            ("host", "augment.device=false"),
            ("device", "augment.device=true"),
            ("bare", "augment=none"),
        )
    )
    losses = [folder.read_metrics()["train/loss"].iloc[1] for folder in (host, device, bare)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] != pytest.approx(losses[0], rel=1e-3)


class Killed(BaseException):
    """Ends a run as a signal would: nothing may catch it."""


@pytest.mark.parametrize(("epoch", "after"), [(1, "last"), (1, "best"), (2, "last"), (2, "end")])
def test_a_run_stopped_between_epochs_resumes_to_the_same_bits(
    run: Run, trained: RunFolder, monkeypatch: pytest.MonkeyPatch, epoch: int, after: str
) -> None:
    written: list[str] = []

    @contextmanager
    def write_then_die(path: Path) -> Iterator[Path]:
        with replacing(path) as temporary:
            yield temporary
        written.append(path.stem)
        if written.count("last") == epoch and path.stem == after:
            raise Killed

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("cnmc.training.recorder.replacing", write_then_die)
        if after == "end":
            patch.setattr("cnmc.train.tidy", die)
        with pytest.raises(Killed):
            run(DECAY)
    folder = run(DECAY)
    pd.testing.assert_frame_equal(_predictions(folder), _predictions(trained), check_exact=True)
    for metrics in ("epoch", "train/loss", "val/f1", "val/loss", "lr/head"):
        expected = trained.read_metrics()[metrics]
        pd.testing.assert_series_equal(folder.read_metrics()[metrics], expected, check_exact=True)
    best = load_checkpoint(folder.best_checkpoint)
    expected_best = load_checkpoint(trained.best_checkpoint)
    for name in ("epoch", "decision"):
        assert best["cnmc"][name] == expected_best["cnmc"][name]
    for name, tensor in expected_best["state_dict"].items():
        assert torch.equal(best["state_dict"][name], tensor)


@contextmanager
def _dying_in_second_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill what trains at its third batch of the second epoch."""
    step = CellClassifier.training_step

    def step_or_die(self: CellClassifier, batch: object, position: int) -> torch.Tensor:
        if self.current_epoch == 1 and position == 2:
            raise Killed
        return step(self, batch, position)

    with monkeypatch.context() as patch:
        patch.setattr(CellClassifier, "training_step", step_or_die)
        yield


def test_a_run_stopped_within_an_epoch_repeats_it(
    run: Run, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _dying_in_second_epoch(monkeypatch), pytest.raises(Killed):
        run(DECAY)
    pd.testing.assert_frame_equal(_predictions(run(DECAY)), _predictions(trained), check_exact=True)


def test_another_configuration_is_refused_with_its_keys(run: Run, own: RunFolder) -> None:
    with pytest.raises(CnmcError, match=r"optimizer\.lr\.head \(there 0\.01, now 0\.02\)"):
        run(DECAY, "optimizer.lr.head=0.02")
    run("optimizer.lr.head=0.02", "run.overwrite=true", "trainer.max_epochs=1")
    assert own.read_config()["optimizer"]["lr"]["head"] == 0.02


def test_another_data_set_split_or_weights_are_refused(
    run: Run, tiny: list[str], tmp_path: Path
) -> None:
    config, _ = compose(tiny)
    store = open_cells(config.data, config.split)
    own_split = tmp_path / "own.csv"
    # The same cells but one: another split, which is no key of the configuration's identity.
    store.split.cells.iloc[1:].to_csv(own_split, index=False)
    weights = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in weights:
        torch.save(build_classifier(config, 1.0).network.state_dict(), path)
    begun = ["trainer.max_epochs=1", "model.pretrained=true", f"model.weights={weights[0]}"]
    folder = run(*begun)
    with pytest.raises(CnmcError, match=r"^split:"):
        run(*begun, f"split.path={own_split}")
    with pytest.raises(CnmcError, match=r"^model\.weights:"):
        run(*begun[:2], f"model.weights={weights[1]}")
    folder.write_info(replace(_info(folder), manifest_fingerprint="0" * 64))
    with pytest.raises(CnmcError, match=r"^data\.root:"):
        run(*begun)


def test_starting_over_removes_only_run_folders(run: Run, tmp_path: Path) -> None:
    precious = tmp_path / "runs" / "proposal" / "precious"
    precious.mkdir(parents=True)
    (precious / "thesis.tex").touch()
    with pytest.raises(CnmcError, match="precious"):
        run("run.name=precious", "run.overwrite=true")
    assert (precious / "thesis.tex").is_file()


def test_a_job_that_a_cluster_starts_again_does_not_start_its_run_over(run: Run) -> None:
    """The next command with run.overwrite=true does."""
    again = partial(run, "run.overwrite=true", "trainer.max_epochs=1")
    first, second, third = (_info(again(f"study.id={name}")).run_id for name in "aab")
    assert first == second != third


def test_results_without_a_description_are_refused(run: Run, own: RunFolder) -> None:
    (own.path / "run.json").unlink()
    (own.path / "config.yaml").unlink()
    with pytest.raises(CnmcError, match=r"config\.yaml"):
        run()
    assert _info(run("run.overwrite=true", "trainer.max_epochs=1")).epochs_done == 1


def test_a_skipped_run_is_only_tidied(
    run: Run, own: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (own.path / "run.json").read_bytes()
    last = torch.load(own.last_checkpoint, weights_only=True)
    torch.save({**last, "optimizer_states": []}, own.last_checkpoint)
    leftover = own.path / "checkpoints" / ".last.ckpt.0.tmp"
    leftover.touch()
    run(DECAY)
    assert set(torch.load(own.last_checkpoint, weights_only=True)) == {"state_dict", "cnmc"}
    assert not leftover.exists()
    assert (own.path / "run.json").read_bytes() == before
    # A full disk does not matter.
    leftover.touch()
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove_temporaries", _full)
        run(DECAY)


def _full(_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_finished_run_is_skipped_without_its_data(
    run: Run, own: RunFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # Another kind of data would be another configuration; the same kind elsewhere is not.
    config = own.read_config()
    config["data"]["synthetic"] = None
    own.write_config(config)
    own.write_info(replace(_info(own), config_hash=config_hash(config)))
    before = (own.path / "run.json").read_bytes()
    run(DECAY, f"data.root={tmp_path / 'moved'}", "data.synthetic=null")
    assert f"{tmp_path / 'moved'}" in capsys.readouterr().err
    assert (own.path / "run.json").read_bytes() == before


def test_a_checkpoint_of_a_run_serves_as_initial_weights(run: Run, trained: RunFolder) -> None:
    weights = ["model.pretrained=true", f"model.weights={trained.last_checkpoint}"]
    before = _predictions(run("trainer.max_epochs=1", *weights)).query("epoch == 0")["logit_0"]
    after = _predictions(trained).query("epoch == 2")["logit_0"]
    np.testing.assert_allclose(before.to_numpy(), after.to_numpy(), atol=1e-6)


def test_more_cells_in_a_batch_than_train_are_refused(run: Run) -> None:
    with pytest.raises(CnmcError, match=r"data.batch_size=64: .*40"):
        run("data.batch_size=64")


def test_a_missing_accelerator_is_one_line(run: Run) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(CnmcError, match=r"trainer.accelerator=cuda: "):
        run("trainer.accelerator=cuda")


@pytest.mark.parametrize(
    ("accelerator", "computes", "precision"),
    [
        ("auto", "bfloat16", "bf16-mixed"),
        ("auto", "bfloat16 emulated", "32-true"),
        ("auto", "none", "32-true"),
        ("cpu", "bfloat16", "32-true"),
    ],
)
def test_bfloat16_is_for_cards_that_compute_in_it(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, computes: str, precision: str
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return computes == "bfloat16" or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: computes != "none")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert (
        lightning_precision(TrainerConfig(accelerator=accelerator, precision="auto")) == precision
    )
    assert (
        lightning_precision(TrainerConfig(accelerator=accelerator, precision="16-mixed"))
        == "16-mixed"
    )


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Compile without generating code, which takes minutes; the sizes that were compiled for."""
    sizes: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        sizes.extend(tuple(given.shape) for given in inputs if given.dim() == 4)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    torch.compiler.reset()
    return sizes


def test_the_fast_preset_trains_as_the_papers_does_and_resumes(
    run: Run, trained: RunFolder, traced: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 18 cells in batches of 8: the last one is smaller.
    run = partial(run, DECAY, "trainer=fast", "trainer.max_epochs=2", "data.eval_batch_size=8")
    whole = run("run.name=whole")
    images = {size for size in traced if size[1:] == (3, 40, 40)}
    assert images == {(8, 3, 40, 40)}
    stored, expected = _predictions(whole), _predictions(trained)
    columns = logit_columns(stored)
    start = stored["epoch"] == 0
    np.testing.assert_allclose(stored[start][columns], expected[start][columns], atol=1e-5)
    np.testing.assert_allclose(stored[columns], expected[columns], atol=0.05)
    names = [set(load_checkpoint(one.best_checkpoint)["state_dict"]) for one in (whole, trained)]
    assert names[0] == names[1]

    with _dying_in_second_epoch(monkeypatch), pytest.raises(Killed):
        run("run.name=cut")
    again = _predictions(run("run.name=cut"))
    pd.testing.assert_frame_equal(again, stored, check_exact=True)


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["paper", "fast"])
@pytest.mark.parametrize("device", ["augment.device=false", "augment.device=true"])
def test_a_gpu_trains_and_evaluates(run: Run, preset: str, device: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    overrides = [f"trainer={preset}", device, "trainer.accelerator=cuda", "trainer.max_epochs=2"]
    folder = run(*overrides, "split=nested", "split.val_fraction=0.4")
    assert _info(folder).hardware["accelerator"] == torch.cuda.get_device_name()
    assert "test" in set(_predictions(folder)["role"])


@pytest.mark.real
@pytest.mark.slow
def test_the_papers_network_trains_on_real_cells_at_full_size(
    real_data_root: Path, tmp_path: Path
) -> None:
    overrides = [
        f"data.root={real_data_root}",
        f"data.work_dir={tmp_path / 'work'}",
        "split=subject_holdout",
        "split.subjects=[H14,2,16,23,30]",
        "model.pretrained=false",
        "data.batch_size=4",
        "data.eval_batch_size=2",
        "data.num_workers=0",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "trainer.limit_val_batches=1",
        "trainer.accelerator=cpu",
        "logger=none",
    ]
    config, resolved = compose(overrides)
    folder = RunFolder(tmp_path / "run")
    train(config, resolved, folder)
    table = _predictions(folder)
    assert len(logit_columns(table)) == 8
    assert table["epoch"].tolist() == [0, 0, 1, 1]
    assert np.isfinite(table[logit_columns(table)].to_numpy()).all()


@pytest.mark.slow
def test_a_network_learns_the_demos_cells(tmp_path: Path) -> None:
    """A small network stands well above the majority class on subjects that it has not seen.

    The demo itself takes the paper's network, a minute and a half for a seed.
    """
    overrides = ["experiment=demo", "model=test_resnet", "optimizer.lr=3e-3", "logger=none"]
    overrides += ["trainer.max_epochs=8", "optimizer.decay_every=6", "trainer.accelerator=cpu"]
    overrides += [f"data.root={tmp_path / 'data'}", f"data.work_dir={tmp_path / 'work'}"]
    config, resolved = compose(overrides)
    folder = RunFolder(tmp_path / "demo" / "seed=0")
    train(config, resolved, folder)
    row = run_table(load_study([folder]).groups).iloc[0]
    assert row["f1"] > row["majority_f1"] + 0.2


def test_a_failed_run_is_recorded_and_can_be_run_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(CellClassifier, "training_step", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            run("trainer.max_epochs=1")
    failed = _info(RunFolder(tmp_path / "runs" / "proposal" / "seed=0"))
    assert failed.status == "failed"
    assert "RuntimeError: out of memory" in str(failed.error)
    info = _info(run("trainer.max_epochs=1"))
    assert (info.status, info.error) == ("finished", None)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["model.pretrained=true", "model.weights=/no/such.pth"], "model.weights"),
        (["model.name=no_such_network"], "model.name"),
        (["model.stages.head=[fc.*,no_such_parameter]"], "no_such_parameter"),
    ],
)
def test_a_mistake_before_the_first_evaluation_leaves_no_folder(
    run: Run, tmp_path: Path, overrides: list[str], key: str
) -> None:
    with pytest.raises(CnmcError, match=key):
        run(*overrides)
    assert not (tmp_path / "runs" / "proposal" / "seed=0").exists()


def test_the_honest_protocol_touches_the_test_cells_once(run: Run, tiny: list[str]) -> None:
    folder = run("split=nested", "split.val_fraction=0.4")
    best = folder.best_epoch()
    assert best is not None
    assert _info(folder).protocol == "honest"
    table = _predictions(folder)
    test = table[table["role"] == "test"]
    assert set(test["epoch"]) == {best[0]}
    assert test["cell_id"].str.startswith("prelim/").all()
    val = table[table["role"] == "val"]
    assert val["cell_id"].str.startswith("train/").all()
    config, _ = compose([*tiny, "split=nested", "split.val_fraction=0.4"])
    split = open_cells(config.data, config.split).split.cells
    trained = set(split[split["role"] == "train"]["subject"])
    assert not trained & set(val["subject"])


def test_norot_stores_the_first_logit_of_the_same_training(run: Run, trained: RunFolder) -> None:
    norot = _predictions(run("experiment=norot", DECAY))
    assert logit_columns(norot) == ["logit_0"]
    np.testing.assert_array_equal(_predictions(trained)["logit_0"], norot["logit_0"])


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_one_batch(experiment: str, tiny: list[str], tmp_path: Path) -> None:
    config, _ = compose([f"experiment={experiment}"])
    own = [f"model.name={config.model.name}", "model.pretrained=false", "trainer.max_epochs=1"]
    small = [item for item in tiny if not item.startswith("model=")]
    overrides = [f"experiment={experiment}", *small, *own, "split.subjects=[]"]
    overrides += [
        "trainer.limit_train_batches=1",
        "trainer.limit_val_batches=1",
        "data.resize=null",
    ]
    config, resolved = compose(overrides)
    folder = RunFolder(tmp_path / experiment)
    train(config, resolved, folder)
    assert _info(folder).status == "finished"

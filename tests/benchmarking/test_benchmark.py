"""The command, on a tiny network and small cells."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cnmc.benchmark import benchmark
from cnmc.benchmarking import stages, training
from cnmc.benchmarking.apart import apart
from cnmc.benchmarking.bench import Bench
from cnmc.benchmarking.measure import Rate, compare
from cnmc.benchmarking.stages import STAGES
from cnmc.benchmarking.training import together_rate
from cnmc.cli.app import compose
from cnmc.data.store import open_cells
from cnmc.errors import CnmcError
from cnmc.training.build import build_datamodule

SMALL = (
    "data.synthetic.image_size=48",
    "data.synthetic.train_cells_all=20",
    "data.synthetic.train_cells_hem=20",
    "data.crop=40",
    "data.batch_size=4",
    "data.eval_batch_size=4",
    "data.num_workers=1",
    "model=test_resnet",
    "repeats=1",
    "trainer.accelerator=cpu",
)


def _bench(output: Path, *overrides: str) -> Bench:
    config, _ = compose([*SMALL, f"output={output}", *overrides], config_name="benchmark")
    return Bench(config, open_cells(config.data, config.split))


def _here(make: Callable[[Bench], Rate], bench: Bench) -> Rate:
    return make(bench)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """That both sides are measured is tested here, not what they give."""
    monkeypatch.setattr(stages, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(training, "SECONDS", 0.05)
    # Another process takes ten seconds to begin.
    for module in (stages, training):
        monkeypatch.setattr(module, "apart", _here)
    # The others are tested by themselves: compiling and quantizing take a minute.
    monkeypatch.setattr(stages, "BACKENDS", ("eager", "channels_last", "onnx"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return _bench(tmp_path_factory.mktemp("benchmark"))


@pytest.mark.parametrize("stage", list(STAGES))
def test_every_comparison_of_a_stage_measures_both_sides(bench: Bench, stage: str) -> None:
    rows, comparisons = STAGES[stage](bench)
    for comparison in comparisons:
        # What is compiled is tested by itself: compiling takes a minute.
        if "fast" not in comparison.name:
            rows.append(compare(comparison, 1, lambda: None))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) >= 2
    for row in rows:
        assert row.stage == stage
        assert row.baseline > 0
        assert row.ours > 0
        assert row.ratio == pytest.approx(row.ours / row.baseline) or row.unit in (
            "MB",
            "GB",
            "logits",
        )


def test_a_preset_has_nothing_of_the_one_that_was_chosen(tmp_path: Path, bench: Bench) -> None:
    root, work = bench.config.data.root, bench.config.data.work_dir
    fast = _bench(tmp_path, "trainer=fast", f"data.root={root}", f"data.work_dir={work}")
    assert fast.config.trainer.compile
    assert fast.config.optimizer.fused
    assert fast.preset("paper").trainer == bench.preset("paper").trainer
    assert not fast.preset("paper").optimizer.fused
    assert fast.preset("fast") == replace(fast.config, trainer=bench.preset("fast").trainer)


def test_memory_that_is_not_told_is_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Pool:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, *_: object) -> Pool:
            return self

        def result(self) -> int:
            return 0

    monkeypatch.setattr(stages, "ProcessPoolExecutor", Pool)
    rows, comparisons = stages.scale_stage(bench)
    assert rows == []
    assert comparisons
    assert "left out: the kernel does not tell it" in capsys.readouterr().err


def test_a_clock_counts_what_is_trained_while_it_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps warm up, the company is awaited, and training lasts until the last was measured."""
    events: list[str] = []
    others = iter([False, False, True])
    now = iter([0.0, 1.0, 2.0, 6.0, 6.5])

    class Company:
        def begin(self) -> None:
            events.append("begin")

        def has_ended(self) -> bool:
            return next(others)

    monkeypatch.setattr(training, "SECONDS", 5.0)
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    monkeypatch.setattr(Bench, "wait", lambda _: events.append("wait"))
    clock = training._Clock(bench, Company(), each=False)
    trainer = SimpleNamespace(should_stop=False)
    for _ in range(7):
        assert not trainer.should_stop
        events.append("step")
        clock.on_train_batch_end(trainer)  # type: ignore[arg-type]
    assert trainer.should_stop
    assert events == [
        "step",
        "step",
        "wait",
        "begin",
        "step",
        "step",
        "step",
        "wait",
        *["step"] * 2,
    ]
    # From the second step, at 0, to the fifth, which ends at 6.5.
    assert (clock.steps, clock.seconds) == (3, 6.5)


@pytest.mark.slow
def test_runs_at_once_are_measured_in_total(bench: Bench) -> None:
    assert together_rate(bench, bench.preset("paper"), 2)() > 0


def _pages_and_process(_: Bench) -> Rate:
    calls = iter(range(2))

    def rate() -> float:
        if next(calls, None) is None:
            os._exit(1)
        return float(os.environ["THP_MEM_ALLOC_ENABLE"]) + 10 * os.getpid()

    return rate


def test_a_baseline_is_measured_in_one_process_with_pytorch_as_it_comes(bench: Bench) -> None:
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    rate = apart(_pages_and_process, bench)
    first = rate()
    assert first % 10 == 0
    assert first / 10 != os.getpid()
    assert rate() == first
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    with pytest.raises(CnmcError, match="was lost") as caught:
        rate()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_run_that_fails_ends_the_others(bench: Bench) -> None:
    config = replace(bench.config, model=replace(bench.config.model, name="no_such_network"))
    with pytest.raises(CnmcError, match="no_such_network"):
        together_rate(bench, config, 2)()


def test_repeated_cells_make_an_epoch_longer_and_change_no_other(bench: Bench) -> None:
    data = build_datamodule(bench.config, bench.repeated("train", 100))
    assert len(data.train_dataloader().dataset) == 120  # type: ignore[arg-type]
    assert len(data.evaluated["val"]) == 8
    assert data.pos_weight == 1


def test_the_command_writes_what_it_shows(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark(_bench(Path(bench.config.output), "stage=data").config)
    stored = json.loads((Path(bench.config.output) / "benchmark.json").read_text())
    assert [set(row) for row in stored] == [
        {"stage", "name", "unit", "baseline", "ours", "ratio", "spread"}
    ] * len(rows)
    shown = capsys.readouterr().out
    assert all(row["name"] in shown for row in stored)
    sent = next(row for row in stored if row["unit"] == "MB")
    # Eight float views against one of bytes.
    assert sent["baseline"] == pytest.approx(8 * 3 * 40 * 40 * 4 / 1e6)
    assert sent["ours"] == pytest.approx(3 * 40 * 40 / 1e6)


@pytest.mark.gpu
@pytest.mark.parametrize("stage", ["data", "train", "eval", "scale"])
def test_a_gpu_is_measured(tmp_path: Path, stage: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    overrides = [item for item in SMALL if not item.startswith("trainer.accelerator")]
    config, _ = compose(
        [*overrides, f"output={tmp_path}", f"stage={stage}", "runs_at_once=2"],
        config_name="benchmark",
    )
    rows = benchmark(config)
    assert all(row.ours > 0 for row in rows)
    if stage == "train":
        assert any("2 runs" in row.name for row in rows)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, bench: Bench) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    root = bench.config.data.root
    work = bench.config.data.work_dir
    overrides = [*SMALL, f"output={taken}", f"data.root={root}", f"data.work_dir={work}"]
    config, _ = compose([*overrides, "stage=data"], config_name="benchmark")
    with pytest.raises(CnmcError, match=f"output={taken}"):
        benchmark(config)


@pytest.mark.parametrize("override", ["stage=speed", "repeats=0"])
def test_wrong_values_are_refused(override: str) -> None:
    with pytest.raises(CnmcError, match=override.split("=", maxsplit=1)[0]):
        compose([*SMALL, override], config_name="benchmark")

"""Measurements in turns, and the command on a tiny network and small cells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cnmc.benchmark import benchmark
from cnmc.benchmarking import measure, stages
from cnmc.benchmarking.measure import (
    EVALUATION,
    TRAINING,
    Comparison,
    Row,
    compare,
    compare_all,
    forecast,
    table,
    timed,
)
from cnmc.benchmarking.stages import STAGES, Bench
from cnmc.cli.app import compose
from cnmc.data.store import open_cells
from cnmc.errors import CnmcError

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
)
CPU = "trainer.accelerator=cpu"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.05)
    # Exporting and compiling take a minute.
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(stages, "EXPORT_SUFFIXES", {"onnx": ".onnx"})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    output = tmp_path_factory.mktemp("benchmark")
    config, _ = compose([*SMALL, CPU, f"output={output}"], config_name="benchmark")
    return Bench(config, open_cells(config.data, config.split))


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_measures_both_sides(bench: Bench, stage: str) -> None:
    rows = compare_all(stage, STAGES[stage](bench), 1)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) >= 1
    for row in rows:
        assert row.stage == stage
        assert row.baseline > 0
        assert row.ours > 0
        assert row.ratio > 0


def test_repeated_cells_change_only_their_role(bench: Bench) -> None:
    loader = bench.repeated("train", 100).loader(0)
    assert len(loader.dataset) == 120  # type: ignore[arg-type]
    split = bench.repeated("train", 100).store.split.cells
    assert (split["role"] == "val").sum() == 8


def test_baselines_are_neither_compiled_nor_normalized(bench: Bench) -> None:
    train = next(iter(bench.baseline_loader("train", 4, 0)))
    assert (train.shape, train.dtype) == ((4, 3, 40, 40), torch.float32)
    views = next(iter(bench.baseline_loader("val", 2, 0)))
    assert views.shape == (2, 8, 3, 40, 40)
    assert torch.equal(views[:, 2], torch.rot90(views[:, 0], 1, dims=(2, 3)))
    assert views.max() <= 1


def test_the_command_writes_and_prints_its_rows(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(bench.config.output)
    config, _ = compose([*SMALL, CPU, f"output={output}", "stage=data"], config_name="benchmark")
    rows = benchmark(config)
    stored = json.loads((output / "benchmark.json").read_text())
    assert [set(row) for row in stored] == [
        {"stage", "name", "unit", "baseline", "ours", "ratio", "spread"}
    ] * len(rows)
    shown = capsys.readouterr().out
    assert all(row["name"] in shown for row in stored)
    sent = next(row for row in stored if row["unit"] == "MB")
    assert sent["ratio"] == pytest.approx(32)  # eight float views against one of bytes


@pytest.mark.gpu
@pytest.mark.parametrize("stage", list(STAGES))
def test_a_gpu_is_measured(tmp_path: Path, stage: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config, _ = compose([*SMALL, f"output={tmp_path}", f"stage={stage}"], config_name="benchmark")
    assert all(row.ours > 0 for row in benchmark(config))


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path, bench: Bench) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    places = [f"data.{key}={getattr(bench.config.data, key)}" for key in ("root", "work_dir")]
    config, _ = compose(
        [*SMALL, CPU, *places, f"output={taken}", "stage=data"], config_name="benchmark"
    )
    with pytest.raises(CnmcError, match=f"output={taken}"):
        benchmark(config)


@pytest.mark.parametrize("override", ["stage=speed", "repeats=0"])
def test_wrong_values_are_refused(override: str) -> None:
    with pytest.raises(CnmcError, match=override.split("=", maxsplit=1)[0]):
        compose([*SMALL, override], config_name="benchmark")


def test_the_ratio_is_the_median_over_pairs_measured_in_turns() -> None:
    """A machine that slows down in between changes the rates, but not the ratio."""
    order: list[str] = []
    speed: Iterator[float] = iter([9.0, 9.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0])

    def side(name: str, times: float) -> float:
        order.append(name)
        return times * next(speed)

    comparison = Comparison("n", "u", lambda: side("baseline", 1), lambda: side("ours", 3))
    row = compare("data", comparison, 3)
    assert order == ["baseline", "ours"] * 4
    # The first pair warms up and does not count.
    assert (row.baseline, row.ours, row.ratio, row.spread) == (2.0, 6.0, 3.0, 0.0)


def test_the_spread_is_half_the_range_of_the_ratios() -> None:
    ours = iter([1.0, 2.0, 3.0, 5.0])
    row = compare("s", Comparison("n", "u", lambda: 1.0, lambda: next(ours)), 3)
    assert (row.ratio, row.spread) == (3.0, 1.5)


def test_work_is_repeated_until_it_took_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read after the device has finished."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(measure, "SECONDS", 3.0)

    def work(seconds: float = 1.0) -> None:
        now[0] += seconds

    monkeypatch.setattr(measure, "wait", lambda: work(2.0))
    assert timed(work, 10)() == 30 / 5


def test_a_comparison_that_fails_is_omitted(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> float:
        raise CnmcError("the card is full")

    given = Row("data", "bytes", "MB", 8.0, 2.0, 4.0)
    one = Comparison("one", "u", lambda: 1.0, lambda: 2.0)
    rows = compare_all("train", [Comparison("several", "u", lambda: 1.0, fails), one, given], 1)
    assert [(row.name, row.ratio) for row in rows] == [("one", 2.0), ("bytes", 4.0)]
    assert "the card is full" in capsys.readouterr().err


def test_the_table_has_one_line_for_each_row() -> None:
    rows = [Row("data", "what", "MB", 8.64, 0.27, 32.0), Row("eval", "x", "u", 1, 2000, 2.0, 0.5)]
    head, first, second = table(rows).splitlines()
    assert head.split() == ["stage", "what", "unit", "baseline", "ours", "ratio"]
    assert first.split() == ["data", "what", "MB", "8.64", "0.27", "32.00"]
    assert second.split() == ["eval", "x", "u", "1", "2,000", "2.00", "±", "0.50"]


def test_the_forecast_counts_the_papers_cells() -> None:
    # 6 x 10,661 images in an hour and 7 x 1,867 cells in another, 24 times.
    rows = [
        Row("train", TRAINING, "images/s", 1, 10_661 * 6 / 3600, 1),
        Row("eval", EVALUATION, "cells/s", 1, 7 * 1867 / 3600, 1),
    ]
    assert "48.0 hours" in forecast(rows, "net")
    assert "hours" not in forecast(rows[:1], "net")

"""The command, on a tiny network and small cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnmc.app import compose
from cnmc.benchmark import benchmark
from cnmc.benchmarking.measure import compare
from cnmc.benchmarking.stages import STAGES, Bench
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
    "trainer.accelerator=cpu",
)


def _bench(output: Path, *overrides: str) -> Bench:
    config, _ = compose([*SMALL, f"output={output}", *overrides], config_name="benchmark")
    return Bench(config, open_cells(config.data, config.split))


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

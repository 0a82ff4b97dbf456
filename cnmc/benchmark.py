"""``python -m cnmc.benchmark``: what this machine does, and what the study will take on it."""

from __future__ import annotations

import cnmc.needs_train  # isort: skip # noqa: F401

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.app import run_app, user_errors
from cnmc.benchmarking.bench import Bench
from cnmc.benchmarking.forecast import forecast
from cnmc.benchmarking.measure import Row, compare_all
from cnmc.benchmarking.stages import STAGES
from cnmc.benchmarking.table import table
from cnmc.config import CONFIG_DIR, BenchmarkConfig, register, to_config
from cnmc.data.store import open_cells
from cnmc.errors import CnmcError
from cnmc.files import replacing

register()
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="pytorch_lightning")


def benchmark(config: BenchmarkConfig) -> list[Row]:
    """Measure the stages that are asked for, and write ``benchmark.json``.

    Raises:
        CnmcError: The output folder cannot be written.
    """
    output = Path(config.output)
    rows: list[Row] = []
    try:
        bench = Bench(config, open_cells(config.data, config.split))
        for name, stage in STAGES.items():
            if config.stage in ("all", name):
                found, comparisons = stage(bench)
                rows += [*found, *compare_all(comparisons, config.repeats)]
        with replacing(output / "benchmark.json", lasting=False) as temporary:
            temporary.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    except OSError as error:
        raise CnmcError(
            f"output={output}: cannot write {error.filename or output} ({error.strerror}); give a "
            "folder with free space that you may write to"
        ) from error
    print(table(rows))
    print("\n".join(["", *forecast(rows)]))
    return rows


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="benchmark")
def main(node: DictConfig) -> None:
    """Measure what a composed configuration asks for."""
    with user_errors():
        benchmark(to_config(node))


if __name__ == "__main__":
    run_app(main)

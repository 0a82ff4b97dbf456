"""``python -m cnmc.benchmark``: the speed of this machine, and how long the study takes on it."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

import json
from dataclasses import asdict
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.benchmarking.measure import Row, compare_all, forecast, table
from cnmc.benchmarking.stages import STAGES, Bench
from cnmc.cli.app import run_app, user_errors
from cnmc.config import CONFIG_DIR, BenchmarkConfig, register, to_config
from cnmc.data.store import open_cells
from cnmc.devices import claim_gpu
from cnmc.errors import CnmcError
from cnmc.files import replacing

register()


def benchmark(config: BenchmarkConfig) -> list[Row]:
    """Measure the chosen stages, and write ``benchmark.json`` after each."""
    output = Path(config.output)
    rows: list[Row] = []
    try:
        with claim_gpu(config.trainer.accelerator) as gpu:
            bench = Bench(config, open_cells(config.data, config.split), gpu)
            for name, stage in STAGES.items():
                if config.stage in ("all", name):
                    rows += compare_all(name, stage(bench), config.repeats)
                    with replacing(output / "benchmark.json", lasting=False) as temporary:
                        text = json.dumps([asdict(row) for row in rows], indent=2)
                        temporary.write_text(text + "\n")
    except OSError as error:
        raise CnmcError(
            f"output={output}: cannot write {error.filename or output} ({error.strerror})"
        ) from error
    print(table(rows))
    print(f"\n{forecast(rows, config.model.name)}")
    return rows


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="benchmark")
def main(node: DictConfig) -> None:
    """Run the benchmark that a configuration describes."""
    with user_errors():
        benchmark(to_config(node))


if __name__ == "__main__":
    run_app(main, BenchmarkConfig)

"""``python -m cnmc.report``: what the run folders show, also while the study is at work."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.analysis.summary import summarise
from cnmc.app import run_app, user_errors
from cnmc.config import CONFIG_DIR, ReportConfig, register, to_config
from cnmc.errors import CnmcError
from cnmc.runs import find_runs, replacing

register()


def report(config: ReportConfig) -> None:
    """Print the summary of the runs, and write the metrics of each to ``tables/runs.csv``.

    Raises:
        CnmcError: There is no run.
    """
    root = Path(config.runs)
    folders = find_runs(root, config.experiments or None)
    if not folders:
        known = ", ".join(sorted({folder.path.parent.name for folder in find_runs(root)}))
        raise CnmcError(
            f"runs={root}: no run of {', '.join(config.experiments)} there; it has {known}"
            if known
            else f"runs={root}: no run folder there; python -m cnmc.train makes them below run.root"
        )
    result = summarise(folders)
    print(result.text)
    if len(result.runs):
        path = Path(config.output) / "tables" / "runs.csv"
        with replacing(path) as temporary:
            result.runs.to_csv(temporary, index=False)
        print(f"\nmetrics of every finished run: {path}")


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="report")
def main(node: DictConfig) -> None:
    """Report the runs that a composed configuration names."""
    with user_errors():
        report(to_config(node))


if __name__ == "__main__":
    run_app(main)

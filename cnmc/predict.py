"""``python -m cnmc.predict``: a trained network over a folder of cells."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start(trains=False)

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.cli.app import run_app, user_errors
from cnmc.config import PredictConfig, register, to_config
from cnmc.deploy import screening_tables as tables
from cnmc.deploy.gather import gather
from cnmc.deploy.journal import Journal
from cnmc.deploy.judgement import Cell, by_subject, judge, threshold_of
from cnmc.deploy.networks import best_runs, open_networks
from cnmc.deploy.outputs import (
    PAGE,
    PREDICTIONS,
    SKIPPED,
    SUBJECTS,
    SUBMISSION,
    output_lock,
    replacing_results,
)
from cnmc.deploy.screen import screen
from cnmc.deploy.screening_page import Screening, write_page
from cnmc.errors import CnmcError

LEFT_OUT = 3
"""Exit status where a file was left out."""

register()


def predict(config: PredictConfig) -> int:
    """Screen cells and write the results.

    Returns:
        The exit status: 0, or :data:`LEFT_OUT`.

    Raises:
        CnmcError: There is no file, a network cannot be opened or has no such threshold, the
            output folder belongs to other networks or cannot be written, or the files are not
            those of the challenge.
    """
    challenge, output = config.format == "challenge", Path(config.output)
    sources, skipped = gather(list(map(Path, config.input)), output)
    if challenge:
        try:
            tables.check_submission([source.name for source in sources], skipped)
        except CnmcError:
            if (output / SUBMISSION).is_file():  # it would be that of other files
                (output / SUBMISSION).unlink()
            raise
    paths = list(map(Path, config.checkpoint))
    if config.experiment is not None:
        paths = best_runs(Path(config.root), config.experiment, config.top)
    networks = open_networks(paths, config.num_threads)
    decisions = [network.info.decision for network in networks]
    threshold = threshold_of(decisions, config.threshold)
    with output_lock(output):
        digests = [network.digest for network in networks]
        journal = Journal(output, digests, overwrite=config.overwrite)
        seen, unusable, num_new = screen(sources, networks, journal, num_threads=config.num_threads)
        skipped += unusable
        cells = judge(seen, decisions, threshold)
        subjects = by_subject(cells)
        with replacing_results(output) as folder:
            tables.write_predictions(folder / PREDICTIONS, cells)
            tables.write_subjects(folder / SUBJECTS, subjects)
            tables.write_skipped(folder / SKIPPED, skipped)
            write_page(
                folder / PAGE,
                Screening(networks, config.threshold, threshold, cells, subjects, skipped),
                num_cells=config.cells,
                num_maps=config.gradcam,
                num_threads=config.num_threads,
            )
            if challenge and not skipped:
                tables.write_submission(folder / SUBMISSION, cells)
    if challenge:
        tables.check_submission([cell.name for cell in cells], skipped)
    _print_counts(cells, num_new)
    print(f"left out: {len(skipped):,}" + (f", see {output / SKIPPED}" if skipped else ""))
    print(f"written: {output / PAGE}")
    return LEFT_OUT if skipped else 0


def _print_counts(cells: Sequence[Cell], num_new: int) -> None:
    if not cells:
        print("no cell could be screened")
        return
    num_all, num_doubtful = sum(c.is_all for c in cells), sum(c.doubtful for c in cells)
    new = f"{num_new:,} of them new" if num_new else "nothing is computed again"
    print(f"{len(cells):,} cells, {new}: {num_all:,} called ALL")
    print(f"doubtful: {num_doubtful:,}; unlike training: {sum(bool(c.warnings) for c in cells):,}")


@hydra.main(version_base="1.3", config_path=None, config_name="predict")
def main(node: DictConfig) -> None:
    """Screen the cells that a composed configuration names."""
    with user_errors():
        status = predict(to_config(node))
    sys.exit(status)


if __name__ == "__main__":
    # The first job would end the process with its own exit status.
    run_app(main, PredictConfig)

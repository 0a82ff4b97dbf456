"""``python -m cnmc.predict``: a trained network over a folder of cells."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start(trains=False)

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.cli.app import run_app, user_errors
from cnmc.config import PredictConfig, register, to_config
from cnmc.data.names import CLASS_NAMES
from cnmc.deploy import outputs
from cnmc.deploy.networks import best_runs, open_networks
from cnmc.deploy.screen import Journal, gather, screen
from cnmc.deploy.screening_page import screening_page
from cnmc.devices import num_cores

register()


def predict(config: PredictConfig) -> int:
    """Screen cells, write the results, and return the exit status: 3 where a file was left out."""
    challenge, output = config.format == "challenge", Path(config.output)
    sources, skipped = gather(list(map(Path, config.input)), output)
    if challenge:
        outputs.check_submission(sources, skipped)
    paths = list(map(Path, config.checkpoint))
    if config.experiment is not None:
        paths = best_runs(Path(config.root), config.experiment, config.top)
    networks = open_networks(paths, config.num_threads)
    decisions = [network.info.decision for network in networks]
    threshold = outputs.threshold_of(decisions, config.threshold)
    num_threads = config.num_threads or num_cores()
    with outputs.output_lock(output):
        journal = Journal(output, [n.digest for n in networks], overwrite=config.overwrite)
        num_before = len(journal.entries)
        seen, unusable = screen(sources, networks, journal, num_threads)
        skipped |= unusable
        cells = outputs.judge(seen, decisions, threshold)
        subjects = outputs.by_subject(cells)
        page = screening_page(
            networks,
            sources,
            cells,
            num_cells=config.cells,
            num_maps=config.gradcam,
            threshold=threshold,
            wanted=config.threshold,
            subjects=subjects,
            skipped=skipped,
        )
        contents = {
            "predictions.csv": outputs.table(
                outputs.Cell._fields[:-1], (cell[:-1] for cell in cells)
            ),
            "subjects.csv": outputs.table(outputs.Subject._fields, subjects),
            "skipped.csv": outputs.table(("file", "reason"), skipped.items()),
            "screening.html": page.encode(),
        }
        if challenge and not skipped:
            contents["submission.zip"] = outputs.submission(cell.label for cell in cells)
        outputs.write_results(output, contents)
    if challenge:
        outputs.check_submission(seen, skipped)
    num_new = len(journal.entries) - num_before
    new = f"{num_new:,} of them new" if num_new else "nothing is computed again"
    num_all, num_doubtful = (
        sum(c.label == CLASS_NAMES[1] for c in cells),
        sum(c.doubtful for c in cells),
    )
    found = f"{len(cells):,} cells, {new}: {num_all:,} called ALL"
    print(found if cells else "no cell could be screened")
    print(f"doubtful: {num_doubtful:,}; unlike training: {sum(bool(c.warnings) for c in cells):,}")
    print(f"left out: {len(skipped):,}" + (f", see {output / 'skipped.csv'}" if skipped else ""))
    print(f"written: {output / 'screening.html'}")
    return 3 if skipped else 0


@hydra.main(version_base="1.3", config_path=None, config_name="predict")
def main(node: DictConfig) -> None:
    """Screen the cells that a composed configuration names."""
    with user_errors():
        status = predict(to_config(node))
    sys.exit(status)


if __name__ == "__main__":
    # The first job would end the process with its own exit status.
    run_app(main, PredictConfig)

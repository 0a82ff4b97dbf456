"""``python -m cnmc.best``: the best run of an experiment, its numbers and its checkpoint."""

from __future__ import annotations

import cnmc.cli.needs_train  # isort: skip # noqa: F401

from pathlib import Path

import hydra
from omegaconf import DictConfig

from cnmc.analysis.ranking import Candidate, candidates_in, describe, override, rank
from cnmc.cli.app import run_app, user_errors
from cnmc.config import BestConfig, register, to_config
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from cnmc.tracking.download import download
from cnmc.tracking.keys import BEST_OF_STUDY
from cnmc.tracking.remote import Project

register()


def best(config: BestConfig) -> None:
    """Name the best run; fetch or promote its checkpoint where that is asked for.

    Raises:
        CnmcError: There is no run, the runs cannot be compared, the checkpoint is lost or cannot be
            written, or W&B cannot be asked.
    """
    project = Project(config.project, config.entity) if config.source == "wandb" else None
    if project is not None:
        candidates, num_unfinished = project.candidates(config.experiment)
    else:
        candidates, num_unfinished = candidates_in(Path(config.runs), config.experiment)
    only = {"protocol": config.protocol, "manifest": config.manifest, "split": config.split}
    ranking = rank(candidates, num_unfinished=num_unfinished, only=only)
    print(describe(ranking))
    run = ranking.runs[0]
    where = run.checkpoint
    if project is None and not Path(where).is_file():
        raise CnmcError(
            f"{where}: the checkpoint of the best run is lost; source=wandb download=true fetches "
            "it where it was sent there, run.overwrite=true trains the run again"
        )
    if config.download:
        where = str(download(run, project, Path(config.output)))
        print(f"\nwritten: {where}")
    if project is None or config.download:
        print(f"starts another run: python -m cnmc.train {override('model.weights', where)}")
    else:
        print("download=true fetches the checkpoint")
    if config.promote:
        taken = (project or _project_of(run)).promote(run, config.experiment)
        print(f"{BEST_OF_STUDY} at W&B: the checkpoint of {run.label}")
        print("".join(f"  no longer: {name}\n" for name in taken), end="")


def _project_of(run: Candidate) -> Project:
    """Open the project that a run of the run folders was logged to."""
    logger = RunFolder(run.folder).read_config().get("logger", {}) if run.folder else {}
    if logger.get("kind") != "wandb":
        raise CnmcError(
            f"promote=true: {run.label} was trained with logger={logger.get('kind')}, so W&B has "
            "no checkpoint of it; logger=wandb trains runs that can be promoted"
        )
    return Project(logger["project"], logger["entity"])


@hydra.main(version_base="1.3", config_path=None, config_name="best")
def main(node: DictConfig) -> None:
    """Name the best run of those that a composed configuration names."""
    with user_errors():
        best(to_config(node))


if __name__ == "__main__":
    run_app(main, BestConfig)

"""``python -m cnmc.best``: the best run of an experiment, its numbers and its checkpoint."""

from __future__ import annotations

from cnmc.cli.app import start

if __name__ == "__main__":
    start()

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from cnmc.analysis.ranking import Candidate, candidates_in, describe, rank
from cnmc.cli.app import run_app, user_errors
from cnmc.config import BestConfig, register, to_config
from cnmc.errors import CnmcError
from cnmc.files import replacing
from cnmc.runs.folder import RunFolder
from cnmc.tracking.keys import BEST_OF_STUDY

if TYPE_CHECKING:
    from cnmc.tracking.remote import Project

register()


def best(config: BestConfig) -> None:
    """Print the best run; copy or promote its checkpoint if wanted."""
    project: Project | None = None
    if config.source == "wandb":
        project = _project(config.project, config.entity)
        candidates, num_left_out = project.candidates(config.experiment)
    else:
        candidates, num_left_out = candidates_in(Path(config.runs), config.experiment)
    only = {"protocol": config.protocol, "manifest": config.manifest, "split": config.split}
    runs = rank(candidates, only)
    print(describe(runs, num_left_out))
    run = runs[0]
    path = Path(run.checkpoint)
    if project is None and not path.is_file():
        raise CnmcError(
            f"{path}: the checkpoint of the best run is missing; source=wandb download=true "
            "downloads it if it was sent there, run.overwrite=true trains the run again"
        )
    if config.download:
        path = _download(run, project, Path(config.output))
        print(f"\nwritten: {path}")
    if project is None or config.download:
        print(f"start from it: python -m cnmc.train {shlex.quote(f'model.weights={path}')}")
    else:
        print("download=true downloads the checkpoint")
    if config.promote:
        others = (project or _project_of(run)).promote(run, config.experiment)
        print(f"{BEST_OF_STUDY} at W&B: the checkpoint of {run.label}")
        print("".join(f"  no longer: {name}\n" for name in others), end="")


def _project(name: str, entity: str | None) -> Project:
    from cnmc.tracking.remote import Project  # noqa: PLC0415 - wandb takes a second

    return Project(name, entity)


def _project_of(run: Candidate) -> Project:
    """Return the W&B project that a local run was logged to."""
    logger = RunFolder(run.folder).read_config().get("logger", {}) if run.folder else {}
    if logger.get("kind") != "wandb":
        raise CnmcError(
            f"promote=true: {run.label} was trained with logger={logger.get('kind')}, so W&B has "
            "no checkpoint of it; logger=wandb trains runs that can be promoted"
        )
    return _project(logger["project"], logger["entity"])


def _download(run: Candidate, project: Project | None, output: Path) -> Path:
    """Write a run's best checkpoint to ``<output>/<experiment>-<name>/best.ckpt``."""
    from cnmc.model.checkpoint import load_checkpoint  # noqa: PLC0415 - torch takes seconds

    path = output / run.label.replace("/", "-") / "best.ckpt"
    expected = (run.origin["run_id"], run.epoch)
    try:
        with replacing(path) as temporary:
            if project is not None:
                project.download(run, temporary)
            else:
                shutil.copyfile(run.checkpoint, temporary)
            origin = load_checkpoint(temporary, lazy=True)["cnmc"]
            found = (origin["run"]["run_id"], origin["epoch"])
            if found != expected:
                raise CnmcError(
                    f"{run.checkpoint}: run_id and epoch are {found}, expected {expected}"
                )
    except OSError as error:
        raise CnmcError(
            f"output={output}: the checkpoint cannot be written ({error.filename or path}: "
            f"{error.strerror}); give a folder with free space that you may write to"
        ) from error
    return path


@hydra.main(version_base="1.3", config_path=None, config_name="best")
def main(node: DictConfig) -> None:
    """Print the best of the runs that a composed configuration names."""
    with user_errors():
        best(to_config(node))


if __name__ == "__main__":
    run_app(main, BestConfig)

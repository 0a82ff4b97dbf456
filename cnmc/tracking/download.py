"""A copy of a run's best checkpoint, that is what its run tells of it or is not there at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from cnmc.analysis.ranking import Candidate
from cnmc.errors import CnmcError
from cnmc.files import replacing
from cnmc.tracking.remote import Project


def download(run: Candidate, project: Project | None, output: Path) -> Path:
    """Write a run's best checkpoint to ``<output>/<experiment>-<name>/best.ckpt``.

    Args:
        run: The run.
        project: Where it comes from; None takes that of the run folder.
        output: The folder.

    Raises:
        CnmcError: The checkpoint is lost, broken or another run's, or cannot be written.
    """
    path = output / run.label.replace("/", "-") / "best.ckpt"
    try:
        with replacing(path) as temporary:
            if project is not None:
                project.download(run, temporary)
            else:
                shutil.copyfile(run.checkpoint, temporary)
            _verify(temporary, run)
    except OSError as error:
        raise CnmcError(
            f"output={output}: the checkpoint cannot be written ({error.filename or path}: "
            f"{error.strerror}); give a folder with free space that you may write to"
        ) from error
    return path


def _verify(path: Path, run: Candidate) -> None:
    """Refuse a file that is no checkpoint, or that of another run, epoch or other cells."""
    from cnmc.model.checkpoint import load_checkpoint  # noqa: PLC0415 - torch takes seconds

    try:
        origin = load_checkpoint(path, lazy=True)["cnmc"]
    except CnmcError as error:
        raise CnmcError(f"{run.checkpoint}: broken, so nothing was written") from error
    expected = {**run.origin, "epoch": run.epoch}
    found = {**origin.get("run", {}), "epoch": origin.get("epoch")}
    for key in ("run_id", "manifest_fingerprint", "split_fingerprint", "epoch"):
        told = found.get(key, "absent")
        if told != expected[key]:
            raise CnmcError(
                f"{run.checkpoint}: its {key} is {told}, but {expected[key]} in the run "
                f"{run.label}, so nothing was written; run.overwrite=true trains the run again"
            )

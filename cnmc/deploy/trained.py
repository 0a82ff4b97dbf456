"""What a checkpoint holds beside its numbers: the run, its configuration, what it chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnmc.analysis.choosing import choose_of_epoch
from cnmc.analysis.decision import Decision
from cnmc.errors import CnmcError
from cnmc.model.checkpoint import read_checkpoint
from cnmc.runs.folder import RunFolder


@dataclass(frozen=True)
class TrainedNetwork:
    """A checkpoint.

    Attributes:
        path: The file.
        state_dict: Tensors by name.
        config: The run's configuration, as plain values.
        run: What tells the run from others, see :meth:`cnmc.runs.folder.RunInfo.identity`.
        epoch: Epoch of the run; 0 before training.
        decision: Temperature and thresholds, chosen by the predictions of that epoch.
        folder: The run folder that the file lies in; None where it lies elsewhere.
    """

    path: Path
    state_dict: Mapping[str, Any]
    config: Mapping[str, Any]
    run: Mapping[str, Any]
    epoch: int
    decision: Decision
    folder: RunFolder | None


def read_trained(path: Path) -> TrainedNetwork:
    """Read a checkpoint; nothing in it is executed.

    What one of an early version does not say itself is looked up in its run folder.

    Args:
        path: ``best.ckpt`` or ``last.ckpt`` of a run folder.

    Raises:
        CnmcError: The file is missing, damaged, holds more than tensors and plain values, or does
            not say where it comes from.
    """
    checkpoint = read_checkpoint(path)
    folder = _folder_of(path)
    origin = checkpoint.get("cnmc") or _origin_by_folder(path, checkpoint, folder)
    try:
        run, epoch = dict(origin["run"]), origin["epoch"]
        # Another run may have been begun in the folder since.
        info = folder.read_info() if folder is not None else None
        if info is None or info.run_id != run.get("run_id", ""):
            folder = None
        if "decision" in origin:
            decision = Decision.from_values(origin["decision"])
        else:
            decision = choose_of_epoch(folder.read_predictions() if folder else None, epoch)
        # Only the run folder knows where the data are; a checkpoint holds no folders.
        config = folder.read_config() if folder is not None else dict(origin["config"])
        for name in ("data", "split", "model", "tta"):
            if not isinstance(config.get(name, {}), Mapping):
                raise TypeError(f"config.{name} is no mapping")
        return TrainedNetwork(path, checkpoint["state_dict"], config, run, epoch, decision, folder)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CnmcError(
            f"{path} is no checkpoint of cnmc: its metadata cannot be read "
            f"({type(error).__name__}: {error})"
        ) from error


def _folder_of(path: Path) -> RunFolder | None:
    """Return the run folder that a checkpoint lies in."""
    path = path.resolve()
    folder = RunFolder(path.parent.parent)
    inside = path in (folder.best_checkpoint, folder.last_checkpoint)
    return folder if inside and folder.is_run() else None


def _origin_by_folder(
    path: Path, checkpoint: Mapping[str, Any], folder: RunFolder | None
) -> dict[str, Any]:
    """Return what the run folder says of its best checkpoint."""
    info = folder.read_info() if folder is not None else None
    # The early checkpoints count epochs from 0, and say no more of themselves.
    if folder is None or info is None or checkpoint.get("epoch") != (info.best_epoch or 0) - 1:
        raise CnmcError(f"{path} is no checkpoint of cnmc: it has no cnmc metadata")
    return {"config": folder.read_config(), "run": info.identity(), "epoch": info.best_epoch}

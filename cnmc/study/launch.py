"""What the process does that launches a study: plan it, watch it, say what it showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cnmc.analysis.summary import summary
from cnmc.app import compose
from cnmc.runs import RunFolder
from cnmc.study.board import Board
from cnmc.study.monitor import Monitor
from cnmc.study.plan import is_override, planned_runs, settings, with_multirun


@dataclass
class _Study:
    """The study that this process launched."""

    folders: list[RunFolder]
    board: Board
    lock: BaseFileLock | None
    monitor: Monitor


_launched: list[_Study] = []


class StudyPlan(Callback):
    """Plans the study in the process that launches a multirun, and begins to watch it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Work out the run folders from the overrides that are swept."""
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        overrides = [*params, *config.hydra.overrides.task]
        folders = planned_runs(
            overrides,
            root=Path(config.run.root),
            seed=config.seed,
            experiment=config.hydra.runtime.choices.experiment,
        )
        board = Board(Path(config.run.root), config.study.id or "unnamed")
        lock = board.open(folders)
        monitor = Monitor(board, ["/".join(folder.path.parts[-2:]) for folder in folders])
        monitor.start()
        _launched.append(_Study(folders, board, lock, monitor))


def study_arguments(arguments: Sequence[str]) -> list[str]:
    """Complete a command line, and compose every setting of its study once.

    A mistake in one of them is then found before hours of training, not after.

    Raises:
        CnmcError: A value is out of range.
        HydraException: A key or value is refused by Hydra.
    """
    completed = with_multirun(arguments)
    if len(completed) > len(arguments):
        for job in settings(list(filter(is_override, completed))):
            compose(job)
    return completed


def close_study() -> bool:
    """Print the summary of the study that this process launched.

    Returns:
        Whether every planned run is finished; True where there was no study.
    """
    if not _launched:
        return True
    study = _launched.pop()
    study.monitor.stop()
    reasons = {state.path: state.error for state in study.board.states() if state.error}
    print(summary(study.folders, reasons))
    if study.lock is not None:
        study.lock.release()
    study.board.close()
    infos = [folder.read_info() for folder in study.folders]
    return not reasons and all(info and info.status == "finished" for info in infos)

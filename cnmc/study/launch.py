"""What the process does that launches a study: plan it, watch it, say what it showed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from cnmc.analysis.summary import summary
from cnmc.config import to_config
from cnmc.runs import RunFolder
from cnmc.study.board import Board
from cnmc.study.monitor import Monitor
from cnmc.study.plan import planned_runs, settings


@dataclass
class _Study:
    """The study that this process launched."""

    folders: list[RunFolder]
    board: Board
    lock: FileLock
    monitor: Monitor


_launched: list[_Study] = []


class StudyPlan(Callback):
    """Plans the study in the process that launches a multirun, and begins to watch it."""

    def on_multirun_start(
        self, config: DictConfig, config_name: str | None = None, **_: Any
    ) -> None:
        """Check the settings, and work out the run folders from the overrides that are swept."""
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        overrides = [*params, *config.hydra.overrides.task]
        check_settings(overrides, config_name)
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


def check_settings(overrides: Sequence[str], config_name: str | None) -> None:
    """Compose every setting of a study once, so that a mistake is found before hours of training.

    Raises:
        CnmcError: A value is out of range.
        HydraException: A key or value is refused by Hydra.
    """
    loader = GlobalHydra.instance().config_loader()
    before = HydraConfig.instance().cfg
    try:
        for job in settings(overrides):
            whole = loader.load_configuration(config_name, overrides=job, run_mode=RunMode.RUN)
            HydraConfig.instance().set_config(whole)
            with open_dict(whole):
                del whole["hydra"]
            to_config(whole)
    finally:
        HydraConfig.instance().cfg = before


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
    study.lock.release()
    study.board.close()
    infos = [folder.read_info() for folder in study.folders]
    return all(info is not None and info.status == "finished" for info in infos)

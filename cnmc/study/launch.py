"""What the process does that launches a study: plan it, watch it, say what it showed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from filelock import BaseFileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnmc import signals
from cnmc.analysis.loading import load_study
from cnmc.analysis.summary import summarise_study
from cnmc.cli.app import without_hydra
from cnmc.config import LoggerConfig, to_config
from cnmc.errors import CnmcError, one_line
from cnmc.runs.folder import RunFolder
from cnmc.runs.lifecycle import check_place
from cnmc.study.board import SUCCEEDED, Board
from cnmc.study.monitor import Monitor
from cnmc.study.plan import planned_runs, settings
from cnmc.tracking.loggers import log_study


@dataclass
class _Study:
    """The study that this process launched."""

    folders: list[RunFolder]
    root: Path
    logger: LoggerConfig
    board: Board
    lock: BaseFileLock | None
    monitor: Monitor


_launched: list[_Study] = []


class StudyPlan(Callback):
    """Plans the study in the process that launches a multirun, and begins to watch it."""

    def on_multirun_start(
        self, config: DictConfig, config_name: str | None = None, **_: Any
    ) -> None:
        """Check the settings, and work out the run folders from the overrides that are swept."""
        try:
            _launched.append(_begin(config, config_name))
        except Exception as error:
            # What a signal interrupted may have stumbled over it.
            signals.end_if_received()
            # Hydra would make a warning of it, and launch what was never planned.
            if not isinstance(error, (CnmcError, HydraException, OmegaConfBaseException)):
                traceback.print_exc()
            sys.stderr.write(f"error: {one_line(error)}\n")
            sys.exit(2)


def _begin(config: DictConfig, config_name: str | None) -> _Study:
    params = dict(config.hydra.sweeper.params or {})
    swept = [f"{key}={value}" for key, value in params.items()]
    overrides = [*swept, *config.hydra.overrides.task]
    check_settings(overrides, config_name)
    folders = planned_runs(
        overrides,
        root=Path(config.run.root),
        seed=config.seed,
        experiment=config.hydra.runtime.choices.experiment,
        params=list(params),
    )
    for folder in folders:
        check_place(folder)
    board = Board(Path(config.run.root), config.study.id or "unnamed")
    lock = board.open(folders)
    monitor = Monitor(board, len(folders))
    monitor.start()
    logger = cast("LoggerConfig", OmegaConf.to_object(config.logger))
    return _Study(folders, Path(config.run.root), logger, board, lock, monitor)


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
            to_config(
                without_hydra(
                    loader.load_configuration(config_name, overrides=job, run_mode=RunMode.RUN)
                )
            )
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
    states = {state.path: state for state in study.board.states()}
    reasons = {}
    for path in (str(folder.path) for folder in study.folders):
        state = states.get(path)
        if state is None:
            # A folder may be another run's: without its job's word nothing is said of it.
            reasons[path] = "its job left no word"
        elif state.status not in SUCCEEDED:
            reasons[path] = state.error or state.status
    loaded = load_study(study.folders, reasons)
    result = summarise_study(loaded)
    print(result.text)
    if study.lock is not None:
        study.lock.release()
    study.board.close()
    with suppress(OSError):
        # A process that a killed command left behind may have held its board when this one began.
        study.board.remove_others()
    log_study(study.logger, loaded, study.root)
    return result.complete

"""The process that launches a study: plans it, shows it, and collects why runs are not finished."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnmc import signals
from cnmc.config import LoggerConfig, to_config
from cnmc.errors import CnmcError, one_line
from cnmc.runs.folder import RunFolder
from cnmc.runs.lifecycle import check_place
from cnmc.study.board import SUCCEEDED, Board
from cnmc.study.monitor import Monitor
from cnmc.study.plan import planned_runs, settings


@dataclass
class Study:
    """A study that this process launched."""

    root: Path
    """``run.root``."""
    folders: list[RunFolder]
    """The run folders, in the order of the jobs."""
    logger: LoggerConfig
    board: Board
    monitor: Monitor
    reasons: dict[str, str] = field(default_factory=dict)
    """By run folder, why its run is not finished; filled by :func:`close_study`."""


_launched: list[Study] = []


class StudyPlan(Callback):
    """Plans the study in the process that launches a multirun, and begins to show it."""

    def on_multirun_start(
        self, config: DictConfig, config_name: str | None = None, **_: Any
    ) -> None:
        """Check all settings, find the run folders, and open the board."""
        try:
            _launched.append(_begin(config, config_name))
        # Hydra would only warn of an error, and launch the jobs.
        except Exception as error:
            signals.end_if_received()
            if not isinstance(error, (CnmcError, HydraException, OmegaConfBaseException)):
                traceback.print_exc()
            sys.stderr.write(f"error: {one_line(error)}\n")
            sys.exit(2)


def _begin(config: DictConfig, config_name: str | None) -> Study:
    params = dict(config.hydra.sweeper.params or {})
    swept = [f"{key}={value}" for key, value in params.items()]
    overrides = [*swept, *config.hydra.overrides.task]
    checked = check_settings(overrides, config_name)
    root = Path(config.run.root)
    folders = planned_runs(
        overrides,
        root=root,
        seed=config.seed,
        experiment=config.hydra.runtime.choices.experiment,
        params=list(params),
    )
    for folder in folders:
        check_place(folder)
    board = Board(root, config.study.id or "unnamed")
    board.open()
    monitor = Monitor(board, folders)
    monitor.start()
    return Study(root, folders, checked[0].logger, board, monitor)


def check_settings(overrides: Sequence[str], config_name: str | None) -> list[Any]:
    """Compose every setting of a study once, so that mistakes are found before the first run.

    Returns:
        The typed configuration of one run of each setting.

    Raises:
        CnmcError: A value is out of range.
        HydraException: Hydra refuses a key or value.
    """
    loader = GlobalHydra.instance().config_loader()
    before = HydraConfig.instance().cfg
    try:
        configs = []
        for job in settings(overrides):
            node = loader.load_configuration(config_name, overrides=job, run_mode=RunMode.RUN)
            HydraConfig.instance().set_config(node)
            with open_dict(node):
                del node["hydra"]
            configs.append(to_config(node))
        return configs
    finally:
        HydraConfig.instance().cfg = before


def close_study() -> Study | None:
    """End the study that this process launched, and return it; None if there was none."""
    if not _launched:
        return None
    study = _launched.pop()
    study.monitor.stop()
    states = {state.num: state for state in study.board.states()}
    for num, folder in enumerate(study.folders):
        state = states.get(num)
        if state is None:
            study.reasons[str(folder.path)] = "its job did not start"
        elif state.status not in SUCCEEDED:
            study.reasons[str(folder.path)] = state.error or state.status
    study.board.close()
    return study

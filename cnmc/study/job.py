"""A job of a study: trains one run and reports its state on the study's board."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cnmc.config import Config, to_config
from cnmc.errors import CnmcError, RefusedError, is_interruption, one_line
from cnmc.runs.folder import RunFolder
from cnmc.signals import end_if_received
from cnmc.study.monitor import Board, JobState
from cnmc.study.plan import job_folder
from cnmc.training.progress import Report, RunDisplay, RunProgress

Train = Callable[[Config, dict[str, Any], RunFolder, Report], Literal["trained", "skipped"]]


def described(node: DictConfig) -> tuple[Config, dict[str, Any], RunFolder]:
    """Return the typed configuration of a run, the same as plain values, and its run folder.

    Raises:
        CnmcError: A value is out of range, or a study file is used for one run.
    """
    job = HydraConfig.get()
    if job.mode == RunMode.RUN and job.sweeper.params:
        raise CnmcError(
            f"hydra.sweeper.params: {', '.join(job.sweeper.params)} would not be swept; add -m"
        )
    config: Config = to_config(node)
    resolved: Any = OmegaConf.to_container(node, resolve=True)
    folder = job_folder(config, list(job.overrides.task), dict(job.sweeper.params or {}))
    return config, resolved, folder


def run_job(node: DictConfig, train: Train) -> None:
    """Train the run of a job.

    An error ends the run and not the study: it is reported on the board, and other jobs continue.
    """
    board = Board(Path(node.run.root), node.study.id)
    state = JobState(int(HydraConfig.get().job.num), "running", time.time())
    # The jobs of these launchers print to a file of their own.
    launcher = HydraConfig.get().launcher._target_
    own_log = RunDisplay() if "submitit" in launcher or "ray" in launcher else None

    def report(progress: RunProgress) -> None:
        if state.progress is None and progress.epoch > 0:
            state.first_share = progress.epoch / progress.max_epochs
        state.progress = progress
        board.write(state)
        if own_log is not None:
            own_log.update(progress)

    try:
        config, resolved, folder = described(node)
        bad = [other for other in board.states() if other.status in ("failed", "refused")]
        if config.study.fail_fast and bad and not folder.is_finished():
            state.status = "left out"
            state.error = f"study.fail_fast=true, and run {bad[0].num + 1} {bad[0].status}"
            return
        board.write(state)
        outcome = train(config, resolved, folder, report)
        state.status = "skipped" if outcome == "skipped" else "finished"
    except CnmcError as error:
        state.status = "refused" if isinstance(error, RefusedError) else "failed"
        state.error = one_line(error)
    except Exception as error:
        state.status = "interrupted" if is_interruption(error) else "failed"
        state.error = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        # No further run after a signal.
        end_if_received()
        with suppress(CnmcError):
            info = folder.read_info()
            if info is None or info.status != "failed":
                # The run folder does not hold the traceback.
                traceback.print_exc()
    except BaseException:
        state.status = "interrupted"
        raise
    finally:
        board.write(state)

"""A job of a study: it trains one run, in whatever process, and writes on the study's board."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cnmc.config import Config, to_config
from cnmc.errors import CnmcError, RefusedError, is_interruption, one_line
from cnmc.runs.folder import RunFolder
from cnmc.runs.provenance import machine
from cnmc.signals import end_if_received
from cnmc.study.board import Board, JobState
from cnmc.study.plan import job_folder
from cnmc.training.progress import SECONDS_BETWEEN_LINES, RunProgress, Tell

Train = Callable[[Config, dict[str, Any], RunFolder, Tell], Literal["trained", "skipped"]]


def described(node: DictConfig) -> tuple[Config, dict[str, Any], RunFolder]:
    """Return what a composed configuration asks for: typed, as plain values, and its run folder.

    Raises:
        CnmcError: A key is unknown or a value out of range, or a study's file is taken for one run.
    """
    job = HydraConfig.get()
    if job.mode == RunMode.RUN and job.sweeper.params:
        raise CnmcError(
            f"hydra.sweeper.params: {', '.join(job.sweeper.params)} would not be swept; add -m"
        )
    config: Config = to_config(node)
    resolved = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    folder = job_folder(config, list(job.overrides.task), dict(job.sweeper.params or {}))
    return config, resolved, folder


def run_job(node: DictConfig, train: Train) -> None:
    """Train the run of a job of a study.

    An error ends the run and not the study: it is written down, and the other jobs go on.

    Args:
        node: The composed configuration.
        train: Trains the run and tells how far it is.
    """
    num = int(HydraConfig.get().job.num)
    board = Board(Path(node.run.root), node.study.id or "unnamed")
    runs = board.plan()["runs"]
    state = JobState(num, "running", runs[num] if num < len(runs) else "", time.time())
    try:
        config, resolved, folder = described(node)
        state.path = str(folder.path)
        if config.study.fail_fast and not folder.is_finished():
            failed = board.first_failure()
            if failed is not None:
                state.status = "left out"
                state.error = f"study.fail_fast=true, and {failed.path} {failed.status}"
                return
        board.write(state)
        outcome = train(config, resolved, folder, _teller(board, state))
        state.status = "skipped" if outcome == "skipped" else "finished"
    except RefusedError as error:
        state.status, state.error = "refused", one_line(error)
    except CnmcError as error:
        state.status, state.error = "failed", one_line(error)
    except Exception as error:
        reason = str(error).strip().splitlines()
        state.error = ": ".join([type(error).__name__, *reason[:1]])
        state.status = "interrupted" if is_interruption(error) else "failed"
        # No further run after a signal.
        end_if_received()
        if not _is_recorded(state.path):
            traceback.print_exc()
    except BaseException:
        state.status = "interrupted"
        raise
    finally:
        state.seconds = time.time() - state.began
        board.write(state)


def _is_recorded(path: str) -> bool:
    """Tell whether the traceback of a failure is in its run folder."""
    try:
        info = RunFolder(Path(path)).read_info()
    except CnmcError:
        return False
    return info is not None and info.status == "failed"


def _teller(board: Board, state: JobState) -> Tell:
    """Return a function that writes the progress of a run on the board.

    A process that a cluster started has a log of its own, and prints its progress there too.
    """
    plan = board.plan()
    own_log = plan["machine"] != machine() or plan["pid"] not in (os.getpid(), os.getppid())
    last_line = time.monotonic()
    first = True

    def tell(progress: RunProgress) -> None:
        nonlocal first, last_line
        if first and progress.epoch > 0:
            # It goes on from this epoch.
            state.first_share = progress.epoch / max(progress.max_epochs, 1)
        first = False
        state.progress = progress
        state.seconds = time.time() - state.began
        board.write(state)
        due = time.monotonic() - last_line >= SECONDS_BETWEEN_LINES
        if own_log and (progress.doing is None or due):
            last_line = time.monotonic()
            print(progress.line(), flush=True)

    return tell

"""From a command line to the runs of a study: planned and launched, and run as its jobs."""

from __future__ import annotations

import os
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnmc.config import Config, to_config
from cnmc.errors import CnmcError, RefusedError, is_interruption, one_line
from cnmc.runs.folder import RunFolder
from cnmc.runs.identity import agent_parameters, run_name
from cnmc.runs.lifecycle import check_place
from cnmc.signals import end_if_received, end_with_parent, never_fail_to_print
from cnmc.study.monitor import SUCCEEDED, Board, JobState, Monitor
from cnmc.training.progress import Report, RunDisplay, RunProgress

_OTHER_COMMANDS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-r", "--run")
_STUDY_FILES = "sweep"  # the config group of study files; choosing one asks for a multirun

# The study that this process launched: the configuration of its first run, and its monitor.
_launched: list[tuple[Config, Monitor]] = []


def with_multirun(arguments: Sequence[str], study_id: str | None = None) -> list[str]:
    """Complete a command line that sweeps, chooses a study file, or was made by W&B's agent.

    ``run.swept`` gives the swept keys to the jobs, which see only their own values, to name the run
    folders. ``study.id``, random by default, names the board of the study. Raises CnmcError if the
    runs would share a folder, or the agent's command asks for several runs.
    """
    if any(argument.split("=")[0] in _OTHER_COMMANDS for argument in arguments):
        return list(arguments)
    is_override = ["=" in argument and not argument.startswith("-") for argument in arguments]
    parsed = _parse(a for a, chosen in zip(arguments, is_override, strict=True) if chosen)
    given = {_key(item) for item in parsed}
    swept = [_key(item) for item in parsed if item.is_sweep_override()]
    flag = "-m" in arguments or "--multirun" in arguments
    several = flag or _STUDY_FILES in given
    parameters = agent_parameters()
    if parameters is None:
        if not (swept or several):
            return list(arguments)
        own = [f"run.swept=[{','.join(swept)}]", f"study.id={study_id or secrets.token_hex(4)}"]
    else:
        missing = [key for key in parameters if key not in given]
        if wrong := swept or ["multirun"] * several or missing:
            raise CnmcError(
                f"{', '.join(wrong)}: W&B's agent trains one run at a time, with every parameter "
                "of the W&B sweep; list the values in the sweep file (values: [0, 1]), and add "
                "${args_no_hyphens} to its command"
            )
        own = [f"run.swept=[{','.join(parameters)}]"]
    if "run.name" in given and (swept or parameters or _STUDY_FILES in given):
        raise CnmcError(
            "run.name: each run of a sweep is named after its swept values; "
            "choose another run.root instead"
        )
    if "run.root" in swept:
        raise CnmcError("run.root: cannot be swept; all runs of a study are in one folder")
    # The parser of the command line takes overrides only in one piece.
    end = len(arguments) - is_override[::-1].index(True) if any(is_override) else 0
    flags = [] if flag or parameters is not None else ["--multirun"]
    return [*arguments[:end], *own, *arguments[end:], *flags]


class StudyCallback(Callback):
    """Hydra calls this when a multirun starts, and in the process of each job."""

    def on_multirun_start(
        self, config: DictConfig, config_name: str | None = None, **_: Any
    ) -> None:
        """Check all settings, find the run folders, and begin to show the study."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if "joblib" in config.hydra.launcher._target_:
            # Its processes end with this one.
            joblib = import_module("joblib")
            loky = joblib.parallel.BACKENDS["loky"]
            loky = partial(loky, initializer=end_with_parent, initargs=(os.getpid(),))
            joblib.register_parallel_backend("loky", loky)
        try:
            _launch(config, config_name)
        # Hydra would only warn of an error, and launch the jobs.
        except Exception as error:
            end_if_received()
            if not isinstance(error, (CnmcError, HydraException, OmegaConfBaseException)):
                traceback.print_exc()
            sys.stderr.write(f"error: {one_line(error)}\n")
            sys.exit(2)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Change to the folder of the command, which is not where Ray starts its processes."""
        os.chdir(config.hydra.runtime.cwd)
        never_fail_to_print()


def _launch(config: DictConfig, config_name: str | None) -> None:
    params = dict(config.hydra.sweeper.params or {})
    overrides = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    jobs = planned_jobs(overrides)
    configs = compose_settings(jobs, config_name)
    folders = [job_folder(configs[setting(job)], job, params) for job in jobs]
    for folder in folders:
        check_place(folder)
    board = Board(Path(config.run.root), config.study.id)
    board.open()
    monitor = Monitor(board, folders)
    monitor.start()
    _launched.append((configs[setting(jobs[0])], monitor))


def close_study() -> tuple[Config, list[RunFolder], dict[str, str]] | None:
    """End the study that this process launched; return None if there was none.

    Otherwise return the configuration of its first run, the run folders, and the reason why a run
    is not finished by the path of its folder.
    """
    if not _launched:
        return None
    config, monitor = _launched.pop()
    monitor.stop()
    reasons = {str(folder.path): "its job did not start" for folder in monitor.folders}
    for state in monitor.board.states():
        path = str(monitor.folders[state.num].path)
        reasons[path] = state.error or state.status
        if state.status in SUCCEEDED:
            del reasons[path]
    monitor.board.close()
    return config, monitor.folders, reasons


def planned_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job, as Hydra's sweeper combines them, in their order."""
    choices: dict[str, list[str]] = {}
    for item in _parse(overrides):
        key = item.get_key_element()
        swept = item.is_sweep_override()
        values = item.sweep_string_iterator() if swept else [item.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in product(*choices.values())]


def setting(job: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides of a job except for the seed."""
    return tuple(item for item in job if item.lstrip("+").partition("=")[0] != "seed")


def compose_settings(
    jobs: Sequence[list[str]], config_name: str | None
) -> dict[tuple[str, ...], Config]:
    """Compose one job of each setting, so that mistakes are found before the first run begins."""
    loader = GlobalHydra.instance().config_loader()
    configs: dict[tuple[str, ...], Config] = {}
    before = HydraConfig.instance().cfg
    try:
        for job in jobs:
            if setting(job) not in configs:
                node = loader.load_configuration(config_name, overrides=job, run_mode=RunMode.RUN)
                HydraConfig.instance().set_config(node)
                with open_dict(node):
                    del node["hydra"]
                configs[setting(job)] = to_config(node)
    finally:
        HydraConfig.instance().cfg = before
    return configs


def job_folder(
    config: Config, overrides: Sequence[str] = (), params: Mapping[str, Any] | None = None
) -> RunFolder:
    """Return the run folder of a job.

    ``config`` may be of another job of the same setting. ``overrides`` are the job's own, one value
    for each key, and ``params`` is ``hydra.sweeper.params`` of a study file.
    """
    values = {_key(item): item.get_value_element_as_str() for item in _parse(overrides)}
    swept = {key: values[key] for key in (*config.run.swept, *(params or {})) if key in values}
    name = config.run.name or run_name(values.get("seed", config.seed), swept)
    return RunFolder(Path(config.run.root) / config.experiment / name)


def described(node: DictConfig) -> tuple[Config, dict[str, Any], RunFolder]:
    """Return the typed configuration of a run, the same as plain values, and its run folder."""
    job = HydraConfig.get()
    if job.mode == RunMode.RUN and job.sweeper.params:
        raise CnmcError(
            f"hydra.sweeper.params: {', '.join(job.sweeper.params)} would not be swept; add -m"
        )
    config: Config = to_config(node)
    resolved: Any = OmegaConf.to_container(node, resolve=True)
    folder = job_folder(config, list(job.overrides.task), dict(job.sweeper.params or {}))
    return config, resolved, folder


def run_job(
    node: DictConfig, train: Callable[[Config, dict[str, Any], RunFolder, Report], str]
) -> None:
    """Train the run of a job. Its error is reported on the board, and other jobs continue."""
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


def _parse(overrides: Iterable[str]) -> list[Override]:
    # Hydra needs its loader to expand a glob over the files of a group.
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def _key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")

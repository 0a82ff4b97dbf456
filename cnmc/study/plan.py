"""The runs that a command line asks for, and their folders."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from cnmc.config import Config
from cnmc.errors import CnmcError
from cnmc.runs import sweep_agent
from cnmc.runs.folder import RunFolder
from cnmc.runs.identity import run_name

_OTHER_COMMANDS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-r", "--run")
_MULTIRUN = ("-m", "--multirun")
_STUDY_FILES = "sweep"
"""The config group of study files (``sweeps/hydra/sweep``); choosing one asks for a multirun."""


def _is_override(argument: str) -> bool:
    return "=" in argument and not argument.startswith("-")


def _key(override: Override) -> str:
    """Return the key of an override without a sign that adds it."""
    return override.get_key_element().lstrip("+~")


def _parse(overrides: Sequence[str]) -> list[Override]:
    # Hydra needs its loader to expand a glob over the files of a group.
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def swept_keys(arguments: Sequence[str]) -> list[str]:
    """Return the keys that a command line sweeps, in their order.

    Args:
        arguments: The command line without the program's name; flags are ignored.

    Raises:
        HydraException: An override cannot be parsed.
    """
    parsed = _parse(list(filter(_is_override, arguments)))
    return [_key(item) for item in parsed if item.is_sweep_override()]


def with_multirun(arguments: Sequence[str], study_id: str | None = None) -> list[str]:
    """Complete a command line that sweeps, chooses a study file, or was made by W&B's agent.

    ``run.swept`` gives the swept keys to the jobs, which see only their own values, to name the run
    folders. ``study.id`` names the board of the study.

    Args:
        arguments: The command line without the program's name.
        study_id: The name of the board; random by default.

    Raises:
        CnmcError: The runs would share a folder, or the agent's command asks for several runs.
    """
    if any(argument.split("=")[0] in _OTHER_COMMANDS for argument in arguments):
        return list(arguments)
    keys = swept_keys(arguments)
    asked = any(argument in _MULTIRUN for argument in arguments)
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    from_file = _STUDY_FILES in given
    parameters = sweep_agent.parameters()
    if parameters is not None:
        _check_trial(parameters, given, keys, multirun=asked or from_file)
        keys = parameters
    elif not (keys or asked or from_file):
        return list(arguments)
    if (keys or from_file) and "run.name" in given:
        raise CnmcError(
            "run.name: each run of a sweep is named after its swept values; "
            "choose another run.root instead"
        )
    if "run.root" in keys:
        raise CnmcError("run.root: cannot be swept; all runs of a study are in one folder")
    own = [f"run.swept=[{','.join(keys)}]"]
    flags = []
    if parameters is None:
        own.append(f"study.id={study_id or secrets.token_hex(4)}")
        flags = [] if asked else ["--multirun"]
    # The command line's parser takes overrides only in one piece.
    last = max((i for i, argument in enumerate(arguments) if _is_override(argument)), default=-1)
    return [*arguments[: last + 1], *own, *arguments[last + 1 :], *flags]


def _check_trial(
    parameters: Sequence[str], given: set[str], swept: Sequence[str], *, multirun: bool
) -> None:
    """Refuse a command of W&B's agent unless it asks for one run with all parameters.

    Raises:
        CnmcError: A parameter is missing on the command line, or it asks for several runs.
    """
    if swept or multirun:
        raise CnmcError(
            f"{', '.join(swept) or 'multirun'}: W&B's agent trains one run at a time; list the "
            "values in the sweep file (values: [0, 1]), from which the agent chooses"
        )
    missing = [key for key in parameters if key not in given]
    if missing:
        raise CnmcError(
            f"{', '.join(missing)}: a parameter of the W&B sweep that its command does not pass "
            "on; add ${args_no_hyphens} to the command of the sweep file"
        )


def planned_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job, as Hydra's sweeper combines them, in their order."""
    choices: dict[str, list[str]] = {}
    for item in _parse(overrides):
        key = item.get_key_element()
        values = item.sweep_string_iterator() if item.is_sweep_override() else [_value(item)]
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in product(*choices.values())]


def _value(item: Override) -> str:
    return item.get_value_element_as_str()


def planned_runs(
    overrides: Sequence[str],
    *,
    root: Path,
    seed: int,
    experiment: str,
    params: Sequence[str] = (),
) -> list[RunFolder]:
    """Return the run folder of every job, in the order of the jobs.

    Args:
        overrides: Those of the command, sweeps included.
        root: ``run.root``.
        seed: The seed of jobs whose overrides name none.
        experiment: The experiment of jobs whose overrides name none.
        params: The keys of ``hydra.sweeper.params``, which name folders even with one value.
    """
    swept = [*swept_keys(overrides), *params]
    planned: list[RunFolder] = []
    for job in planned_jobs(overrides):
        name = run_name(_values(job, ["seed"]).get("seed", str(seed)), _values(job, swept))
        chosen = _values(job, ["experiment"]).get("experiment", experiment)
        planned.append(RunFolder(root / chosen / name))
    return planned


def settings(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of one job for every setting: every combination but for the seed."""
    jobs: dict[tuple[str, ...], list[str]] = {}
    for job in planned_jobs(overrides):
        others = [text for text in job if text.lstrip("+").partition("=")[0] != "seed"]
        jobs.setdefault(tuple(others), job)
    return list(jobs.values())


def job_folder(config: Config, overrides: Sequence[str], params: Mapping[str, Any]) -> RunFolder:
    """Return the run folder of a job.

    Args:
        config: The job's configuration.
        overrides: The job's own overrides, one value for each key.
        params: ``hydra.sweeper.params`` of a study file.
    """
    name = config.run.name or run_name(
        config.seed, _values(overrides, [*config.run.swept, *params])
    )
    return RunFolder(Path(config.run.root) / config.experiment / name)


def _values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values that overrides give to some keys, as Hydra writes them."""
    values = {_key(item): item.get_value_element_as_str() for item in _parse(overrides)}
    return {key: values[key] for key in keys if key in values}

"""Which runs a command line asks for, and which folders they fill."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from cnmc.config import Config
from cnmc.errors import CnmcError
from cnmc.runs.folder import RunFolder
from cnmc.runs.identity import run_name
from cnmc.tracking import agent

_OTHER_COMMANDS = ("-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-r", "--run")
_MULTIRUN = ("-m", "--multirun")

STUDY_FILES = "sweep"
"""The config group of study files (``sweeps/hydra/sweep``): choosing one asks for a multirun."""


def _is_override(argument: str) -> bool:
    return "=" in argument and not argument.startswith("-")


def _key(override: Override) -> str:
    """Return the key of an override without the sign that adds or removes it."""
    return override.get_key_element().lstrip("+~")


def _parse(overrides: Sequence[str]) -> list[Override]:
    # A glob sweeps what the configuration's groups hold; Hydra knows them once it has started.
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def swept_keys(arguments: Sequence[str]) -> list[str]:
    """Return the keys that a command line sweeps, in their order.

    Args:
        arguments: The command line without the program's name; flags are passed over.

    Raises:
        HydraException: An override cannot be parsed.
    """
    parsed = _parse(list(filter(_is_override, arguments)))
    return [_key(item) for item in parsed if item.is_sweep_override()]


def with_multirun(arguments: Sequence[str], study_id: str | None = None) -> list[str]:
    """Complete a command line that sweeps, that chooses a study file, or that W&B's agent made.

    The names of the swept keys travel as ``run.swept`` because a job sees only its own values, and
    its run folder is named after the swept ones; ``study.id`` names the board on which the jobs of
    a multirun write. What an agent gives is one run, whose swept keys are the sweep's parameters.

    Args:
        arguments: The command line without the program's name.
        study_id: The name of the board; a random one by default.

    Raises:
        CnmcError: The runs would share a folder, or the agent's run is not one run.
    """
    keys = swept_keys(arguments)
    asked = any(argument in _MULTIRUN for argument in arguments)
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    from_file = STUDY_FILES in given
    if any(argument.split("=")[0] in _OTHER_COMMANDS for argument in arguments):
        return list(arguments)
    parameters = agent.parameters()
    if parameters is not None:
        _check_trial(parameters, given, keys, multirun=asked or from_file)
        keys = parameters
    elif not (keys or asked or from_file):
        return list(arguments)
    if (keys or from_file) and "run.name" in given:
        raise CnmcError(
            "run.name: every run of a sweep has a folder of its own, named after what is swept; "
            "choose another run.root instead"
        )
    if "run.root" in keys:
        raise CnmcError("run.root: the runs of a study lie below one folder; it cannot be swept")
    own = [f"run.swept=[{','.join(keys)}]"]
    flags = []
    if parameters is None:
        own.append(f"study.id={study_id or secrets.token_hex(4)}")
        flags = [] if asked else ["--multirun"]
    # Among the overrides: the parser of the command line takes them in one piece only.
    last = max((i for i, argument in enumerate(arguments) if _is_override(argument)), default=-1)
    return [*arguments[: last + 1], *own, *arguments[last + 1 :], *flags]


def _check_trial(
    parameters: Sequence[str], given: set[str], swept: Sequence[str], *, multirun: bool
) -> None:
    """Refuse what an agent starts unless it is one run that is told every parameter.

    Raises:
        CnmcError: A parameter is missing on the command line, or it asks for several runs.
    """
    if swept or multirun:
        raise CnmcError(
            f"{', '.join(swept) or 'multirun'}: what W&B's agent starts is one run; list the "
            "values in the sweep file (values: [0, 1]) and let the agent choose among them"
        )
    missing = [key for key in parameters if key not in given]
    if missing:
        raise CnmcError(
            f"{', '.join(missing)}: a parameter of the W&B sweep that its command does not pass "
            "on; put ${args_no_hyphens} into the command of the sweep file"
        )


def planned_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of every job, each combination of swept values once, in their order."""
    return [list(job) for job in BasicSweeper.split_arguments(_parse(overrides), None)[0]]


def planned_runs(
    overrides: Sequence[str],
    *,
    root: Path,
    seed: int,
    experiment: str,
    params: Sequence[str] = (),
) -> list[RunFolder]:
    """Return the run folders of every combination of swept overrides, in the order of the jobs.

    Args:
        overrides: Those of the command, sweeps included.
        root: ``run.root``.
        seed: The seed of jobs whose overrides name none.
        experiment: The experiment of jobs whose overrides name none.
        params: The keys of ``hydra.sweeper.params``, which name folders whether swept or not.
    """
    swept = [*swept_keys(overrides), *params]
    planned: list[RunFolder] = []
    for job in planned_jobs(overrides):
        name = run_name(_values(job, ["seed"]).get("seed", str(seed)), _values(job, swept))
        chosen = _values(job, ["experiment"]).get("experiment", experiment)
        planned.append(RunFolder(root / chosen / name))
    return planned


def settings(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of one job for every setting: what is swept, but for the seed."""
    jobs: dict[tuple[str, ...], list[str]] = {}
    for job in planned_jobs(overrides):
        others = tuple(
            text for text, item in zip(job, _parse(job), strict=True) if _key(item) != "seed"
        )
        jobs.setdefault(others, job)
    return list(jobs.values())


def job_folder(config: Config, overrides: Sequence[str], params: Mapping[str, Any]) -> RunFolder:
    """Return the run folder of a job.

    Args:
        config: The job's configuration.
        overrides: The job's own overrides, a single value for each key.
        params: ``hydra.sweeper.params``: what a study file sweeps.
    """
    name = config.run.name or run_name(
        config.seed, _values(overrides, [*config.run.swept, *params])
    )
    return RunFolder(Path(config.run.root) / config.experiment / name)


def _values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Return the values that a job's overrides give to some keys, as Hydra writes them."""
    values = {_key(item): item.get_value_element_as_str() for item in _parse(overrides)}
    return {key: values[key] for key in keys if key in values}

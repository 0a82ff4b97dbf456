"""Runs a command: prints a mistake as one line, and gives a signal its exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cnmc.cli.overrides import quoted
from cnmc.cli.packages import missing_package
from cnmc.config import CONFIG_DIR, SCHEMAS, STANDALONE, register, to_config
from cnmc.errors import CnmcError, one_line
from cnmc.signals import INTERRUPTED, TERMINATED, listen, status_of_signal
from cnmc.streams import never_fail_to_print

_OF_LAUNCHERS = {
    "TerminatedWorkerError": "a training process was killed (out of memory?)",
    "WorkerCrashedError": "a training process was killed (out of memory?)",
    "UncompletedJobError": "a job ended without its result",
    "FailedJobError": "the cluster refused the jobs",
}
"""Errors of joblib, Ray and submitit by name, and their meaning."""
_MULTIRUN = ("-m", "--multirun")


def without_multirun(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a command that does only one job.

    Raises:
        CnmcError: It asks for several jobs.
    """
    for argument in arguments:
        if argument in _MULTIRUN:
            raise CnmcError(f"{argument}: this command does one job; repeat it for each value")
    return list(arguments)


def explained(error: BaseException) -> str:
    """Return the message of an error as one line; it names the package if one is missing."""
    message = one_line(error)
    return missing_package(message) or message


def without_hydra(whole: DictConfig) -> DictConfig:
    """Make Hydra's part of a configuration known to ``HydraConfig``, and return the rest."""
    HydraConfig.instance().set_config(whole)
    with open_dict(whole):
        del whole["hydra"]
    return whole


def compose(overrides: Sequence[str], config_name: str = "config") -> tuple[Any, dict[str, Any]]:
    """Compose a configuration outside of a command, for notebooks and tests.

    Args:
        overrides: As on the command line, without sweeps.
        config_name: ``config`` for training, else the name of the command.

    Returns:
        The typed configuration, and the same as resolved plain values.
    """
    register()
    with (
        initialize(None, version_base="1.3")
        if config_name in STANDALONE
        else initialize_config_dir(str(CONFIG_DIR), version_base="1.3")
    ):
        whole = hydra_compose(
            config_name, quoted(overrides, SCHEMAS[config_name]), return_hydra_config=True
        )
    node = without_hydra(whole)
    resolved: Any = OmegaConf.to_container(node, resolve=True)
    return to_config(node), resolved


@contextmanager
def user_errors() -> Iterator[None]:
    """End a single run with one line if it raises a :class:`CnmcError`.

    Hydra would add its own lines. In a multirun the error is raised, and the other jobs continue.
    """
    try:
        yield
    except CnmcError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.stderr.write(f"error: {explained(error)}\n")
        sys.exit(2)


def run_app(
    main: Callable[[], Any],
    schema: type,
    *,
    arguments: Callable[[list[str]], list[str]] | None = None,
    close: Callable[[], bool] | None = None,
) -> None:
    """Run a Hydra main function as a command.

    Args:
        main: The function that ``hydra.main`` made.
        schema: The dataclass of the command's configuration.
        arguments: Completes the command line, without the program's name.
        close: Called at the end, also if jobs failed; returns whether all results are complete.
    """
    status = 0
    never_fail_to_print()
    sys.argv[1:] = quoted(sys.argv[1:], schema)
    listen()
    # Hydra then raises errors instead of printing several lines, so they are handled below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        if arguments is not None:
            sys.argv[1:] = arguments(sys.argv[1:])
        main()
    except (CnmcError, HydraException, OmegaConfBaseException) as error:
        _end_if_interrupted(error)
        sys.stderr.write(f"error: {explained(error)}\n")
        status = 2
    except (KeyboardInterrupt, SystemExit) as error:
        _end_if_interrupted(error)
        raise
    except Exception as error:
        _end_if_interrupted(error)
        meaning = _OF_LAUNCHERS.get(type(error).__name__)
        if meaning is not None:
            sys.stderr.write(
                f"error: {meaning}; the same command continues with the missing runs "
                f"({one_line(error)})\n"
            )
        else:
            traceback.print_exc()
        status = 1
    try:
        if close is not None and not close():
            status = status or 1
    except KeyboardInterrupt as error:
        _end_if_interrupted(error)
    sys.exit(status)


def _end_if_interrupted(error: BaseException) -> None:
    """End the program with the exit status of a signal if one was received."""
    # Lightning turns Ctrl-C into a plain exit.
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        status: int | None = INTERRUPTED
    elif isinstance(error, SystemExit) and error.code == TERMINATED:
        status = TERMINATED
    else:
        status = status_of_signal()
    if status is not None:
        sys.stderr.write("interrupted; the same command continues from here\n")
        sys.exit(status)

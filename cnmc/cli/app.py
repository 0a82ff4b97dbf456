"""The shell around every command: a mistake gets one line, a signal its exit status."""

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
    "TerminatedWorkerError": "a process that trained was lost (out of memory?)",
    "WorkerCrashedError": "a process that trained was lost (out of memory?)",
    "UncompletedJobError": "a job ended without its result",
    "FailedJobError": "the cluster refused the jobs",
}
"""What joblib, Ray and submitit raise by its name, and what it means."""
_MULTIRUN = ("-m", "--multirun")


def without_multirun(arguments: Sequence[str]) -> list[str]:
    """Refuse what asks for several jobs, for a command that has one exit status for its one job.

    Raises:
        CnmcError: It is asked for.
    """
    for argument in arguments:
        if argument in _MULTIRUN:
            raise CnmcError(
                f"{argument}: this command does one thing at a time; give it once for each"
            )
    return list(arguments)


def explained(error: BaseException) -> str:
    """Return the message of an error as one line; it names the package if one is missing."""
    message = one_line(error)
    return missing_package(message) or message


def without_hydra(whole: DictConfig) -> DictConfig:
    """Return a configuration as a main function gets it: Hydra's own part where it is looked up."""
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
    """End the program with one line where a user's mistake is found while a single run works.

    Hydra would add lines of its own to an exception that leaves the main function. In a multirun
    they say which job it was, and the other jobs go on.
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
        arguments: Is given the command line without the program's name, and completes it.
        close: Called at the end, whether jobs of the sweep failed or not; returns whether all that
            was asked for is there.
    """
    status = 0
    never_fail_to_print()
    sys.argv[1:] = quoted(sys.argv[1:], schema)
    listen()
    # Hydra then raises instead of printing several lines and leaving, so all errors end below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        if arguments is not None:
            sys.argv[1:] = arguments(sys.argv[1:])
        main()
    except (CnmcError, HydraException, OmegaConfBaseException) as error:
        # What the signal interrupted may stumble over itself while it is left.
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
                f"error: {meaning}; the same command goes on with what is missing "
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
    """End the program with the exit status of a signal, where one ended its work."""
    # Lightning makes a plain exit of Ctrl-C, and asks between two batches whether SIGTERM came.
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        status: int | None = INTERRUPTED
    elif isinstance(error, SystemExit) and error.code == TERMINATED:
        status = TERMINATED
    else:
        status = status_of_signal()
    if status is not None:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        sys.exit(status)

"""Runs a command: prints a mistake as one line, and gives a signal its exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from cnmc.config import CONFIG_DIR, SCHEMAS, STANDALONE, is_mistake, path_keys, register, to_config
from cnmc.errors import CnmcError, one_line
from cnmc.signals import TERMINATED, listen, never_fail_to_print, status_of_signal

TRAIN = ("torch", "pytorch_lightning", "torchmetrics", "timm", "albumentations", "wandb", "pandas")
"""Modules that the extra ``train`` brings, among others."""

_OF_LAUNCHERS = {
    "TerminatedWorkerError": "a training process was killed (out of memory?)",
    "WorkerCrashedError": "a training process was killed (out of memory?)",
    "UncompletedJobError": "a job ended without its result",
    "FailedJobError": "the cluster refused the jobs",
}
"""Errors of joblib, Ray and submitit by name, and their meaning."""


def start(*, trains: bool = True) -> None:
    """Prepare this process for PyTorch; end it if the command ``trains`` and PyTorch is missing."""
    missing = [name for name in TRAIN if find_spec(name) is None] if trains else []
    if missing:
        install = "pip install 'cnmc[train]'"
        sys.stderr.write(f"error: this command needs {', '.join(missing)}: {install}\n")
        sys.exit(2)
    # Large tensors in pages of 2 MB make training on a CPU a third faster. PyTorch reads this once,
    # at its first tensor, which importing it makes.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # albumentations looks for a newer version over the network when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def quoted(arguments: Sequence[str], schema: type) -> list[str]:
    """Return a command line on which Hydra reads every path as it was typed.

    A value in quotes stays unchanged. The value of a path key is one path or a list of paths. For
    path keys that training can sweep, ``data.root=A,B`` is a sweep unless that path exists. The
    value of any other key is quoted only if Hydra cannot parse it.
    """
    keys = path_keys(schema)
    return [_quoted(argument, keys) for argument in arguments]


def _quoted(argument: str, keys: dict[str, bool]) -> str:
    key, _, value = argument.partition("=")
    if argument.startswith(("-", "~")) or value.startswith(("'", '"')) or value in ("", "null"):
        return argument
    parsed = None
    with suppress(HydraException):
        parsed = OverridesParser.create().parse_override(argument)
    swept = keys.get(key.lstrip("+"))
    if swept is None:
        return argument if parsed else f"{key}={_quote(value)}"
    home = os.path.expanduser(value)  # noqa: PTH111 - Path would drop a final slash
    if not os.path.exists(home):  # noqa: PTH110 - Path raises an error for a long text
        if value.startswith("[") and value.endswith("]") and not {"'", '"'} & {*value}:
            items = [item.strip() for item in value[1:-1].split(",")]
            paths = [_quote(os.path.expanduser(item)) for item in items if item]  # noqa: PTH111
            return f"{key}=[{','.join(paths)}]"
        if value.startswith("[") or (swept and parsed and parsed.is_sweep_override()):
            return argument
    return f"{key}={_quote(home)}"


def _quote(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def without_hydra(whole: DictConfig) -> DictConfig:
    """Make Hydra's part of a configuration known to ``HydraConfig``, and return the rest."""
    HydraConfig.instance().set_config(whole)
    with open_dict(whole):
        del whole["hydra"]
    return whole


def compose(overrides: Sequence[str], config_name: str = "config") -> tuple[Any, dict[str, Any]]:
    """Return the typed configuration of a command (``config``: training), and its plain values."""
    register()
    arguments = quoted(overrides, SCHEMAS[config_name])
    with (
        initialize(None, version_base="1.3")
        if config_name in STANDALONE
        else initialize_config_dir(str(CONFIG_DIR), version_base="1.3")
    ):
        node = without_hydra(hydra_compose(config_name, arguments, return_hydra_config=True))
    resolved: Any = OmegaConf.to_container(node, resolve=True)
    return to_config(node), resolved


@contextmanager
def user_errors() -> Iterator[None]:
    """End a single run with one line for a :class:`CnmcError`, to which Hydra would add lines."""
    try:
        yield
    except CnmcError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        sys.exit(_print_error(error))


def run_app(
    main: Callable[[], Any],
    schema: type,
    *,
    arguments: Callable[[list[str]], list[str]] = list,
    close: Callable[[], bool] = lambda: True,
) -> None:
    """Run a function of ``hydra.main`` as a command, and exit.

    ``arguments`` completes the command line. ``close`` ends it, also if jobs failed, and returns
    whether all results are complete.
    """
    never_fail_to_print()
    listen()
    # Hydra then raises errors instead of printing several lines.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    status = 0
    try:
        try:
            sys.argv[1:] = arguments(quoted(sys.argv[1:], schema))
            main()
        except Exception as error:
            if status_of_signal() is not None:
                raise
            status = _print_error(error)
        status = status or int(not close())
    except BaseException as error:
        # A scheduler's SIGTERM may have reached only Lightning or Ray, which then exit.
        terminated = isinstance(error, SystemExit) and error.code == TERMINATED
        ended = status_of_signal() or (TERMINATED if terminated else None)
        if ended is None:
            raise
        sys.stderr.write("interrupted; the same command continues from here\n")
        status = ended
    sys.exit(status)


def _print_error(error: Exception) -> int:
    """Print an error, in one line if it is a mistake, and return the exit status."""
    meaning = _OF_LAUNCHERS.get(type(error).__name__)
    if meaning is None and not is_mistake(error):
        traceback.print_exception(error)
    else:
        advice = f"{meaning}; the same command continues with the missing runs: " if meaning else ""
        sys.stderr.write(f"error: {advice}{one_line(error)}\n")
    return 2 if is_mistake(error) else 1

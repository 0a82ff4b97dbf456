"""The errors whose messages are written for users."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from cnmc.signals import status_of_signal

_HINTS = {
    "LayerwiseRates": "one rate for all layers is optimizer=flat optimizer.lr=1e-4, one by stage "
    "optimizer.lr.head=1e-3",
    "CellsConfig": "data.root=DIR names the folder of the cells",
    "Key 'data' not in 'BestConfig'": "manifest=DIGITS names a data set by its fingerprint",
    "hydra.cc/docs": "quote a value with special characters: 'key=\"value\"'",
    "load 'hydra/launcher/(joblib|submitit)": "install its package: pip install 'cnmc[launchers]'",
    "load 'hydra/launcher/ray'": "install its package: pip install 'cnmc[ray]'",
    "Unexpected type for root": "data.synthetic is null for existing data; generated cells are "
    "data=synthetic",
}
"""What to do about an error of Hydra or OmegaConf, by a pattern of its message."""


class CnmcError(ValueError):
    """Bad input. The message names the file, key or value, what was expected and what to do.

    Commands print it as one line and exit with status 2. Any other error keeps its traceback.
    """


class RefusedError(CnmcError):
    """A run folder that belongs to another run, and stays unchanged."""


def is_interruption(error: BaseException) -> bool:
    """Return whether a signal or a scheduler ended a run; after a signal any error counts."""
    # submitit raises this error in a job whose time is up.
    return type(error).__name__ == "UncompletedJobError" or status_of_signal() is not None


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Name the extra to install if an import in the block fails; ``what`` begins the message."""
    try:
        yield
    except ModuleNotFoundError as error:
        # A missing module of this package is a defect.
        if error.name is None or error.name.partition(".")[0] == "cnmc":
            raise
        raise CnmcError(
            f"{what} needs {error.name}, which is not installed: pip install 'cnmc[{extra}]'"
        ) from error


def one_line(error: BaseException) -> str:
    """Return the message of an error and of its causes as one line, with what to do about it."""
    parts: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).partition("Config search path")[0]
        # OmegaConf ends its messages with the path and type of the node.
        text = re.sub(r"(To append to your config|object_type=|reference_type=).*", "", text)
        lines = (line.strip().rstrip(".") for line in text.splitlines())
        parts += [line.replace("full_key: ", "key ") for line in lines if line]
        seen = seen.__cause__
    message = "; ".join(dict.fromkeys(parts)) or type(error).__name__
    return "; ".join([message, *(hint for key, hint in _HINTS.items() if re.search(key, message))])

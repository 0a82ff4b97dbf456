"""Optional dependencies: the base runs exported networks, the extras add everything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from cnmc.errors import CnmcError

TRAIN = ("torch", "pytorch_lightning", "torchmetrics", "timm", "albumentations", "wandb", "pandas")
"""Modules that the extra ``train`` brings, among others."""


def absent() -> list[str]:
    """Return the modules of :data:`TRAIN` that are not installed, without importing any."""
    return [name for name in TRAIN if find_spec(name) is None]


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Name the extra to install if an import in the block fails.

    ``what`` needs it: the beginning of the message of the :class:`~cnmc.errors.CnmcError`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # A missing module of this package is a defect.
        if error.name is None or error.name.partition(".")[0] == "cnmc":
            raise
        raise CnmcError(
            f"{what} needs {error.name}, which is not installed: pip install 'cnmc[{extra}]'"
        ) from error

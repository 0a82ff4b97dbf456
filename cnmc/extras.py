"""What must be installed for what: the base runs exported networks, all else is in extras."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from cnmc.errors import CnmcError

TRAIN = (
    "torch",
    "torchvision",
    "pytorch_lightning",
    "torchmetrics",
    "timm",
    "albumentations",
    "wandb",
    "pandas",
    "pyarrow",
    "scipy",
    "matplotlib",
    "safetensors",
)
"""Modules that the extra ``train`` brings."""

RUNTIMES = ("onnxruntime", "openvino")
"""Modules that the extra ``screen`` brings."""


def absent(modules: tuple[str, ...] = TRAIN) -> list[str]:
    """Return those of the modules that are not installed; none is imported."""
    return [name for name in modules if find_spec(name) is None]


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turn the failure of an import into what to install.

    Args:
        extra: The extra that brings the modules that are imported below.
        what: What they are needed for, as the beginning of a sentence.

    Raises:
        CnmcError: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # A module of our own that is not found is a defect.
        if error.name is None or error.name.partition(".")[0] == "cnmc":
            raise
        raise CnmcError(
            f"{what} needs {error.name}, which is not installed: pip install 'cnmc[{extra}]'"
        ) from error

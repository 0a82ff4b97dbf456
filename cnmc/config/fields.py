"""Fields that declare which values they accept, and the walker that checks them."""

from __future__ import annotations

import math
import operator
from dataclasses import field, fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from cnmc.errors import CnmcError

_COMPARISONS = {
    "at least": operator.ge,
    "above": operator.gt,
    "at most": operator.le,
    "below": operator.lt,
}


def number(default: Any = MISSING, **bounds: float) -> Any:
    """Declare a finite number.

    Args:
        default: The default value.
        bounds: Any of ``at_least``, ``above``, ``at_most`` and ``below``.
    """
    named = {name.replace("_", " "): bound for name, bound in bounds.items()}

    def accepts(value: float) -> bool:
        within = (_COMPARISONS[name](value, bound) for name, bound in named.items())
        return math.isfinite(value) and all(within)

    expected = " and ".join(f"{name} {bound}" for name, bound in named.items())
    return field(default=default, metadata={"accepts": accepts, "expected": f"a number {expected}"})


def choice(*options: Any, default: Any = MISSING) -> Any:
    """Declare one of several values."""
    expected = "one of " + ", ".join(map(str, options))
    return field(default=default, metadata={"accepts": options.__contains__, "expected": expected})


def path(default: Any = MISSING, *, swept: bool = False) -> Any:
    """Declare a path, or another text that Hydra must not interpret.

    Args:
        default: The default value.
        swept: Whether a study can sweep the key; a comma then separates several paths.
    """
    return field(default=default, metadata={"path": True, "swept": swept})


def path_keys(schema: type, prefix: str = "") -> dict[str, bool]:
    """Return the dotted keys that hold paths, and for each whether a study can sweep it."""
    keys: dict[str, bool] = {}
    types = get_type_hints(schema)
    for item in fields(schema):
        if "path" in item.metadata:
            keys[prefix + item.name] = item.metadata["swept"]
        elif is_dataclass(types[item.name]):
            keys |= path_keys(types[item.name], f"{prefix}{item.name}.")
    return keys


def check(config: Any, prefix: str = "") -> None:
    """Check the values of a configuration against their declarations, and its own ``check``.

    Raises:
        CnmcError: A key is unknown (Hydra adds any key that begins with ``+``), or a value is not
            accepted. The message begins with the key.
    """
    known = {item.name: item.metadata for item in fields(config)}
    for name, value in vars(config).items():
        key = prefix + name
        if name not in known:
            raise CnmcError(f"{key}: unknown key; expected one of {', '.join(known)}")
        accepts = known[name].get("accepts")
        if is_dataclass(value):
            check(value, f"{key}.")
        elif value is not None and accepts is not None:
            require(accepts(value), key, value, known[name]["expected"])
    if hasattr(config, "check"):
        config.check()


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raise an error that names a key if a condition is false."""
    if not condition:
        raise CnmcError(f"{key}={value}: expected {expected}")

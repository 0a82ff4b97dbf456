"""Fields that declare which values they accept, and the walker that checks them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field, fields, is_dataclass
from operator import ge, gt, le, lt
from typing import Any, get_type_hints

from omegaconf import MISSING

from cnmc.errors import CnmcError

Rules = Iterator[tuple[str, object, str]]
"""What the method ``_rules`` of a group yields: a key, whether its value fits, what is expected."""

_COMPARISONS = {"at_least": ge, "above": gt, "at_most": le, "below": lt}


def number(default: Any = MISSING, **bounds: float) -> Any:
    """Declare a finite number with any of the bounds at_least, above, at_most and below."""

    def accepts(value: float) -> bool:
        within = (_COMPARISONS[name](value, bound) for name, bound in bounds.items())
        return math.isfinite(value) and all(within)

    words = " and ".join(f"{name} {bound}" for name, bound in bounds.items()).replace("_", " ")
    return field(default=default, metadata={"accepts": accepts, "expected": f"a number {words}"})


def choice(*options: Any, default: Any = MISSING) -> Any:
    """Declare one of several values."""
    expected = "one of " + ", ".join(map(str, options))
    return field(default=default, metadata={"accepts": options.__contains__, "expected": expected})


def path(default: Any = MISSING, *, swept: bool = False) -> Any:
    """Declare a path or another text that Hydra must not interpret; a study can sweep some."""
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
    """Check the values of a configuration against their declarations and rules.

    Raises:
        CnmcError: A key is unknown (Hydra adds keys with ``+``), or a value is not accepted.
    """
    known = {item.name: item.metadata for item in fields(config)}
    for name, value in vars(config).items():
        if name not in known:
            raise CnmcError(f"{prefix}{name}: unknown key; expected one of {', '.join(known)}")
        accepts = known[name].get("accepts")
        if is_dataclass(value):
            check(value, f"{prefix}{name}.")
        elif value is not None and accepts is not None and not accepts(value):
            raise CnmcError(f"{prefix}{name}={value}: expected {known[name]['expected']}")
    for name, fulfilled, expected in getattr(config, "_rules", tuple)():
        if not fulfilled:
            raise CnmcError(f"{prefix}{name}={getattr(config, name)}: expected {expected}")

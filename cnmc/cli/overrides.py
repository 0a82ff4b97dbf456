"""Overrides as users type them: a path needs no quotes beyond those of the shell."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from cnmc.config import path_keys


def quoted(arguments: Sequence[str], schema: type) -> list[str]:
    """Return a command line on which Hydra reads every path as it was typed.

    The value of a path key is one path, whatever characters it has. It is left to Hydra if it is
    in quotes or is a list; then each item of the list is a path. For the few path keys that
    training can sweep, ``data.root=A,B`` is a sweep unless something of that name exists.
    The value of any other key is quoted only if Hydra cannot parse it.

    Args:
        arguments: The command line without the program's name.
        schema: The dataclass of the command's configuration.
    """
    keys = path_keys(schema)
    return [
        _quoted_argument(argument, keys)
        if "=" in argument and not argument.startswith(("-", "~"))
        else argument
        for argument in arguments
    ]


def _quoted_argument(argument: str, keys: dict[str, bool]) -> str:
    key, _, value = argument.partition("=")
    if value.startswith(("'", '"')) or value in ("", "null"):
        return argument
    name = key.lstrip("+")
    if name not in keys:
        return argument if _parses(argument) else f"{key}={_quote(value)}"
    home = os.path.expanduser(value)  # noqa: PTH111 - Path would drop a final slash
    exists = os.path.exists(home)  # noqa: PTH110 - Path raises an error for a long text
    if exists or not (value.startswith("[") or (keys[name] and _is_sweep(argument))):
        return f"{key}={_quote(home)}"
    if value.startswith("[") and value.endswith("]") and not {"'", '"'} & {*value}:
        items = [item.strip() for item in value[1:-1].split(",")]
        paths = [_quote(os.path.expanduser(item)) for item in items if item]  # noqa: PTH111
        return f"{key}=[{','.join(paths)}]"
    return argument


def _quote(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _parses(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def _is_sweep(argument: str) -> bool:
    if not _parses(argument):
        return False
    return OverridesParser.create().parse_override(argument).is_sweep_override()

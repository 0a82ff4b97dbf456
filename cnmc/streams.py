"""Keeps a command alive when its output cannot be written: a closed pipe, a full disk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any


class _Unfailing:
    """A text stream that drops what cannot be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def never_fail_to_print() -> None:
    """Let writing to standard output and standard error never raise in this process."""
    # A descriptor that was closed when Python started must not become that of a file.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: Any = getattr(sys, name) or os.fdopen(number, "w")
        if not isinstance(stream, _Unfailing):
            setattr(sys, name, _Unfailing(stream))

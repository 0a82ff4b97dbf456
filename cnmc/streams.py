"""Keeps a command alive when nobody reads its output: a closed pipe, a full disk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast


class _Unfailing:
    """A text stream that drops what cannot be written."""

    def __init__(self, stream: TextIO) -> None:
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
    """Let writing to standard output and standard error never raise in this process.

    After this, ``print`` and every library that writes to ``sys.stdout`` or ``sys.stderr`` drop
    their text where the stream is closed or full.
    """
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # The descriptor was closed when Python started.
            stream = _open_null(descriptor)
        if not isinstance(stream, _Unfailing):
            setattr(sys, name, cast("TextIO", _Unfailing(stream)))


def _open_null(descriptor: int) -> TextIO:
    """Open the null device, under the descriptor that child processes inherit if that is free."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        free = null == descriptor or not os.fstat(descriptor)
    except OSError:
        free = True
    if free:
        os.dup2(null, descriptor)
        os.set_inheritable(descriptor, True)
    return os.fdopen(null, "w")

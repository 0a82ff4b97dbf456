"""Signals that end a process, the end of its parent, and output that cannot be written."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended."""

_received: list[int] = []


def end_with_parent(parent: int) -> None:
    """Ask the system to kill this process as soon as the process ``parent`` ends."""
    pr_set_pdeathsig = 1  # from linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(TERMINATED)


def listen() -> None:
    """Let both signals raise an exception, and remember that they came."""
    _received.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)


def status_of_signal() -> int | None:
    """Return the exit status of the signal that came, even if its exception was lost."""
    return 128 + _received[0] if _received else None


def end_if_received() -> None:
    """Raise the exception again if a signal came: Python drops it in finalisers and callbacks."""
    if _received:
        _raise(_received[0], None)


def _raise(number: int, _: Any) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(TERMINATED)


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

"""Signals that end a process: Ctrl-C, SIGTERM, and the end of its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended."""

_PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``."""

_received: list[int] = []


def end_with_parent(parent: int) -> None:
    """Ask the system to kill this process as soon as the process ``parent`` ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
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
    """Raise KeyboardInterrupt or SystemExit again if a signal came.

    Python drops exceptions within a finaliser or a library's callback, and the work would continue.
    """
    if _received:
        _raise(_received[0], None)


def _raise(number: int, _: Any) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(TERMINATED)

"""How much memory a process and its children take for themselves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass
class Peak:
    """The most that was seen.

    Attributes:
        bytes: Anonymous memory; pages of files, such as those of the image cache, are not counted.
    """

    bytes: int = 0


def anonymous_bytes(pid: int | None = None) -> int:
    """Return the anonymous memory of a process and its children.

    0 where the process is no more, or the kernel (before 5.3, or of a sandbox) does not tell.

    What a forked child shares with its parent counts once in each, in shares.
    """
    own = Path("/proc") / str(pid or os.getpid())
    try:
        lines = (own / "smaps_rollup").read_text().splitlines()
        children = (own / "task" / own.name / "children").read_text().split()
    except OSError:
        return 0
    kib = sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return kib * 1024 + sum(anonymous_bytes(int(child)) for child in children)


@contextmanager
def watched() -> Iterator[Peak]:
    """Yield the peak of what is done inside, by looking now and then."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            peak.bytes = max(peak.bytes, anonymous_bytes())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.bytes = max(peak.bytes, anonymous_bytes())

"""Names of parts, classes and cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

PARTS = ("train", "prelim", "final")
CLASS_NAMES = ("HEM", "ALL")
"""Names by label: ALL (1) is the positive class."""
LABELS = {"all": 1, "hem": 0}
"""Labels by the name of a class folder and the end of a file name."""
_UID = re.compile(r"UID_([^_]+)_[^_]+_[^_]+_(all|hem)", re.IGNORECASE)


class Uid(NamedTuple):
    """Subject and label of a cell."""

    subject: str
    label: int


def parse_uid(name: str) -> Uid | None:
    """Read subject and label from a file name of the release, with or without its suffix.

    Subjects are upper-cased: one normal subject of the release, ``h3``, is in lower case.
    """
    match = _UID.fullmatch(name.removesuffix(PurePosixPath(name).suffix))
    return None if match is None else Uid(match[1].upper(), LABELS[match[2].lower()])


def shown(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more

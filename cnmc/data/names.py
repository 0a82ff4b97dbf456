"""Names of parts and classes, and what the name of one image file says."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

Part = Literal["train", "prelim", "final"]
PARTS: tuple[Part, ...] = ("train", "prelim", "final")

CLASS_NAMES = ("HEM", "ALL")
"""Names by label: ALL (1) is the positive class."""
LABELS = {"all": 1, "hem": 0}
"""Labels by the name of a class folder and the end of a file name."""

_UID = re.compile(r"UID_(?P<subject>[^_]+)_[^_]+_[^_]+_(?P<label>all|hem)", re.IGNORECASE)


class Uid(NamedTuple):
    """Subject and label in a name of the form ``UID_<subject>_<image>_<cell>_<all|hem>``."""

    subject: str
    label: int


def parse_uid(name: str) -> Uid | None:
    """Read subject and label from a file name of the release, with or without its suffix.

    Subjects are upper-cased: one normal subject of the release, ``h3``, is in lower case.

    Returns:
        Subject and label, or None if the name has another form.
    """
    match = _UID.fullmatch(name.removesuffix(PurePosixPath(name).suffix))
    if match is None:
        return None
    return Uid(match["subject"].upper(), LABELS[match["label"].lower()])


def folder_label(path: str) -> int | None:
    """Return the label of the nearest folder that is named after a class, or None."""
    for folder in reversed(PurePosixPath(path).parts[:-1]):
        if folder.lower() in LABELS:
            return LABELS[folder.lower()]
    return None

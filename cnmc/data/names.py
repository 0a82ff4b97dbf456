"""What the name of one image says: its subject and its class."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

Part = Literal["train", "prelim", "final"]
PARTS: tuple[Part, ...] = ("train", "prelim", "final")
LABELS = {"all": 1, "hem": 0}
"""Class by the name of its folder and the end of a file name: ALL is the positive class."""
LABEL_COLUMNS = ("Patient_ID", "new_names", "labels")

_UID = re.compile(r"UID_(?P<subject>[^_]+)_[^_]+_[^_]+_(?P<label>all|hem)", re.IGNORECASE)


class Uid(NamedTuple):
    """Subject and class in a name of the form ``UID_<subject>_<image>_<cell>_<all|hem>``."""

    subject: str
    label: int


def parse_uid(name: str) -> Uid | None:
    """Read subject and class from a file name of the release, with or without its suffix.

    Subjects are upper-cased: one normal subject of the release, ``h3``, is written in lower case.

    Returns:
        Subject and label, or None where the name has another form.
    """
    match = _UID.fullmatch(name.removesuffix(PurePosixPath(name).suffix))
    if match is None:
        return None
    return Uid(match["subject"].upper(), LABELS[match["label"].lower()])


def folder_label(path: str) -> int | None:
    """Return the class that the folder of an image stands for, or None where it says nothing."""
    for folder in reversed(PurePosixPath(path).parts[:-1]):
        if folder.lower() in LABELS:
            return LABELS[folder.lower()]
    return None

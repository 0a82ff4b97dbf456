"""What plain text of the report means, whatever it is written as."""

from __future__ import annotations

import re
from collections.abc import Iterator


def one_line(text: str) -> str:
    """Return text without line ends, tabs or runs of spaces."""
    # Not \s, which takes the space that must not break with it.
    return re.sub(r"[ \t\n\r\f\v\x1c-\x1f\x85\u2028\u2029]+", " ", text).strip(" ")


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield text piece by piece, and whether each is code: what stands in backticks."""
    for position, piece in enumerate(re.split(r"`([^`]+)`", text)):
        yield piece, position % 2 == 1

"""Names and numbers as they stand in a figure: drawable, short enough, and still distinct."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable

import numpy as np
from matplotlib.font_manager import findfont, get_font

from cnmc.reporting import document


def percent(value: float, digits: int = 2) -> str:
    """Return a fraction in percent with its sign; a missing one is not defined."""
    if np.isnan(value):
        return document.NOT_DEFINED
    return f"{100 * value:.{digits}f} %"


def spread(mean: float, std: float, digits: int = 2) -> str:
    """Return a mean and its standard deviation, both fractions, in percent."""
    if np.isnan(mean) or np.isnan(std):
        return percent(mean, digits)
    return f"{100 * mean:.{digits}f} ± {100 * std:.{digits}f} %"


def plural(number: int, noun: str) -> str:
    """Return a number of things: ``1 run``, ``24 runs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def names(texts: Iterable[object], width: int, lines: int = 1) -> list[str]:
    """Return names that take at most so much room, different where the given ones are.

    A name is broken into lines between words where it can be, and else loses its middle.

    Args:
        texts: The names in full.
        width: Characters a line.
        lines: Lines a name.
    """
    taken: dict[str, list[str]] = {}
    result = []
    for text in map(str, texts):
        name = _wrapped(_drawable(text), width, lines)
        same = taken.setdefault(name, [])
        if text not in same:
            same.append(text)
        place = same.index(text)
        result.append(f"{name} ({place + 1})" if place else name)
    return result


def _wrapped(text: str, width: int, lines: int) -> str:
    for room in range(width * lines, 1, -1):
        found = textwrap.wrap(_shortened(text, room), width, break_on_hyphens=False)
        if len(found) <= lines:
            return "\n".join(found)
    return ""


def _shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _drawable(text: str) -> str:
    return "".join(
        letter if _has_glyph(letter) else "?" for letter in " ".join(text.split()) or "(no name)"
    )


@functools.cache
def _has_glyph(letter: str) -> bool:
    return get_font(findfont("DejaVu Sans")).get_char_index(ord(letter)) != 0

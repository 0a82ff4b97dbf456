"""Names and numbers as they stand in a figure: drawable, short enough, and still distinct."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font

from cnmc.reporting import document
from cnmc.reporting.drawing import FONT, SMALL

LEGEND_WIDTH = 2.2
"""Inches for a group in a legend, so that two stand side by side."""

_POINTS_PER_INCH = 72
_BORDERS = (r"(?<= )", r"(?<=[_=/,:-])|(?<=\.)(?=\D)", r"(?<=.)(?=.)")
"""Where a line may end, the best first; not at a decimal point."""


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


def width(text: str, *, size: float = SMALL, bold: bool = False) -> float:
    """Return the inches that a line of text takes."""
    return size / _POINTS_PER_INCH * sum(_advance(letter, bold) for letter in text)


def names(
    texts: Iterable[object],
    inches: float,
    lines: int = 1,
    *,
    size: float = SMALL,
    bold: bool = False,
) -> list[str]:
    """Return names that take at most so much room, different where the given ones are.

    A name that is too long is broken into lines, between words where it can be; one that is longer
    still loses its middle.

    Args:
        texts: The names in full.
        inches: Width of a line.
        lines: Lines a name.
        size: Of the letters, in points.
        bold: Whether they are.
    """
    ems = inches * _POINTS_PER_INCH / size
    taken: dict[str, list[str]] = {}
    result = []
    for text in map(str, texts):
        name = _fitted(_drawable(text), ems, lines, bold)
        same = taken.setdefault(name, [])
        if text not in same:
            same.append(text)
        place = same.index(text)
        result.append(f"{name} ({place + 1})" if place else name)
    return result


def _fitted(text: str, ems: float, lines: int, bold: bool) -> str:
    shortened = text
    for kept in range(len(text) - 1, -1, -1):
        broken = _broken(shortened, ems, bold)
        if len(broken) <= lines:
            return "\n".join(broken)
        shortened = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return "…"


def _broken(text: str, ems: float, bold: bool) -> list[str]:
    """Break a text into lines: between words, and what is too long for a line also within."""
    parts = [text]
    for border in _BORDERS:
        parts = [
            piece
            for part in parts
            for piece in (re.split(border, part) if _ems(part.rstrip(), bold) > ems else [part])
        ]
    lines = [""]
    for part in parts:
        if lines[-1] and _ems((lines[-1] + part).rstrip(), bold) > ems:
            lines.append("")
        lines[-1] += part
    return [line.strip() for line in lines]


def _ems(text: str, bold: bool) -> float:
    return sum(_advance(letter, bold) for letter in text)


def _drawable(text: str) -> str:
    one_line = " ".join(text.split()) or "(no name)"
    return "".join(letter if _has_glyph(letter) else "?" for letter in one_line)


@functools.cache
def _file(bold: bool) -> str:
    return str(findfont(FontProperties(family=FONT, weight="bold" if bold else "normal")))


@functools.cache
def _has_glyph(letter: str) -> bool:
    return get_font(_file(False)).get_char_index(ord(letter)) != 0


@functools.cache
def _advance(letter: str, bold: bool) -> float:
    """Return the width of a letter as a fraction of the size of the font."""
    font = get_font(_file(bold))
    size = 100
    font.set_size(size, _POINTS_PER_INCH)
    return float(font.load_char(ord(letter)).linearHoriAdvance) / 65536 / size

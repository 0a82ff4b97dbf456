"""A drawing of matplotlib as a part of the page: its colours, its names, its size."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

from cnmc.reporting.document import Figure

COLOURS = {
    "#1b1e23": "var(--ink)",
    "#000000": "var(--ink)",  # would vanish on the dark page
    "#6b7280": "var(--grey)",
    "#e5e7eb": "var(--grid)",
    "#ffffff": "var(--paper)",
}
"""Neutral colours of the drawings, and the page's own that turn with light and dark."""

_COLOUR = re.compile("|".join(rf"{colour}\b" for colour in COLOURS), re.IGNORECASE)
_REFERENCE = re.compile(r"url\(\s*(['\"]?)#([^)'\"]+)\1\s*\)")
_LENGTH = re.compile(r"\s*([\d.]+)\s*(pt|px|in|)\s*")
_PIXELS = {"pt": 96 / 72, "px": 1.0, "in": 96.0, "": 1.0}

_MIN_WIDTH, _MIN_SCALE = 560, 0.8
"""A drawing is scrolled where it would be narrower than so many pixels and this part of its own
width: its text would become too small."""


def slug(name: str) -> str:
    """Return a name as it may stand in an ``id``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)


def _local(name: str) -> str:
    """Return a tag or attribute without its namespace, as HTML wants it."""
    return name.rpartition("}")[2]


def _pixels(length: str) -> float | None:
    match = _LENGTH.fullmatch(length)
    return float(match[1]) * _PIXELS[match[2]] if match else None


def _value(name: str, value: str, prefix: str) -> str | None:
    """Return an attribute as it stands on the page; None for one that must not."""
    if name == "id":
        return prefix + value
    if name == "href":
        if value.startswith("#"):
            return f"#{prefix}{value[1:]}"
        # Whatever else it refers to lies outside the page, which has to open without a network.
        return re.sub(r"\s+", "", value) if value.startswith("data:") else None
    if "#" in value:
        value = _REFERENCE.sub(lambda match: f"url(#{prefix}{match[2]})", value)
        value = _COLOUR.sub(lambda match: COLOURS[match[0].lower()], value)
    return value


def _rewrite(element: ET.Element, prefix: str) -> None:
    element.tag = _local(element.tag)
    values = {
        _local(key): _value(_local(key), text, prefix) for key, text in element.attrib.items()
    }
    element.attrib.clear()
    element.attrib.update({key: text for key, text in values.items() if text is not None})
    if element.tag == "style" and element.text:
        # A style sheet inside a drawing would hold for the whole page.
        element.text = element.text.replace("*{", ".drawing *{")
    for child in list(element):
        if _local(child.tag) == "metadata":
            element.remove(child)
        else:
            _rewrite(child, prefix)


def inline(figure: Figure) -> str:
    """Return a figure's drawing as an ``<svg>`` element that can stand in an HTML page.

    Every ``id`` in it begins with the figure's name, so that several drawings share a page; the
    neutral colours become variables of the page; title and description are for those who cannot
    see it; the size follows the place that there is.

    Raises:
        ValueError: The drawing is not an SVG document.
    """
    try:
        root = ET.fromstring(figure.svg)  # noqa: S314 - the drawings are our own
    except ET.ParseError as error:
        raise ValueError(f"figure {figure.name}: its drawing is not SVG ({error})") from error
    prefix = f"{slug(figure.name)}--"
    _rewrite(root, prefix)
    width, height = (_pixels(root.attrib.pop(side, "")) for side in ("width", "height"))
    box = root.get("viewBox")
    if box is None:
        root.set("viewBox", box := f"0 0 {width or 640:g} {height or 480:g}")
    width = width or float(re.split(r"[\s,]+", box.strip())[2])
    root.set("class", "drawing")
    narrowest = min(_MIN_SCALE * width, _MIN_WIDTH)
    root.set("style", f"--width: {width:.0f}px; --narrowest: {narrowest:.0f}px")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}title {prefix}desc")
    for position, (tag, text) in enumerate((("title", figure.title), ("desc", figure.alt))):
        element = ET.Element(tag, {"id": f"{prefix}{tag}"})
        element.text = text
        root.insert(position, element)
    return ET.tostring(root, encoding="unicode")

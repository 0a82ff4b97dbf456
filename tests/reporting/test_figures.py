"""Every figure, on ordinary and on nasty tables."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from PIL import Image

from cnmc.reporting import document, drawing
from tests.reporting import figure_tables

MANY = figure_tables.EIGHT_LONG[:3] + figure_tables.NASTY[2:]
NEUTRAL = {drawing.INK, drawing.SECONDARY, drawing.GRID, drawing.PAPER}
CASES = {
    f"{kind}-{name}": draw
    for kind, cases in {
        "ordinary": figure_tables.ordinary(),
        "gaps": figure_tables.gaps(),
        "undefined": figure_tables.undefined(),
        "nothing": figure_tables.nothing(),
        "single": figure_tables.single(),
        "nasty groups": figure_tables.several(
            figure_tables.EIGHT_LONG[:3] + figure_tables.NASTY[2:]
        ),
        "many subjects": figure_tables.many_subjects(),
        "nasty subjects": figure_tables.nasty_subjects(),
    }.items()
    for name, draw in cases.items()
    if kind != "gaps" or name in {"figure2", "figure3", "intervals", "reliability", "roc"}
}


def _labels_of_ticks_outside(figure: Drawing) -> set[Any]:
    """Return the labels of ticks that an axis keeps beyond its ends and does not draw."""
    sides: list[Any] = [side for axes in figure.axes for side in (axes.xaxis, axes.yaxis)]
    return {
        tick.label1
        for side in sides
        for tick in {*side.get_major_ticks()} - {*side._update_ticks()}
    }


@contextmanager
def _looking_at_text(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the text of drawings that reaches beyond their edge."""
    cut: list[str] = []
    save = Drawing.savefig

    def look(self: Drawing, target: object, **options: object) -> None:
        if not isinstance(target, io.BytesIO):
            save(self, target, **options)  # type: ignore[arg-type]
        else:
            # The same picture, but one whose texts can still be asked where they are.
            self.set_dpi(200)
            canvas: Any = FigureCanvasAgg(self)
            canvas.draw()
            Image.fromarray(np.asarray(canvas.buffer_rgba())).save(target, "PNG")
            hidden = _labels_of_ticks_outside(self)
            texts: Any = self.findobj(lambda artist: hasattr(artist, "get_text"))
            for text in texts:
                if text in hidden or not text.get_visible() or not text.get_text().strip():
                    continue
                box = text.get_window_extent(canvas.get_renderer())
                edge = self.bbox
                if box.x0 < -1 or box.y0 < -1 or box.x1 > edge.x1 + 1 or box.y1 > edge.y1 + 1:
                    cut.append(text.get_text())

    monkeypatch.setattr(Drawing, "savefig", look)
    yield cut


@pytest.mark.parametrize("case", CASES)
def test_a_figure_is_whole(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning, no text cut off, nothing but the colours that the page knows, words for all."""
    with warnings.catch_warnings(), _looking_at_text(monkeypatch) as cut:
        warnings.simplefilter("error")
        figure = CASES[case]()
    assert isinstance(figure, document.Figure)
    assert not cut
    ET.fromstring(figure.svg)  # noqa: S314 - our own
    colors = set(re.findall(r"#[0-9a-f]{6}\b", figure.svg))
    grey = {color for color in colors if len({color[1:3], color[3:5], color[5:7]}) == 1}
    assert grey <= NEUTRAL
    assert figure.alt.strip()
    assert figure.title.strip()
    assert "nan" not in figure.alt.lower()
    assert Image.open(io.BytesIO(figure.png)).width > 1200


@pytest.mark.parametrize("name", ["figure3", "roc", "persons"])
def test_the_same_numbers_give_the_same_bytes(name: str) -> None:
    first, second = (figure_tables.ordinary()[name]() for _ in range(2))
    assert first == second


def test_the_words_of_a_figure_tell_its_numbers() -> None:
    curve = figure_tables.curve()
    words = figure_tables.ordinary()["figure2"]().alt
    assert f"{100 * curve['val_f1'].max():.1f}" in words


def test_what_is_not_defined_is_not_drawn() -> None:
    """Half of the numbers missing: fewer marks, and none at zero in their place."""
    whole = figure_tables.ordinary()["intervals"]().svg.count("<use ")
    holes = figure_tables.gaps()["intervals"]().svg.count("<use ")
    assert holes < whole


def test_style_set_elsewhere_is_neither_taken_nor_changed() -> None:
    expected = figure_tables.ordinary()["views"]()
    with mpl.rc_context({"font.size": 31.0, "lines.linewidth": 9.0}):
        assert figure_tables.ordinary()["views"]() == expected
        assert mpl.rcParams["font.size"] == 31.0

"""Every figure, on ordinary and nasty tables: nothing cut off, covered or invented."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cnmc.reporting import document, drawing, figures
from cnmc.reporting.figures import averaging, calibration, discrimination, groups, labels, paper
from tests.reporting import figure_tables as tables

NEUTRAL = {drawing.INK, drawing.SECONDARY, drawing.GRID, drawing.PAPER}
DATA = {
    drawing.BLUE,
    drawing.VERMILLION,
    drawing.GREEN,
    drawing.PURPLE,
    drawing.ORANGE,
    drawing.SKY,
}
SETS = {
    "long": tables.only(
        tables.several(tables.EIGHT_LONG),
        "intervals",
        "runs",
        "views",
        "reliability",
        "roc",
        "selection",
    ),
    "nasty": tables.only(tables.several(tables.NASTY), "intervals", "views"),
    "four": tables.only(tables.several([*tables.GROUPS, "old"]), "reliability"),
    "nothing": tables.nothing(),
    "single": tables.only(
        tables.single(), "figure2", "figure3", "figure4", "runs", "reliability", "roc", "persons"
    ),
    "gaps": tables.only(tables.gaps(), "figure2", "figure3", "figure4", "runs", "ensembles", "roc"),
    "many subjects": tables.many_subjects(),
    "nasty subjects": tables.nasty_subjects(),
}
CASES = [
    pytest.param(draw, id=f"{kind}-{name}")
    for kind, draws in SETS.items()
    for name, draw in draws.items()
]


@pytest.fixture(autouse=True)
def _every_warning_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Sketch:
    """What a figure consists of, laid out but not rendered."""

    def __init__(self) -> None:
        self.figure = Figure()

    def finish(self, figure: Figure, *, name: str, title: str, alt: str, note: str = "") -> object:
        engine = figure.get_layout_engine()
        assert engine is not None
        engine.execute(figure)
        self.figure = figure
        return document.Figure(name, title, "", b"", alt, note)

    @property
    def axes(self) -> list[Axes]:
        return self.figure.axes

    def boxes(self) -> list[tuple[str, Bbox]]:
        """Return every text that is seen and where it stands."""
        renderer = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        for legend in self.figure.legends:
            legend.draw(renderer)
        unseen = {
            id(label)
            for axes in self.axes
            for axis in (axes.xaxis, axes.yaxis)
            for place, label in zip(
                axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True
            )
            if not min(axis.get_view_interval()) <= place <= max(axis.get_view_interval())
        }
        return [
            (text.get_text(), text.get_window_extent(renderer))
            for text in self.figure.findobj(Text)
            if isinstance(text, Text) and text.get_visible() and text.get_text().strip()
            if id(text) not in unseen
        ]


DRAWING = (averaging, calibration, discrimination, groups, paper)


@pytest.fixture
def sketch(monkeypatch: pytest.MonkeyPatch) -> Sketch:
    made = Sketch()
    for module in DRAWING:
        monkeypatch.setattr(module, "finish", made.finish)
    return made


@pytest.fixture(scope="module")
def ordinary() -> dict[str, document.Figure]:
    """Return the figures of a study like the paper's, rendered once their layout is checked."""
    made = Sketch()

    def check_and_finish(figure: Figure, **texts: str) -> document.Figure:
        made.finish(figure, **texts)
        check_layout(made)
        return drawing.finish(figure, **texts)

    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in DRAWING:
            monkeypatch.setattr(module, "finish", check_and_finish)
        return {name: draw() for name, draw in tables.ordinary().items()}


def check_layout(sketch: Sketch) -> None:
    boxes = sketch.boxes()
    page = sketch.figure.bbox
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text!r} is cut off: {box} in {page}"
    corners = np.array([[box.x0, box.y0, box.x1, box.y1] for _, box in boxes])
    left, bottom = (np.maximum.outer(corners[:, k], corners[:, k]) for k in (0, 1))
    right, top = (np.minimum.outer(corners[:, k], corners[:, k]) for k in (2, 3))
    # Lines of a table may touch; the height of a letter is about 22 pixels.
    covered = np.argwhere(np.triu((right - left > 2) & (top - bottom > 4), 1))
    assert not len(covered), [(boxes[a][0], boxes[b][0]) for a, b in covered]
    for axes in sketch.axes:
        panel = axes.get_window_extent()
        assert panel.width > 100
        assert panel.height > 40
        for legend in sketch.figure.legends:
            assert not panel.overlaps(legend.get_window_extent())


@pytest.mark.parametrize("draw", CASES)
def test_nothing_is_cut_off_or_covered(draw: tables.Draw, sketch: Sketch) -> None:
    figure = draw()
    check_layout(sketch)
    assert figure.title
    assert figure.alt
    assert "nan" not in f"{figure.alt} {figure.title}".lower()
    assert sketch.figure.get_figwidth() == pytest.approx(6.4)


@pytest.mark.parametrize("name", tables.undefined())
def test_what_is_not_defined_is_said_and_not_drawn(name: str, sketch: Sketch) -> None:
    figure = tables.undefined()[name]()
    check_layout(sketch)
    assert document.NOT_DEFINED in figure.alt
    for axes in sketch.axes:
        assert document.NOT_DEFINED in {text.get_text() for text in axes.texts}
        assert not [line for line in axes.lines if np.isfinite(line.get_xydata()).all(axis=1).any()]
        assert not axes.patches


def test_all_figures_have_the_names_of_their_files(ordinary: dict[str, document.Figure]) -> None:
    assert len(ordinary) == len(figures.__all__)
    for name, figure in ordinary.items():
        assert figure.name == name


def test_svg_is_well_formed_and_in_the_colours_of_the_page(
    ordinary: dict[str, document.Figure],
) -> None:
    for figure in ordinary.values():
        root = ET.fromstring(figure.svg)  # noqa: S314
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert set(re.findall(r"#[0-9a-f]{6}\b", figure.svg)) <= NEUTRAL | DATA
        assert not re.search(r"(?:fill|stroke): (?!none|#)", figure.svg)
        assert "<text" not in figure.svg
        assert not {"date", "metadata"} & {element.tag.split("}")[1] for element in root.iter()}
        identities = re.findall(r'\bid="([^"]*)"', figure.svg)
        assert len(set(identities)) == len(identities)
        assert all(identity.startswith(f"{figure.name}-") for identity in identities)
        referred = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', figure.svg)
        assert {a or b for a, b in referred} <= set(identities)


def test_everything_has_a_colour_of_its_own(ordinary: dict[str, document.Figure]) -> None:
    # A shape without one is black, which the page could not exchange on a dark background.
    for figure in ordinary.values():
        root = ET.fromstring(figure.svg)  # noqa: S314
        defined = {id(e) for defs in root.iter("{http://www.w3.org/2000/svg}defs") for e in defs}
        coloured: list[tuple[ET.Element, bool]] = [(root, False)]
        while coloured:
            element, inherited = coloured.pop()
            style = element.get("style", "")
            there = inherited or "fill:" in style or "stroke:" in style
            drawn = element.tag.split("}")[-1] in {"path", "use"}
            assert there or not drawn or id(element) in defined or element.tag.endswith("clipPath")
            skipped = element.tag.endswith("}defs") or element.tag.endswith("}clipPath")
            coloured += [] if skipped else [(child, there) for child in element]


def test_png_is_rendered_at_200_dots_per_inch(ordinary: dict[str, document.Figure]) -> None:
    for figure in ordinary.values():
        assert figure.png.startswith(b"\x89PNG\r\n")
        assert int.from_bytes(figure.png[16:20], "big") == 1280
        assert b"tEXt" not in figure.png


def test_same_numbers_give_the_same_bytes(ordinary: dict[str, document.Figure]) -> None:
    assert tables.ordinary()["ensembles"]() == ordinary["ensembles"]


def test_settings_outside_neither_matter_nor_change(ordinary: dict[str, document.Figure]) -> None:
    with mpl.rc_context({"font.size": 30.0, "text.color": "red", "axes.grid": False}):
        assert tables.ordinary()["runs"]() == ordinary["runs"]
        assert mpl.rcParams["font.size"] == 30.0


def test_pyplot_is_not_needed() -> None:
    code = "import sys, cnmc.reporting.figures as f; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def drawn_points(axes: Axes) -> np.ndarray:
    """Return the points of all lines and marks of a panel."""
    return np.concatenate([np.asarray(line.get_xydata(), dtype=float) for line in axes.lines])


def test_missing_values_are_not_drawn(sketch: Sketch) -> None:
    curve = tables.with_gaps(tables.curve(), "val_f1")
    figures.figure2(curve, label="proposal", best_epoch=4)
    line = sketch.axes[1].lines[0]
    assert np.isfinite(np.asarray(line.get_ydata(), dtype=float)).sum() == 4
    assert np.nanmin(np.asarray(line.get_ydata(), dtype=float)) == pytest.approx(17.9)

    cells = tables.paper_subjects()
    cells.loc[:4, ["best", "last", "published"]] = np.nan
    figures.figure3(cells, published=True)
    places = drawn_points(sketch.axes[0])
    assert places[np.isfinite(places).all(axis=1)][:, 1].min() == 5


def test_best_epoch_is_the_first_with_the_highest_f1_after_training_began(sketch: Sketch) -> None:
    curve = tables.curve(4)
    curve["val_f1"] = [0.99, 0.8, 0.9, 0.9, 0.7]
    assert "to 90.00 % at epoch 2, its best" in figures.figure2(curve, label="proposal").alt
    assert sketch.axes[1].get_title("left") == "F1, 90.00 % at epoch 2"


def test_figure_4_begins_after_the_first_epoch(sketch: Sketch) -> None:
    figures.figure4(tables.by_epoch(["proposal"], first=0))
    assert drawn_points(sketch.axes[0])[:, 0].min() == 1


@pytest.mark.parametrize(("name", "panel"), [("roc", 0), ("reliability", 0), ("reliability", 2)])
def test_panels_with_a_diagonal_are_square(name: str, panel: int, sketch: Sketch) -> None:
    tables.ordinary()[name]()
    box = sketch.axes[panel].get_window_extent()
    assert box.width == pytest.approx(box.height, rel=0.01)


def test_a_single_run_has_no_standard_deviation() -> None:
    assert "1 run, F1 88.00 %." in figures.runs_by_group({"proposal": [0.88]}).alt


def test_series_differ_without_colour() -> None:
    looks = [(drawing.series(k).marker, drawing.series(k).dashes) for k in range(8)]
    assert len(set(looks)) == 8
    assert len({drawing.series(k).color for k in range(6)}) == 6


@pytest.mark.parametrize("lines", [1, 2, 3])
@pytest.mark.parametrize("inches", [0.4, 1.0, 2.2])
def test_names_fit_and_stay_distinct(inches: float, lines: int) -> None:
    texts = [*tables.NASTY, *tables.EIGHT_LONG, "53", "H25"]
    made = labels.names(texts, inches, lines)
    assert len(set(made)) == len(texts)
    for name in made:
        rows = re.sub(r" \(\d+\)$", "", name).split("\n")
        assert len(rows) <= lines
        assert max(labels.width(row) for row in rows) <= inches + 1e-9
    assert made[-2:] == ["53", "H25"]


def test_names_break_between_words_and_not_at_a_decimal_point() -> None:
    (name,) = labels.names(["demo optimizer.lr=0.0003 model=efficientnet_lite0"], 1.8, 3)
    assert name.split("\n") == ["demo optimizer.lr=0.0003", "model=efficientnet_lite0"]


def test_same_names_stay_the_same() -> None:
    assert labels.names(["a", "a"], 1.0) == ["a", "a"]

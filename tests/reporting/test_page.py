"""The page as text: nothing from the data is markup, nothing is fetched, no name is there twice."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from cnmc.reporting.document import NOT_DEFINED, Report, Section
from cnmc.reporting.page import render
from cnmc.reporting.svg import inline
from tests.reporting.sample import GREY, GRID, INK, LONG, NASTY, PAPER, lines, report, runs, squares

# Elements that HTML leaves open.
VOID = {"meta", "link", "input", "wbr"}


class Page(HTMLParser):
    """Elements of a page in their order, with attributes and the text directly inside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice: {tag} {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.texts.append(data)

    def attributes(self, name: str) -> list[str]:
        """Return the values of an attribute wherever it is."""
        return [values[name] for _, values in self.elements if name in values]

    def tags(self) -> Counter[str]:
        """Return how often each element is there."""
        return Counter(tag for tag, _ in self.elements)


@pytest.fixture(scope="module")
def text() -> str:
    return render(report())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_nothing_from_the_data_is_markup(page: Page) -> None:
    assert page.tags()["script"] == 1
    assert not {"i", "em"} & set(page.tags())
    assert "<script>alert(1)</script>" in page.texts
    assert NASTY in page.texts
    assert not [name for _, values in page.elements for name in values if name.startswith("on")]


def test_only_backticks_are_code(page: Page) -> None:
    assert "2.19" in page.texts
    assert " points; <em>nothing</em> is decided by ten seeds." in " ".join(page.texts)
    assert page.tags()["code"] == 4 + runs()["checkpoint"].notna().sum()


def test_ids_are_unique_and_references_are_met(page: Page) -> None:
    ids = page.attributes("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    wanted = {href[1:] for href in page.attributes("href") if href.startswith("#")}
    for name in ("aria-labelledby", "aria-describedby", "for"):
        wanted |= {part for value in page.attributes(name) for part in value.split()}
    for _, values in page.elements:
        for value in values.values():
            wanted |= set(re.findall(r"url\(#([^)]*)\)", value))
    assert wanted <= set(ids)


def test_nothing_is_fetched(text: str, page: Page) -> None:
    for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
        for value in page.attributes(name):
            assert not re.match(r"(?!data:)[a-z]+:|//", value), f"{name}={value}"
    assert "xmlns" not in re.sub(r'<link rel="icon"[^>]*>', "", text)
    assert not re.findall(r"url\((?!#)[^)]*\)|@import", text)
    assert re.findall(r"https?:[^\s\"'<]*", text) == ["http://www.w3.org/2000/svg"]


def test_links_lead_to_the_files(page: Page) -> None:
    links = [href for href in page.attributes("href") if re.match(r"tables|figures", href)]
    assert links[:5] == [
        "tables/groups.csv",
        "tables/groups.md",
        "tables/groups.tex",
        "figures/curves.svg",
        "figures/curves.png",
    ]
    assert len(links) == 10


def test_headings_are_in_order(page: Page) -> None:
    heads = [tag for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert heads == ["h1"] + 6 * ["h2"]
    ids = page.attributes("id")
    assert {"rank-of-the-experiments", "rank-of-the-experiments-2", "cells", "runs"} <= set(ids)


def test_every_head_has_a_scope_and_every_table_a_caption(page: Page) -> None:
    tags = page.tags()
    assert tags["table"] == tags["caption"] == 3
    assert all(values["scope"] in {"col", "row"} for tag, values in page.elements if tag == "th")


def test_what_is_not_defined_says_so(page: Page) -> None:
    classes = [(values, values.get("class", "").split()) for _, values in page.elements]
    missing = [values for values, names in classes if "missing" in names]
    table_of_groups, table_of_runs = 3, 2 * 4 + 1
    assert len(missing) == table_of_groups + table_of_runs
    assert page.texts.count(NOT_DEFINED) == len(missing)
    assert not any("data-order" in values for values in missing)
    assert "nan" not in " ".join(page.attributes("data-order"))


def test_runs_are_shown_in_percent_and_sorted_as_stored() -> None:
    frame = runs().iloc[:1].assign(f1=0.912345678, seconds=3661.6, best_epoch=7.0, seed=3.0)
    page = Page(render(replace(report(), runs=frame)))
    assert {"91.23", "1:01:02", "7", "3"} <= set(page.texts)
    assert {"0.912345678", "3661.6"} <= set(page.attributes("data-order"))
    assert "1 of 1 runs" in page.texts


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_missing_values_of_any_kind(nothing: object) -> None:
    keys = [key for key in runs() if key not in {"experiment", "run", "setting"}]
    frame = runs().iloc[:2].astype(object)
    frame.loc[:, keys] = nothing  # type: ignore[call-overload]
    page = Page(render(replace(report(), sections=[], runs=frame)))
    assert page.texts.count(NOT_DEFINED) == 2 * 9
    assert page.tags()["button"] == 10


def test_columns_that_are_not_there_are_not_defined() -> None:
    frame = runs()[["experiment", "seed", "f1"]]
    assert Page(render(replace(report(), sections=[], runs=frame))).tags()["tr"] == 31


def test_a_report_of_nothing() -> None:
    page = Page(render(Report("Nothing", facts=[], warnings=[], sections=[])))
    assert page.tags()["table"] == 0
    assert "There is no finished run yet." in page.texts


def test_sections_whose_titles_are_no_names() -> None:
    sections = [Section(title, ["text"]) for title in ("Runs", "細胞", "κ")]
    page = Page(render(replace(report(), sections=sections)))
    assert page.attributes("id")[2:7] == ["content", "runs", "section", "section-2", "runs-2"]


def test_colours_are_those_of_the_page() -> None:
    drawing = inline(lines()).lower()
    assert not [colour for colour in (INK, GREY, GRID, PAPER, "#000000") if colour in drawing]
    for name in ("ink", "grey", "grid", "paper"):
        assert f"var(--{name})" in drawing
    assert "#0072b2" in drawing
    assert "#e69f00" in drawing


def test_a_drawing_keeps_only_what_the_page_needs() -> None:
    drawing = inline(squares())
    assert drawing.startswith("<svg ")
    assert not re.findall(r"<\?xml|<!DOCTYPE|metadata|rdf|xmlns|xlink|[{]http", drawing)
    assert re.search(r'<image href="data:image/png;base64,[A-Za-z0-9+/=]+"', drawing)
    assert 'viewBox="0 0 302.4 230.4"' in drawing
    assert re.findall(r'<svg[^>]* (?:width|height)="', drawing) == []
    assert "--width: 403px; --narrowest: 323px" in drawing
    assert "--width: 768px; --narrowest: 560px" in inline(lines())
    assert "<style" not in drawing or ".drawing *{" in drawing


def test_a_drawing_says_what_it_shows() -> None:
    page = Page(inline(lines()))
    (root,) = [values for tag, values in page.elements if tag == "svg"]
    assert root["role"] == "img"
    assert root["aria-labelledby"] == "curves--title curves--desc"
    assert "Two lines that rise, <script>alert(1)</script>" in page.texts


def test_a_drawing_refers_to_nothing_outside() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'viewBox="0 0 10 20"><image xlink:href="https://example.org/a.png"/>'
        "<g id='a' clip-path=\"url('#b')\" style=\"fill:#FFFFFF\"/></svg>"
    )
    drawing = inline(replace(lines(), name="x y", svg=svg))
    assert "example.org" not in drawing
    assert '<g id="x-y--a" clip-path="url(#x-y--b)" style="fill:var(--paper)"' in drawing
    assert "--width: 10px" in drawing


def test_a_drawing_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="figure curves: its drawing is not SVG"):
        inline(replace(lines(), svg="<svg"))


def test_long_names_are_there_whole(text: str) -> None:
    assert f'data-copy="/home/{LONG}/runs/{LONG}/best.ckpt"' in text

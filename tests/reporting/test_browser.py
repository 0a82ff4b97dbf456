"""The page in Chromium, opened as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reporting.browser import DESK, launched, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

PHONE = 375


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(output: Path) -> str:
    return (output / "report.html").as_uri()


def column(page: Page, position: int) -> list[str]:
    """Return the cells of a column of the runs that are not filtered out."""
    cells: list[str] = page.eval_on_selector_all(
        ".runs tbody tr:not([hidden])",
        f"rows => rows.map(row => row.cells[{position}].textContent)",
    )
    return cells


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_overflows(browser: Browser, address: str, width: int) -> None:
    with opened(browser, address, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        script = "images => images.every(image => image.complete && image.naturalWidth > 0)"
        assert page.eval_on_selector_all("figure img", script)


def test_runs_are_sorted_by_a_click_on_a_title(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        button = page.get_by_role("button", name="F1 with rotations")
        for direction in (1, -1):
            button.click()
            f1 = column(page, 3)
            known = [float(value) for value in f1 if value != "not defined"]
            assert known == sorted(known, reverse=direction < 0)
            assert len(known) == 7
            assert f1[7:] == ["not defined"] * 3
        button = page.get_by_role("button", name="Seed")
        button.click()
        assert column(page, 1) == sorted(column(page, 1))


def test_runs_are_filtered_by_words(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.get_by_label("Filter").fill("PROPOSAL honest")
        assert column(page, 0) == ["proposal split=nested"] * 3
        assert page.locator("output").inner_text() == "3 of 10 runs"
        page.get_by_label("Filter").fill("")
        assert len(column(page, 0)) == 10


def test_without_javascript_all_runs_are_shown(browser: Browser, address: str) -> None:
    with opened(browser, address, java_script_enabled=False) as page:
        assert page.locator(".runs tbody tr").count() == 10

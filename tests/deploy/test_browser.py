"""The page of a screening in Chromium, opened as a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cnmc.config import PredictConfig
from cnmc.predict import predict
from tests.reporting.browser import DESK, launched, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

PHONE = 375
NASTY = "<img src=x onerror=alert(1)>.bmp"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_shows_its_cells_and_asks_nobody(
    browser: Browser, tmp_path: Path, folder: Path, other_onnx: Path, width: int
) -> None:
    (folder / NASTY).write_bytes((folder / "1.bmp").read_bytes())
    (folder / "notes.txt").touch()
    output = tmp_path / "out"
    config = PredictConfig(checkpoint=str(other_onnx), input=str(folder), output=str(output))
    assert predict(config) == 3
    with (output / "predictions.csv").open(newline="", encoding="utf-8") as file:
        num_doubtful = sum(row["doubtful"] == "yes" for row in csv.DictReader(file))
    assert 0 < num_doubtful < 13
    with opened(browser, (output / "screening.html").as_uri(), width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.get_by_role("heading", level=1).inner_text() == "Screening of 13 cells"
        for heading in ("Doubtful cells", "Most decisive cells", "Other cells", "Files left out"):
            assert page.get_by_role("heading", name=heading, exact=True).is_visible()
        tops = page.evaluate(
            """() => ["doubtful", "decisive", "others"].map(
              (name) => document.getElementById(name).getBoundingClientRect().top)"""
        )
        assert tops == sorted(tops)
        doubtful, decisive, others = page.locator("main .cells").all()
        assert doubtful.locator("img").count() == num_doubtful
        assert others.locator("img").count() == decisive.locator("img").count() == 13 - num_doubtful
        assert page.evaluate(
            """() => [...document.querySelectorAll("main .cells img")].every(
              (image) => image.complete && image.naturalWidth > 0)"""
        )
        assert page.get_by_text(NASTY, exact=True).count() >= 1
        assert page.get_by_role("rowheader", name="notes.txt").count() == 1

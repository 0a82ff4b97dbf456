"""The page in Chromium, opened as a file: at phone and desk width, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import pandas as pd
import pytest

from cnmc.reporting.files import write
from tests.reporting.browser import DESK, launched, opened
from tests.reporting.sample import NASTY, SCRIPT, report, runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow

PHONE = 375

# Elements that reach beyond the window, or whose text reaches beyond them, where nothing scrolls.
OVERFLOWING = """() => [...document.querySelectorAll("body *")].filter((element) => {
  if (element.closest(".hear-only, .skip, svg, option")) return false;
  if (element.parentElement.closest(".scroll:not(.fits)")) return false;
  const box = element.getBoundingClientRect();
  if (box.width === 0) return false;
  const scrolls = element.matches(".scroll:not(.fits), nav, select, input");
  const inline = getComputedStyle(element).display === "inline";
  return box.left < -1 || box.right > innerWidth + 1 ||
    (!scrolls && !inline && element.scrollWidth > element.clientWidth + 1);
}).map((element) => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write(report(), folder)
    return (folder / "report.html").as_uri()


def _column(page: Page, head: str) -> list[str]:
    """Return what the rows that are shown have below a head, from top to bottom."""
    heads = page.locator(".runs thead th").all_inner_texts()
    position = [text.strip() for text in heads].index(head) + 1
    cells: list[str] = page.locator(
        f".runs tbody tr:not([hidden]) > :nth-child({position})"
    ).all_inner_texts()
    return cells


def _button(page: Page, head: str) -> Locator:
    return page.get_by_role("button", name=head, exact=True)


def _order(page: Page, head: str) -> str | None:
    return page.locator(".runs thead th", has_text=head).get_attribute("aria-sort")


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_overflows(browser: Browser, address: str, width: int) -> None:
    with opened(browser, address, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OVERFLOWING) == []


def test_a_wide_drawing_is_scrolled_on_a_phone(browser: Browser, address: str) -> None:
    with opened(browser, address, PHONE) as page:
        scroll = page.locator("#figure-curves .scroll")
        assert scroll.locator("svg").bounding_box()["width"] == pytest.approx(560)  # type: ignore[index]
        scroll.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.activeElement.scrollLeft > 0")
        # The narrow one fits.
        assert page.locator("#figure-cells svg").bounding_box()["width"] < PHONE  # type: ignore[index]


def test_the_caption_stays_while_its_table_is_scrolled(browser: Browser, address: str) -> None:
    with opened(browser, address, PHONE) as page:
        caption = page.locator("#table-by_subject caption span")
        before = caption.bounding_box()
        page.locator("#table-by_subject .scroll").evaluate("element => element.scrollLeft = 300")
        assert caption.bounding_box() == before


def test_dark_and_light(browser: Browser, address: str) -> None:
    colours = {}
    script = "name => getComputedStyle(document.querySelector(name)).backgroundColor"
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    with opened(browser, address) as page:
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            ink = page.evaluate("getComputedStyle(document.querySelector('.drawing')).fill")
            colours[scheme] = page.evaluate(script, "body"), ink
    assert colours["light"] == ("rgb(255, 255, 255)", "rgb(27, 30, 35)")
    assert colours["dark"][0] != colours["light"][0]
    assert colours["dark"][1] != colours["light"][1]


def test_sorting_by_numbers(browser: Browser, address: str) -> None:
    stored = runs()
    with opened(browser, address) as page:
        button = _button(page, "F1 with rotations")
        assert _order(page, "F1 with rotations") == "none"
        button.click()
        for direction, key in (("ascending", "Enter"), ("descending", "Space"), ("ascending", "")):
            assert _order(page, "F1 with rotations") == direction
            assert page.locator(".runs th:not([aria-sort=none])[aria-sort]").count() == 1
            f1 = (100 * stored["f1"].dropna()).sort_values(ascending=direction == "ascending")
            expected = [f"{value:.2f}" for value in f1]
            assert _column(page, "F1 with rotations") == [*expected, "not defined", "not defined"]
            if key:
                page.keyboard.press(key)


def test_sorting_keeps_the_order_of_equals(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        _button(page, "Seed").click()
        _button(page, "Sensitivity").click()
        _button(page, "Sensitivity").click()
        assert _order(page, "Seed") == "none"
        assert _column(page, "Sensitivity") == 15 * ["95.00"] + 15 * ["90.00"]
        assert _column(page, "Seed") == [str(seed) for seed in range(10) for _ in range(3)]


def test_sorting_text_and_times(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        _button(page, "Experiment").click()
        names = [name.partition("\n")[0] for name in _column(page, "Experiment")]
        assert names.index("norot") < names.index("proposal")
        _button(page, "Checkpoint").click()
        assert _column(page, "Checkpoint")[-1] == "not defined"
        _button(page, "Time").click()
        times = _column(page, "Time")
        assert times[:3] == 3 * ["0:50:00"]
        assert times[-2:] == 2 * ["not defined"]
        seconds = [pd.Timedelta(time).total_seconds() for time in times[:-2]]
        assert seconds == sorted(seconds)


SEARCHES = {"norot": 10, "NOROT seed=3": 1, "lr=0.0003": 10, "seed 7": 3, SCRIPT: 1, "": 30}


def test_search(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        for text, count in SEARCHES.items():
            page.get_by_label("Search").fill(text)
            assert page.locator(".shown").inner_text() == f"{count} of 30 runs"
            assert len(_column(page, "Seed")) == count


def test_filters_work_together_and_with_sorting(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.get_by_label("Experiment", exact=True).select_option(label=NASTY)
        assert page.locator(".shown").inner_text() == "10 of 30 runs"
        page.get_by_label("Search").fill("seed=4")
        page.keyboard.press("Enter")
        assert _column(page, "Seed") == ["4"]
        page.get_by_label("Search").fill("")
        _button(page, "Seed").click()
        _button(page, "Seed").click()
        assert _column(page, "Seed") == [str(seed) for seed in reversed(range(10))]
        page.get_by_label("Search").fill("nothing of this name")
        assert page.locator(".shown").inner_text() == "0 of 30 runs"
        assert page.locator(".shown").get_attribute("aria-live") == "polite"


def test_copy(browser: Browser, address: str) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    with opened(browser, address, permissions=allowed) as page:
        button = page.get_by_label(f"Copy the checkpoint path of run {NASTY}/seed=2")
        button.click()
        page.wait_for_function("document.querySelector('.copied').textContent !== ''")
        assert button.inner_text() == "Copied"
        assert page.locator(".copied").text_content() == (
            f"Copied the checkpoint path of run {NASTY}/seed=2"
        )
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == f"runs/{NASTY}/seed=2/checkpoints/best.ckpt"


@pytest.mark.parametrize("clipboard", ["undefined", "{writeText: () => Promise.reject()}"])
def test_copy_without_the_clipboard(browser: Browser, address: str, clipboard: str) -> None:
    with opened(browser, address) as page:
        page.evaluate(
            f"Object.defineProperty(navigator, 'clipboard', {{value: {clipboard}}});"
            "document.addEventListener('copy', () => {"
            "  window.taken = document.activeElement.value.slice("
            "    document.activeElement.selectionStart, document.activeElement.selectionEnd);"
            "});"
        )
        button = page.locator(".copy").nth(3)
        button.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('.copied').textContent !== ''")
        assert page.evaluate("window.taken") == f"runs/{SCRIPT}/best.ckpt"
        assert button.inner_text() == "Copied"
        assert button.evaluate("element => element === document.activeElement")
        assert page.locator("textarea").count() == 0


def test_a_copy_that_fails_says_so(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.evaluate(
            "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
            "document.execCommand = () => false;"
        )
        page.locator(".copy").first.click()
        assert page.locator(".copied").text_content() == "The browser did not allow copying"


def test_by_keyboard_alone(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        page.keyboard.press("Tab")
        skip = page.locator(".skip")
        assert skip.bounding_box()["y"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        region = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert region.startswith("Weighted F1")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        # Everything that can be done can be reached, and shows that it was.
        controls = page.locator("button, a[href]:not(.skip), input, select, [tabindex='0']")
        reached = page.evaluate(
            """() => [...document.querySelectorAll("button, a[href], input, select")]
              .filter((element) => element.tabIndex < 0 || element.disabled).length"""
        )
        assert controls.count() > 50
        assert reached == 0


def test_what_a_screen_reader_is_told(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        for role in ("banner", "main", "navigation", "search"):
            assert page.get_by_role(role).count() == 1
        drawing = page.get_by_role("img", name=f"F1 over the epochs {NASTY}")
        assert drawing.count() == 1
        # The arrow of the sorting is no part of the button's name.
        assert page.get_by_role("button", name="Sensitivity", exact=True).count() == 1
        assert page.get_by_role("rowheader").count() == 5 + 3 + 30


def test_without_javascript(browser: Browser, address: str) -> None:
    with opened(browser, address, PHONE, java_script_enabled=False) as page:
        assert page.locator(".runs tbody tr").count() == 30
        assert page.locator(".runs tbody tr").last.is_visible()
        assert page.locator(".filter").is_hidden()
        assert page.locator(".copy").first.is_hidden()
        assert page.locator(".sort").first.is_disabled()
        assert page.locator(".shown").inner_text() == "30 of 30 runs"


def test_on_paper(browser: Browser, address: str) -> None:
    with opened(browser, address, 690, color_scheme="dark") as page:
        page.emulate_media(media="print")
        for hidden in (".filter", ".copy >> nth=0", "nav", ".files >> nth=0"):
            assert page.locator(hidden).is_hidden()
        script = """() => ["color", "backgroundColor"].map(
          (name) => getComputedStyle(document.body)[name])"""
        assert page.evaluate(script) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 690

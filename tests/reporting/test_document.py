"""The files of a report: formats, escaping, and a page that needs no network."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest

from cnmc.analysis.loading import read_study
from cnmc.reporting import plots
from cnmc.reporting.document import Cell, Report, Table, latex, markdown, write
from cnmc.reporting.findings import Findings
from cnmc.reporting.paper import figure2
from tests.reporting.conftest import NASTY


@pytest.fixture
def table() -> Table:
    frame = pd.DataFrame(
        {
            "name": ["proposal", NASTY, "two\nlines"],
            "n": [1024, 3, 1],
            "mean": [87.891, 0.5, float("nan")],
            "std": [0.9, 0.25, float("nan")],
            "low": [86.0, 0.25, float("nan")],
            "high": [88.0, 0.75, float("nan")],
            "p_holm": [0.0001, 0.25, float("nan")],
            "seconds": [3725.4, 59.0, float("nan")],
        }
    )
    columns: dict[str, Cell] = {
        "name": "name",
        "n": "n",
        "mean ± std": "{mean:.2f} ± {std:.2f}",
        "95 %": "{low:.2f} to {high:.2f}",
        "±": "{mean:+.2f}",
        "p": "p_holm",
        "time": "seconds",
        "absent": "published",
    }
    return Table("one", "A & B", frame, columns, "`x_1`")


def test_numbers_are_formatted(table: Table) -> None:
    assert table.formatted().to_numpy().tolist() == [
        ["proposal", "1,024", "87.89 ± 0.90", "86.00 to 88.00", "+87.89", "< 0.001", "1:02:05"],
        [NASTY, "3", "0.50 ± 0.25", "0.25 to 0.75", "+0.50", "0.250", "0:00:59"],
        ["two lines", "1", *["not defined"] * 5],
    ]


def test_markdown_is_a_pipe_table(table: Table) -> None:
    lines = markdown(table).splitlines()
    assert lines[0] == "# A & B"
    rows = [re.split(r"(?<!\\)\|", line) for line in lines[2:7]]
    assert {len(row) for row in rows} == {9}
    names = [row[1].strip() for row in rows]
    assert names[0] == "name"
    assert names[2:] == ["proposal", r"\<b>A&_%$#{}\\^~\|`", "two lines"]


def test_latex_is_an_escaped_booktabs_table(table: Table) -> None:
    text = latex(table)
    for part in (r"\toprule", r"\begin{tabular}{lrrrrrr}", r"\caption{A \& B}", r"\label{tab:one}"):
        assert part in text
    assert r"\textless{}b\textgreater{}A\&\_\%\$\#\{\}\textbackslash{}\textasciicircum{}" in text
    assert r"\texttt{x\_1}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(output: Path, tmp_path: Path) -> None:
    tables = "\n".join(path.read_text() for path in (output / "tables").glob("*.tex"))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\extrafloats{100}\n"
        f"\\begin{{document}}\n{tables}\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_csv_is_the_frame(report: Report, output: Path) -> None:
    for table in report.tables:
        stored = pd.read_csv(output / "tables" / f"{table.name}.csv", keep_default_na=True)
        assert len(stored) == len(table.frame)
        assert stored.columns.to_list() == table.frame.columns.to_list()


class Page(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def test_the_page_is_one_file_with_links_to_the_others(output: Path) -> None:
    page = Page((output / "report.html").read_text())
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.values("src"))
    links = [link for link in page.values("href") if not link.startswith(("#", "data:"))]
    assert len(links) == 14 * 3 + 10 * 2
    assert all((output / link).is_file() for link in links)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.values("href") if link.startswith("#")} <= set(ids)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert all(image["alt"].count(".") == 1 for image in images)


def test_the_page_escapes_names_and_errors(output: Path) -> None:
    text = (output / "report.html").read_text()
    assert "<b>A&" not in text
    assert "&lt;b&gt;A&amp;_%$#{}" in text
    assert "<memory>" not in text


def test_a_failed_write_leaves_the_old_page(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.html").write_text("old")

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path), len(data))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(report, tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"
    assert not list(tmp_path.rglob("*.tmp"))


def test_figures_are_svg_and_png(report: Report) -> None:
    for figure in report.figures:
        ET.fromstring(figure.svg)  # noqa: S314
        assert figure.png.startswith(b"\x89PNG\r\n")
        assert int.from_bytes(figure.png[16:20], "big") == 1280


def test_figures_do_not_depend_on_the_settings_of_the_user(root: Path) -> None:
    findings = Findings(read_study(root))
    with mpl.rc_context(fname=plots.STYLE):
        plain = figure2(findings)
    with mpl.rc_context({"font.size": 30.0, "axes.grid": False}):
        with mpl.rc_context(fname=plots.STYLE):
            assert figure2(findings) == plain
        assert mpl.rcParams["font.size"] == 30.0

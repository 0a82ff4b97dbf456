"""The report's files: what is in them, and that no name breaks them."""
# ruff: noqa: RUF001 - characters that look like others are what has to be written

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cnmc.reporting.document import Table, column, number, signed
from cnmc.reporting.files import write
from cnmc.reporting.latex import CHARACTERS, LETTERS, latex, latex_text
from cnmc.reporting.markdown import markdown
from tests.reporting.sample import NASTY, SCRIPT, groups, lines, report, squares, wide


def _table(text: str) -> Table:
    """Return a table that says the same everywhere."""
    frame = pd.DataFrame({"name": [text], "value": [-0.5]})
    columns = [column(text, "name"), column("value", "value", signed)]
    return Table("one", text, frame, columns, note=text)


def test_everything_is_written(tmp_path: Path) -> None:
    write(report(), tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    tables = {
        f"tables/{name}.{s}" for name in ("groups", "by_subject") for s in ("csv", "md", "tex")
    }
    drawings = {f"figures/{name}.{s}" for name in ("curves", "cells") for s in ("svg", "png")}
    assert found == {"report.html"} | tables | drawings
    assert (tmp_path / "figures" / "curves.svg").read_text(encoding="utf-8") == lines().svg
    assert (tmp_path / "figures" / "cells.png").read_bytes() == squares().png


def test_a_name_with_a_dot_keeps_it(tmp_path: Path) -> None:
    table = replace(_table("x"), name="lr=0.1")
    section = replace(report().sections[0], items=[table])
    write(replace(report(), sections=[section]), tmp_path)
    assert (tmp_path / "tables" / "lr=0.1.csv").is_file()
    assert 'href="tables/lr%3D0.1.csv"' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(report(), tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path), len(data))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write(report(), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_csv_is_the_frame_as_stored(tmp_path: Path) -> None:
    write(report(), tmp_path)
    stored = pd.read_csv(tmp_path / "tables" / "groups.csv")
    pd.testing.assert_frame_equal(stored, groups().frame)


def test_markdown_is_a_pipe_table() -> None:
    text = markdown(groups()).splitlines()
    assert text[0] == "# Weighted F1 by experiment, mean ± standard deviation"
    assert text[2] == "| experiment | runs | F1, % | 95 % interval | Δ to proposal |"
    assert text[3] == "| :--- | ---: | ---: | ---: | ---: |"
    assert text[4] == "| proposal | 10 | 89.31 | 88.00 to 90.00 | +0.00 |"
    assert text[8] == "| two lines | 1 | 25.00 | 20.00 to 30.00 | -64.00 |"
    assert text[-1].startswith("F1 in %, protocol `paper`")


@pytest.mark.parametrize("text", [SCRIPT, NASTY, "a|b", "a\\|b", "a\\\\|b", "a\nb", "a\r\nb", "|"])
def test_markdown_keeps_its_columns(text: str) -> None:
    whole = markdown(_table(text))
    assert "<" not in whole
    for line in (whole.splitlines()[position] for position in (2, 3, 4)):
        # A bar ends a cell unless an odd number of backslashes stands before it.
        bars = [len(found[1]) for found in re.finditer(r"(\\*)\|", line)]
        assert sum(backslashes % 2 == 0 for backslashes in bars) == 3, line
    shown = re.sub(r"\\([\\|])", r"\1", whole.splitlines()[4]).replace("&lt;", "<")
    assert shown == f"| {' '.join(text.split())} | -0.50 |"


def test_markdown_shows_an_entity_as_it_was() -> None:
    assert "| &amp;lt;b> & c |" in markdown(_table("&lt;b> & c"))


def test_latex_is_a_booktabs_table() -> None:
    text = latex(groups())
    assert r"\caption{Weighted F1 by experiment, mean $\pm$ standard deviation}" in text
    assert r"\label{tab:groups}" in text
    assert r"\begin{tabular}{lrrrr}" in text
    assert r"experiment & runs & F1, \% & 95 \% interval & $\Delta$ to proposal \\" in text
    assert r"norot & 10 & 87.12 & 86.00 to 88.00 & $-$2.19 \\" in text
    assert r"F1 in \%, protocol \texttt{paper}: the epoch" in text
    assert r"p $\leq$ 0.05 $\times$ 2 $<$b$>$." in text
    parts = ("toprule", "midrule", "bottomrule", "footnotesize")
    order = [text.index(rf"\{part}") for part in parts]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SCRIPT, "$<$script$>$alert(1)$<$/script$>$"),
        ("a&b_c%$#{}", r"a\&b\_c\%\$\#\{\}"),
        ("~^\\|", r"\textasciitilde{}\textasciicircum{}\textbackslash{}$|$"),
        ("[1, 2]*", "{[}1, 2]{*}"),
        ("80 × 2 ± 1 – 3 − 4 ≤ 5", r"80 $\times$ 2 $\pm$ 1 -- 3 $-$ 4 $\leq$ 5"),
        ("5\u00a0%", r"5~\%"),
        ("Müller, Angström, e\u0301", "Müller, Angström, é"),
        ("Dvořák", "Dvorák"),
        ("細胞 \U0001f9eb", "?? ?"),
        ("a\nb\tc\x07", "a b c"),
    ],
)
def test_latex_text_is_escaped(text: str, expected: str) -> None:
    assert latex_text(text) == expected


def test_latex_minus_only_before_numbers() -> None:
    frame = pd.DataFrame({"name": ["lite-0"], "span": ["-0.5 to 2023-10"]})
    table = Table("x_y z", "t", frame, [column("n", "name"), column("s", "span", align="right")])
    assert r"lite-0 & $-$0.5 to 2023-10 \\" in latex(table)
    assert r"\label{tab:x_y-z}" in latex(table)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    everything = _table("".join([*CHARACTERS, *sorted(LETTERS), NASTY]))
    body = "".join(map(latex, (groups(), wide(), everything)))
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    source = rf"{head}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(source, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_an_empty_table_has_its_heads() -> None:
    frame = pd.DataFrame({"name": pd.Series(dtype=str), "f1": pd.Series(dtype=float)})
    table = Table("none", "None", frame, [column("name", "name"), column("F1", "f1", number)])
    assert markdown(table).splitlines()[2:] == ["| name | F1 |", "| :--- | ---: |"]
    assert "name & F1" in latex(table)

"""Whole reports of made-up studies: what is in them, and what is said of what is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from cnmc.analysis.loading import read_study
from cnmc.reporting.assemble import assemble
from cnmc.reporting.document import Report
from cnmc.reporting.files import write
from tests.studies import Subjects, write_run

NASTY = r"<b>A&_%$#{}\^~"
METRICS = ["accuracy", "sensitivity", "specificity", "f1", "precision", "recall", "auroc"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with ablations and the honest protocol, three seeds, one failed, one missing."""
    root = tmp_path_factory.mktemp("study") / "runs"
    subjects = Subjects({NASTY: 9, "54": 6, "55": 7, "57": 8})
    for seed in range(3):
        write_run(root, "proposal", seed, subjects=subjects)
        write_run(root, "norot", seed, signal=0.6, num_views=1, subjects=subjects)
    write_run(root, "nospeclr", 0, split_fingerprint="e" * 64, subjects=subjects)
    failed = write_run(root, "nospeclr", 1)
    info = failed.read_info()
    assert info is not None
    failed.write_info(replace(info, status="failed", error="x\nRuntimeError: out of <memory> & $"))
    for seed in range(3):
        honest = write_run(
            root.with_name("honest"),
            "proposal",
            seed,
            protocol="honest",
            setting="split=nested",
            subjects=subjects,
            config={"split": {"kind": "nested"}},
        )
        honest.path.rename(root / "proposal" / f"seed={seed},split=nested")
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> Report:
    return assemble(read_study(root), root=root)


@pytest.fixture(scope="module")
def output(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(report, folder)
    return folder


def test_table2_is_recomputed_from_the_run_folders_beside_the_published_numbers(
    root: Path, output: Path
) -> None:
    table = pd.read_csv(output / "tables" / "table2.csv")
    columns = ["experiment", "protocol", "metric", "n", "min", "mean", "std", "max"]
    columns += ["published_min", "published_mean", "published_std", "published_max"]
    assert table.columns.to_list() == columns
    of_proposal = table[table["experiment"] == "proposal"].set_index("metric")
    assert of_proposal.index.to_list() == METRICS
    f1 = []
    for seed in range(3):
        folder = root / "proposal" / f"seed={seed}"
        rows = pd.read_parquet(folder / "predictions.parquet")
        logits = rows[[f"logit_{k}" for k in range(8)]].astype(float).mean(axis=1)
        by_epoch = [
            f1_score(part["label"], logits[part.index] > 0, average="weighted")
            for epoch, part in rows.groupby("epoch")
            if epoch
        ]
        f1.append(100 * max(by_epoch))
    got = of_proposal.loc["f1"]
    assert [got[name] for name in ("n", "min", "mean", "std", "max")] == pytest.approx(
        [3, min(f1), np.mean(f1), np.std(f1), max(f1)]
    )
    assert (got["published_mean"], got["published_std"]) == (87.89, 0.90)
    norot = table[(table["experiment"] == "norot") & (table["metric"] == "f1")].iloc[0]
    assert norot["published_mean"] == 86.92
    honest = table[table["protocol"] == "honest"]
    assert set(honest["experiment"]) == {"proposal split=nested"}
    assert honest["published_mean"].isna().all()


def test_every_table_and_figure_is_a_file(report: Report, output: Path) -> None:
    tables = {table.name for table in report.tables}
    assert {"table2", "comparisons", "intervals", "selection", "ensembles", "views"} <= tables
    assert {"calibration", "roc", "subjects", "errors", "figure3", "figure4"} <= tables
    for name in tables:
        for suffix in ("csv", "md", "tex"):
            assert (output / "tables" / f"{name}.{suffix}").stat().st_size > 0
    figures = {figure.name for figure in report.figures}
    assert {"figure2", "figure3", "figure4", "intervals", "roc", "reliability"} <= figures
    for name in figures:
        for suffix in ("svg", "png"):
            assert (output / "figures" / f"{name}.{suffix}").stat().st_size > 0


def test_what_is_missing_is_said(report: Report) -> None:
    text = "\n".join(report.warnings)
    assert "proposal: 3 runs. The p-values and intervals of so few seeds mean little." in text
    assert "1 run is missing, failed or unfinished" in text
    assert "Protocol paper: the reported cells also chose the epoch" in text
    refused = (
        "nospeclr is not compared with proposal: split eeeeeeeeeeee against split bbbbbbbbbbbb"
    )
    assert refused in text
    (gaps,) = (part for part in report.sections if part.title.startswith("Runs that are not"))
    assert "nospeclr/seed=1 (failed: RuntimeError: out of <memory> & $)" in str(gaps.items[0])
    data = report.sections[-2]
    assert str(data.items[0]).startswith("Table 1 and Figure 1 are not shown: ")


def test_the_honest_protocol_stands_beside_the_papers_rule(output: Path) -> None:
    table = pd.read_csv(output / "tables" / "selection.csv")
    mine = table[table["experiment"] == "proposal"].set_index("scheme")
    assert mine.index.to_list() == [
        "best epoch on the reported cells",
        "last epoch",
        "epoch chosen on other subjects",
        "honest protocol",
    ]
    assert mine["protocol"].to_list() == ["paper", "paper", "paper", "honest"]
    assert mine["difference"].iloc[0] == 0.0
    calibration = pd.read_csv(output / "tables" / "calibration.csv").set_index("experiment")
    assert calibration["temperature_mean"].notna().to_dict() == {
        "proposal": False,
        "proposal split=nested": True,
        "norot": False,
        "nospeclr": False,
    }


def test_the_paper_s_tests_are_in_the_table_of_comparisons(output: Path) -> None:
    table = pd.read_csv(output / "tables" / "comparisons.csv").set_index("first")
    assert table.loc["norot", "test"] == "Mann-Whitney"
    assert table.loc["norot", "published_p"] == "< 0.001"
    same = table.loc["proposal, no rotation (same checkpoints)"]
    assert same["test"] == "Wilcoxon signed-rank"
    assert (table["p_holm"] >= table["p_two_sided"]).all()


def test_the_page_escapes_what_comes_from_the_run_folders(output: Path) -> None:
    page = (output / "report.html").read_text()
    assert "out of &lt;memory&gt; &amp; $" in page
    assert "<memory>" not in page
    assert not re.search(r'(?:src|href)="https?:', page)


def test_the_runs_of_the_page_are_one_a_run(report: Report) -> None:
    assert len(report.runs) == 10
    norot = report.runs[report.runs["experiment"] == "norot"]
    assert norot["f1"].isna().all()
    assert norot["f1_norot"].notna().all()
    assert "split=nested" in set(report.runs["setting"])


@pytest.mark.filterwarnings("error")
def test_one_class_one_subject_and_one_run_define_little_and_break_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "demo", 0, subjects=Subjects({"7": 4}, {}), num_epochs=1)
    report = assemble(read_study(tmp_path / "runs"), root=tmp_path / "runs")
    text = "\n".join(report.warnings)
    assert "demo: no reported cell is HEM, so what needs one is not defined." in text
    assert "demo: 1 run. The p-values" in text
    write(report, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report/tables/table2.csv").set_index("metric")
    undefined = table["mean"].isna()
    assert undefined[undefined].index.to_list() == ["specificity", "auroc"]
    assert "not defined" in (tmp_path / "report/tables/table2.md").read_text()
    intervals = pd.read_csv(tmp_path / "report/tables/intervals.csv")
    assert intervals[["seeds_low", "subjects_low"]].isna().all(axis=None)


def test_names_from_the_data_are_escaped_in_latex_and_html(output: Path) -> None:
    page = (output / "report.html").read_text()
    assert NASTY not in page
    assert "&lt;b&gt;A&amp;_%$#{}" in page
    latex = (output / "tables" / "subjects.tex").read_text()
    assert r"\_\%\$\#\{\}" in latex
    assert NASTY not in latex

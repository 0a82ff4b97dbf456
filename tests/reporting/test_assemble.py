"""Whole reports of made-up studies: their numbers, and what they say about gaps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from cnmc.analysis.loading import read_study
from cnmc.reporting.assemble import assemble
from cnmc.reporting.document import Report, write
from tests.studies import Subjects, write_run

TABLES = {
    "table2": "experiment protocol metric n min mean std max published_min published_mean "
    "published_std published_max",
    "figure3": "subject label num_cells best last",
    "figure4": "experiment protocol epoch accuracy_mean accuracy_std sensitivity_mean "
    "sensitivity_std specificity_mean specificity_std f1_mean f1_std precision_mean precision_std "
    "recall_mean recall_std",
    "comparisons": "first second protocol test num_first num_second mean_first mean_second "
    "difference seeds_low seeds_high subjects_low subjects_high superiority superiority_low "
    "superiority_high p_one_sided p_two_sided p_holm published_p smallest",
    "intervals": "experiment protocol metric n num_subjects mean seeds_low seeds_high "
    "subjects_low subjects_high",
    "selection": "experiment protocol scheme n mean std seeds_low seeds_high difference "
    "difference_low difference_high note",
    "views": "experiment protocol num_views mean std spaced",
    "ensembles": "experiment protocol k num_choices f1_mean f1_low f1_high auroc_mean auroc_low "
    "auroc_high",
    "roc": "experiment protocol n auroc_mean auroc_std sensitivity_mean sensitivity_std "
    "specificity_mean specificity_std sensitivity_at_80_mean sensitivity_at_80_std "
    "sensitivity_at_90_mean sensitivity_at_90_std sensitivity_at_95_mean sensitivity_at_95_std",
    "calibration": "experiment protocol n ece_mean ece_std temperature_mean temperature_std "
    "calibrated_ece_mean calibrated_ece_std",
    "reliability": "experiment protocol low high num_cells mean_probability fraction "
    "calibrated_probability calibrated_fraction",
    "person_roc": "experiment protocol n num_subjects auroc_mean auroc_std",
    "subjects": "subject label num_cells mean_accuracy mean_probability std_probability "
    "wrong_share",
    "errors": "cell_id subject label wrong_share mean_probability",
}
FIGURES = [f"figure{number}" for number in (2, 3, 4)]
FIGURES += ["intervals", "selection", "views", "ensembles", "roc", "reliability", "persons"]


def test_every_table_and_figure_is_written(report: Report, output: Path) -> None:
    assert {table.name for table in report.tables} == set(TABLES)
    for name, columns in TABLES.items():
        assert pd.read_csv(output / "tables" / f"{name}.csv").columns.to_list() == columns.split()
    files = {f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")}
    assert {path.name for path in (output / "tables").iterdir()} == files
    files = {f"{name}.{suffix}" for name in FIGURES for suffix in ("svg", "png")}
    assert {path.name for path in (output / "figures").iterdir()} == files


def test_table2_has_the_metrics_of_the_best_epochs(root: Path, output: Path) -> None:
    table = pd.read_csv(output / "tables" / "table2.csv")
    f1 = []
    for seed in range(3):
        rows = pd.read_parquet(root / "proposal" / f"seed={seed}" / "predictions.parquet")
        logits = rows[[f"logit_{k}" for k in range(8)]].astype(float).mean(axis=1)
        by_epoch = [
            f1_score(part["label"], logits[part.index] > 0, average="weighted")
            for epoch, part in rows.groupby("epoch")
            if epoch
        ]
        f1.append(100 * max(by_epoch))
    got = table[(table["experiment"] == "proposal") & (table["metric"] == "f1")].iloc[0]
    assert [got[name] for name in ("n", "min", "mean", "std", "max")] == pytest.approx(
        [3, min(f1), np.mean(f1), np.std(f1), max(f1)]
    )
    assert (got["published_mean"], got["published_std"]) == (87.89, 0.90)
    norot = table[(table["experiment"] == "norot") & (table["metric"] == "f1")].iloc[0]
    assert norot["published_mean"] == 86.92


def test_gaps_and_few_seeds_are_reported(report: Report) -> None:
    warnings = "\n".join(report.warnings)
    assert "proposal: 3 runs" in warnings
    assert "1 run left out" in warnings
    assert "nospeclr is not compared with proposal" in warnings
    gaps = report.sections["Runs that are not in this report"]
    assert "out of <memory> & $" in str(gaps[0])
    cells = report.sections["The cells"]
    assert [type(item) for item in cells] == [str]


def test_the_honest_protocol_is_compared_with_the_papers_rule(output: Path) -> None:
    table = pd.read_csv(output / "tables" / "selection.csv")
    rules = table[table["experiment"] == "proposal"]
    assert rules["protocol"].to_list() == ["paper", "paper", "paper", "honest"]
    assert rules["difference"].iloc[0] == 0.0
    calibration = pd.read_csv(output / "tables" / "calibration.csv").set_index("experiment")
    assert calibration["temperature_mean"].notna().to_dict() == {
        "proposal": False,
        "proposal split=nested": True,
        "norot": False,
        "nospeclr": False,
    }


def test_the_papers_tests_are_in_the_table_of_comparisons(output: Path) -> None:
    table = pd.read_csv(output / "tables" / "comparisons.csv").set_index("first")
    assert table.loc["norot", "test"] == "Mann-Whitney"
    assert table.loc["norot", "published_p"] == "< 0.001"
    same = table.loc["proposal, no rotation (same checkpoints)"]
    assert same["test"] == "Wilcoxon signed-rank"
    assert (table["p_holm"] >= table["p_two_sided"]).all()


def test_the_page_lists_each_run_once(report: Report) -> None:
    runs = report.runs.frame
    assert len(runs) == 10
    norot = runs[runs["experiment"] == "norot"]
    assert norot["f1"].isna().all()
    assert norot["f1_norot"].notna().all()
    assert "proposal split=nested" in set(report.runs.formatted()["Experiment"])


@pytest.mark.filterwarnings("error")
def test_one_class_one_subject_and_one_run(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "demo", 0, subjects=Subjects({"7": 4}, {}), num_epochs=1)
    report = assemble(read_study(tmp_path / "runs"), root=tmp_path / "runs")
    assert any("no reported cell is HEM" in warning for warning in report.warnings)
    write(report, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report/tables/table2.csv").set_index("metric")
    undefined = table["mean"].isna()
    assert undefined[undefined].index.to_list() == ["specificity", "auroc"]
    assert "not defined" in (tmp_path / "report/tables/table2.md").read_text()
    intervals = pd.read_csv(tmp_path / "report/tables/intervals.csv")
    assert intervals[["seeds_low", "subjects_low"]].isna().all(axis=None)

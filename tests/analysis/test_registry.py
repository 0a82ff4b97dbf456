"""Another metric is one entry of the registry, and appears everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cnmc.analysis.metrics import METRICS
from cnmc.runs.folder import RunFolder
from tests.conftest import ROOT
from tests.tracking.transactions import read_logs

SCRIPT = """
import sys, json
from pathlib import Path
from cnmc.analysis.metrics import METRICS, Metric
METRICS["youden"] = Metric(
    "Youden's J", lambda n: n.tp / (n.tp + n.fn) + n.tn / (n.tn + n.fp) - 1
)
from cnmc.analysis.loading import read_study
from cnmc.cli.app import compose
from cnmc.config import ReportConfig
from cnmc.report import report
from cnmc.study.plan import job_folder
from cnmc.tracking.loggers import log_study
from cnmc.train import study_figures, train
root, arguments = Path(sys.argv[1]), json.loads(sys.argv[2])
config, resolved = compose(arguments)
train(config, resolved, job_folder(config, [], {}))
log_study(config.logger, read_study(root / "runs"), root / "runs", study_figures)
report(ReportConfig(runs=str(root / "runs"), output=str(root / "report")))
"""


@pytest.mark.slow
def test_a_new_entry_appears_in_every_output(tiny: list[str], tmp_path: Path) -> None:
    root = tmp_path
    arguments = json.dumps([*tiny, "logger=wandb", "logger.mode=offline"])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Youden's J" in done.stdout
    folder = RunFolder(root / "runs" / "proposal" / "seed=0")
    metrics = folder.read_metrics().set_index("epoch")
    expected = metrics["val/sensitivity"] + metrics["val/specificity"] - 1
    assert metrics["val/youden"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    (run,) = read_logs(folder.path)
    info = folder.read_info()
    assert info is not None
    assert run.summary["best/youden"] == metrics["val/youden"].loc[info.best_epoch or 0]
    assert [row["val/youden"] for row in run.history if "epoch" in row] == list(
        metrics["val/youden"]
    )
    (study,) = read_logs(root / "runs")
    assert study.summary["youden/mean"] == pytest.approx(run.summary["best/youden"], abs=1e-6)
    tables = root / "report" / "tables"
    assert "youden" in pd.read_csv(tables / "runs.csv")
    for name in ("table2", "intervals"):
        assert set(pd.read_csv(tables / f"{name}.csv")["metric"]) == {*METRICS, "youden"}
    assert "Youden" in (root / "report" / "figures" / "figure4.svg").read_text()

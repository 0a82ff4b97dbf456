"""``python -m cnmc.report`` on studies in any state."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cnmc.cli.app import compose
from cnmc.config import ReportConfig
from cnmc.errors import CnmcError
from cnmc.report import report
from cnmc.runs.folder import RunFolder
from tests.analysis.test_summary import RIGHT, WRONG, _finished


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """One finished run, one at epoch 2 of 6, one that failed."""
    root = tmp_path / "runs"
    _finished(root / "proposal" / "seed=0", {"logit_0": WRONG, "logit_4": [3.0] * 4})
    begun = _finished(root / "proposal" / "seed=1", {"logit_0": RIGHT}, status="running")
    info = begun.read_info()
    assert info is not None
    begun.write_info(replace(info, epochs_done=2, max_epochs=6, best_f1=0.9))
    _finished(root / "norot" / "seed=0", {"logit_0": RIGHT}, status="failed", error="x\nE: full")
    return root


def test_a_half_finished_study_is_reported(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    report(ReportConfig(runs=str(study), output=str(tmp_path / "report")))
    after = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    assert before == after
    text = capsys.readouterr().out
    assert "best run of proposal: seed=0" in text
    assert "seed=1 (interrupted, epoch 2/6, F1 so far 90.00)" in text
    assert "norot/seed=0 (failed: E: full)" in text
    table = pd.read_csv(tmp_path / "report" / "tables" / "runs.csv")
    assert table["view"].tolist() == ["rotations", "no rotation"]
    assert table["run"].tolist() == ["seed=0", "seed=0"]
    assert table["sensitivity"].tolist() == [1.0, 0.0]


def test_experiments_can_be_chosen(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(ReportConfig(runs=str(study), experiments=["norot"]))
    assert "proposal" not in capsys.readouterr().out
    with pytest.raises(CnmcError, match="no run of nospeclr there; it has norot, proposal"):
        report(ReportConfig(runs=str(study), experiments=["nospeclr"]))


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CnmcError, match=r"runs=.*no run folder there"):
        report(ReportConfig(runs=str(tmp_path)))


def test_an_output_that_cannot_be_written_is_refused_by_name(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CnmcError, match=r"output=.*file/report: cannot write .*expected a folder"):
        report(ReportConfig(runs=str(study), output=str(tmp_path / "file" / "report")))


def test_a_study_without_a_finished_run_is_no_error(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    report(ReportConfig(runs=str(study), output=str(output), experiments=["norot"]))
    assert "no run is finished yet" in capsys.readouterr().out
    assert not output.exists()


def test_its_configuration_is_typed() -> None:
    config, _ = compose(["runs=a"], config_name="report")
    assert config == ReportConfig(runs="a", output="report", experiments=[])
    assert (config.reference, config.data.root) == (None, None)


def test_it_needs_no_torch() -> None:
    code = "import sys, cnmc.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_command_reports(study: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnmc.report", f"runs={study}"]
    done = subprocess.run(
        [*command, f"output={tmp_path / 'out'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/tables/runs.csv").is_file()
    missing = subprocess.run(
        [*command[:-1], "runs=/nowhere"], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: runs=/nowhere: no run folder there")
    assert RunFolder(study / "proposal" / "seed=0").is_finished()

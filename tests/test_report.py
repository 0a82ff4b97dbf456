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
from cnmc.data.manifest import load_manifest
from cnmc.errors import CnmcError
from cnmc.report import report
from tests.analysis.test_summary import RIGHT, WRONG, _finished
from tests.data.trees import write_release
from tests.studies import write_run


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """One finished run, one at epoch 2 of 6, one failed, and one with a damaged ``run.json``."""
    root = tmp_path / "runs"
    _finished(root / "proposal" / "seed=0", {"logit_0": WRONG, "logit_4": [3.0] * 4})
    begun = _finished(root / "proposal" / "seed=1", {"logit_0": RIGHT}, status="running")
    info = begun.read_info()
    assert info is not None
    begun.write_info(replace(info, epochs_done=2, max_epochs=6, best_f1=0.9))
    _finished(root / "norot" / "seed=0", {"logit_0": RIGHT}, status="failed", error="x\nE: full")
    damaged = _finished(root / "norot" / "seed=1", {"logit_0": RIGHT})
    (damaged.path / "run.json").write_text("{")
    return root


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnmc.report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_study_in_any_state_is_reported_and_left_unchanged(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    report(ReportConfig(runs=str(study), output=str(tmp_path / "report")))
    after = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    assert before == after
    text = capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    for folder in ("proposal/seed=1", "norot/seed=0", "norot/seed=1"):
        assert folder in text
        assert folder in page
    table = pd.read_csv(tmp_path / "report" / "tables" / "runs.csv")
    assert table["view"].tolist() == ["rotations", "no rotation"]
    assert table["run"].tolist() == ["seed=0", "seed=0"]
    assert table["sensitivity"].tolist() == [1.0, 0.0]


def test_experiments_can_be_chosen(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(ReportConfig(runs=str(study), experiments=["norot"]))
    assert "proposal" not in capsys.readouterr().out
    with pytest.raises(CnmcError, match=r"nospeclr.*norot, proposal"):
        report(ReportConfig(runs=str(study), experiments=["nospeclr"]))


def test_an_output_that_cannot_be_written_is_named(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CnmcError, match=r"output=.*file/report"):
        report(ReportConfig(runs=str(study), output=str(tmp_path / "file" / "report")))


def test_a_study_without_a_finished_run_is_no_error(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    report(ReportConfig(runs=str(study), output=str(output), experiments=["norot"]))
    assert not output.exists()


def test_its_configuration_is_typed() -> None:
    config, _ = compose(["runs=a"], config_name="report")
    assert config == ReportConfig(runs="a", output="report", experiments=[])


@pytest.mark.slow
def test_the_command_finds_the_cells_where_they_are_now(tmp_path: Path) -> None:
    data = write_release(tmp_path / "data")
    manifest = load_manifest(data, tmp_path / "work", num_workers=1)
    write_run(tmp_path / "runs", "proposal", 0, manifest_fingerprint=manifest.fingerprint)
    output = tmp_path / "out"
    done = run_command(f"runs={tmp_path / 'runs'}", f"output={output}", f"data.root={data}")
    assert done.returncode == 0, done.stderr
    assert (output / "tables" / "table1.csv").is_file()
    assert (output / "figures" / "figure1.png").is_file()


@pytest.mark.slow
def test_the_command_needs_runs_but_no_torch() -> None:
    missing = run_command("runs=/nowhere")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: runs=/nowhere")
    code = "import sys, cnmc.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""A report over a small study with ablations, both protocols, cells, and odd names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cnmc.analysis.loading import read_study
from cnmc.reporting.assemble import assemble
from cnmc.reporting.document import Report, write
from tests.studies import Subjects, write_run

NASTY = r"<b>A&_%$#{}\^~|`"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two experiments and of the honest protocol; one failed, one other split."""
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


@pytest.fixture(scope="session")
def report(root: Path) -> Report:
    return assemble(read_study(root), root=root)


@pytest.fixture(scope="session")
def output(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(report, folder)
    return folder

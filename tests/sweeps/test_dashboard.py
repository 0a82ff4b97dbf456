"""The dashboard: what it shows, its command line, and what saving sends."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import wandb

from cnmc.analysis.metrics import METRICS
from cnmc.config.groups import STAGES, LoggerConfig
from cnmc.tracking import keys
from cnmc.tracking.wandb_run import STATISTICS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "sweeps" / "dashboard.py"
PLACE = ("--entity", "laboratory", "--project", "cells")
HOST = "wandb.hospital.example"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dashboard() -> ModuleType:
    return _load()


def _view(
    dashboard: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    assert dashboard.main([*PLACE, "--dry-run", *arguments]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    return shown


def _strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(_strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(_strings, value))
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize(("protocol", "part"), [("paper", "best"), ("honest", "test")])
def test_every_number_is_one_that_runs_log(
    dashboard: ModuleType, capsys: pytest.CaptureFixture[str], protocol: str, part: str
) -> None:
    view = _view(dashboard, capsys, "--protocol", protocol)
    assert protocol in view["name"]
    metrics = [*METRICS, "f1_norot", "loss"]
    logged = {f"{name}/{metric}" for metric in metrics for name in ("val", "best", "test")}
    logged |= {"train/loss", "best/epoch", "best/checkpoint", *(f"lr/{stage}" for stage in STAGES)}
    logged |= {f"{metric}/{name}" for metric in metrics for name in STATISTICS}
    logged |= {"figures/" + name for name in dashboard.FIGURES}
    text = _strings(view["sections"]) | _strings(view["runset_settings"])
    named = {word.removeprefix("summary:") for word in text if re.fullmatch(r"[\w:]+/\w+", word)}
    assert named <= logged
    assert {"val/f1", "val/f1_norot", "val/loss", "lr/head", f"{part}/specificity"} <= named
    tables = {keys.SUBJECTS, keys.WRONG_CELLS, keys.METRICS_TABLE}
    assert tables <= text
    charts = json.dumps(view["sections"])
    for chart in (keys.CONFUSION_MATRIX, keys.ROC, keys.PRECISION_RECALL):
        assert f"{chart}_table" in charts


def test_runs_are_ordered_by_f1_and_no_panel_hides_one(
    dashboard: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    view = _view(dashboard, capsys)
    order = view["runset_settings"]["order"]
    assert "best/f1" in _strings(order)
    assert order[0]["ascending"] is False
    pinned = view["runset_settings"]["pinned_columns"]
    assert pinned[:3] == ["run:displayName", "summary:best/f1", "summary:best/checkpoint"]
    panels = [panel for section in view["sections"] for panel in section["panels"]]
    limits = [panel["max_runs_to_show"] for panel in panels if "max_runs_to_show" in panel]
    assert limits
    assert set(limits) == {dashboard.NUM_RUNS}


def test_the_dry_run_needs_no_network_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--dry-run"]
    environment = {"PYTHONPATH": str(ROOT), "WANDB_BASE_URL": f"https://{HOST}"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["project"] == LoggerConfig(kind="wandb").project
    assert list(tmp_path.iterdir()) == []


class Saved:
    """Replaces ``Workspace.save`` and ``Workspace.from_url``."""

    def __init__(self, dashboard: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.views: list[Any] = []
        self.loaded: list[str] = []
        self.default_entity: str | None = "laboratory"
        workspace = dashboard.ws.Workspace
        monkeypatch.setattr(wandb, "login", lambda **_: True)
        monkeypatch.setattr(wandb, "Api", lambda: self)
        monkeypatch.setattr(workspace, "save", lambda view: self.views.append(view))  # noqa: PLW0108 - bound
        monkeypatch.setattr(workspace, "url", f"https://{HOST}/saved")

        def from_url(url: str) -> Any:
            self.loaded.append(url)
            return dashboard.build("laboratory", "cells", "paper", name="Old")

        monkeypatch.setattr(workspace, "from_url", from_url)


@pytest.fixture
def saved(dashboard: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Saved:
    return Saved(dashboard, monkeypatch)


def test_a_view_is_saved_for_the_accounts_entity(
    dashboard: ModuleType,
    saved: Saved,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    assert dashboard.main([]) == 0
    (view,) = saved.views
    assert (view.entity, view.project) == ("laboratory", LoggerConfig(kind="wandb").project)
    assert capsys.readouterr().out == f"https://{HOST}/saved\n"
    saved.default_entity = None
    assert dashboard.main([]) == 2
    assert len(saved.views) == 1


@pytest.mark.parametrize("page", ["", "/workspace", "/table", "/"])
def test_a_saved_view_is_replaced(dashboard: ModuleType, saved: Saved, page: str) -> None:
    address = f"https://{HOST}/laboratory/cells{page}?nw=abc123"
    assert dashboard.main(["--view", address, "--protocol", "honest", "--name", "New"]) == 0
    (url,), (view,) = saved.loaded, saved.views
    assert url.endswith("/laboratory/cells?nw=abc123")
    assert view.name == "New"
    assert "test/f1" in str(view.sections)


@pytest.mark.parametrize(
    "address",
    [
        "cells",
        f"https://{HOST}/laboratory/cells",
        f"https://{HOST}/laboratory/cells?nw=nwuserme",
        f"https://{HOST}/laboratory/cells/runs/a?nw=abc",
    ],
)
def test_another_address_is_refused(
    dashboard: ModuleType, saved: Saved, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    assert dashboard.main(["--view", address]) == 2
    assert "--view" in capsys.readouterr().err
    assert saved.views == []


@pytest.mark.usefixtures("saved")
def test_a_failure_of_wandb_is_one_line_without_its_address(
    dashboard: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**_: Any) -> Any:
        sys.stderr.write(f"wandb: WARNING https://{HOST}\n")
        raise wandb.errors.AuthenticationError(f"https://{HOST} refused the key")

    monkeypatch.setattr(wandb, "login", fail)
    assert dashboard.main(list(PLACE)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "AuthenticationError" in line
    assert "laboratory/cells" in line
    assert HOST not in line


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2.interface", None)
    with pytest.raises(SystemExit) as ended:
        _load()
    assert ended.value.code == 2
    assert "pip install 'cnmc[dashboard]'" in capsys.readouterr().err

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import wandb
from wandb_workspaces.workspaces.interface import Workspace
from wandb_workspaces.workspaces.internal import View

from cnmc.analysis.metrics import METRICS
from cnmc.config import STAGES, Config
from cnmc.runs.folder import F1_NOROT
from cnmc.tracking import keys as names
from cnmc.tracking.study_run import STATISTICS
from tests.reporting.test_assemble import FIGURES
from tests.studies import write_run

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "sweeps" / "dashboard.py"
PROTOCOLS = ("paper", "honest")
PLACE = ("--entity", "laboratory", "--project", "cells")
HOST, KEY = "wandb.hospital.example", "0123456789abcdef" * 2 + "01234567"


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


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _section(dashboard: ModuleType, protocol: str) -> Any:
    shown = dashboard.specification(dashboard.build("laboratory", "cells", protocol))
    return shown["spec"]["section"]


def _panels(section: Any, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the settings of the panels, of one kind or of all, in their order."""
    return [
        panel["config"]
        for part in section["panelBankConfig"]["sections"]
        for panel in part["panels"]
        if kind in (None, panel["viewType"])
    ]


def _titled(section: Any, title: str) -> dict[str, Any]:
    (found,) = [p for p in _panels(section) if str(p.get("chartTitle", "")).startswith(title)]
    return found


def _table(panel: dict[str, Any]) -> str:
    return str(panel["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"])


def _chart_table(panel: dict[str, Any]) -> str:
    """Return the table of a custom chart, whether this library or wandb.plot wrote it."""
    (query,) = panel["userQuery"]["queryFields"]
    (table,) = [field for field in query["fields"] if field["name"] == "summaryTable"]
    (key,) = table["args"]
    return str(key["value"])


# ---------------------------------------------------------------------------------- what it shows


def test_f1_by_epoch_is_grouped_by_experiment_with_its_spread(
    dashboard: ModuleType, protocol: str
) -> None:
    section = _section(dashboard, protocol)
    first = section["panelBankConfig"]["sections"][0]
    assert first["isOpen"]
    shown = first["panels"][0]
    assert shown["viewType"] == "Run History Line Plot"
    config = shown["config"]
    assert (config["xAxis"], config["metrics"]) == ("epoch", ["val/f1"])
    assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == (
        "group",
        "mean",
        "stddev",
    )
    assert config["aggregate"] is True


def test_every_line_is_a_group_over_epochs(dashboard: ModuleType, protocol: str) -> None:
    lines = _panels(_section(dashboard, protocol), "Run History Line Plot")
    assert {panel["xAxis"] for panel in lines} == {"epoch"}
    assert {panel["groupBy"] for panel in lines} == {"group"}
    metrics = {metric for panel in lines for metric in panel["metrics"]}
    rates = {f"lr/{stage}" for stage in STAGES}
    assert metrics == {"val/f1", "val/f1_norot", "val/auroc", "val/loss", "train/loss"} | rates


@pytest.mark.parametrize(("protocol", "part"), [("paper", "best"), ("honest", "test")])
def test_sensitivity_against_specificity_is_a_point_a_run(
    dashboard: ModuleType, protocol: str, part: str
) -> None:
    section = _section(dashboard, protocol)
    (scatter,) = _panels(section, "Scatter Plot")
    assert scatter["xAxis"] == f"summary:{part}/specificity"
    assert scatter["yAxis"] == f"summary:{part}/sensitivity"
    assert scatter["zAxis"] == f"summary:{part}/f1"
    # Grouping the runs would leave one point an experiment.
    assert section["runSets"][0]["grouping"] == []


def test_runs_are_listed_by_their_best_f1_with_the_checkpoint(
    dashboard: ModuleType, protocol: str
) -> None:
    (runs,) = _section(dashboard, protocol)["runSets"]
    assert runs["sort"]["keys"] == [
        {"key": {"section": "summary", "name": "best/f1"}, "ascending": False}
    ]
    assert runs["runFeed"]["columnOrder"][:3] == [
        "run:displayName",
        "summary:best/f1",
        "summary:best/checkpoint",
    ]
    assert set(runs["runFeed"]["columnPinned"]) == set(runs["runFeed"]["columnOrder"])


def test_runs_are_trainings_and_studies_of_one_protocol(
    dashboard: ModuleType, protocol: str
) -> None:
    (runs,) = _section(dashboard, protocol)["runSets"]
    job, tag = runs["filters"]["filters"]
    assert (job["key"]["name"], job["op"], job["value"]) == ("jobType", "IN", ["train", "study"])
    assert (tag["key"]["name"], tag["op"], tag["value"]) == ("tags", "IN", [protocol])
    assert tag["connector"] == "AND"
    assert not job["disabled"]
    assert not tag["disabled"]


@pytest.mark.parametrize(("protocol", "part"), [("paper", "best"), ("honest", "test")])
def test_experiments_are_compared_by_what_is_reported(
    dashboard: ModuleType, protocol: str, part: str
) -> None:
    section = _section(dashboard, protocol)
    bars = _titled(section, "Reported F1")
    assert bars["metrics"] == [f"{part}/f1"]
    assert (bars["groupBy"], bars["groupAgg"], bars["groupArea"]) == ("group", "mean", "stddev")
    (parallel,) = _panels(section, "Parallel Coordinates Plot")
    axes = [column["accessor"] for column in parallel["columns"]]
    assert axes == ["config:experiment.value", *(f"summary:{part}/{name}" for name in METRICS)]
    assert "experiment" in Config.__dataclass_fields__
    studies = _titled(section, "Studies")
    assert studies["metrics"] == ["f1/ci_low", "f1/mean", "f1/ci_high"]
    assert "groupBy" not in studies


def test_no_panel_leaves_runs_of_a_study_out(dashboard: ModuleType, protocol: str) -> None:
    section = _section(dashboard, protocol)
    kinds = ("Run History Line Plot", "Bar Chart")
    limits = [panel["limit"] for kind in kinds for panel in _panels(section, kind)]
    assert min(limits) >= 3 * 24
    assert section["settings"]["maxRuns"] >= 3 * 24


def test_persons_and_cells_are_shown(dashboard: ModuleType, protocol: str) -> None:
    section = _section(dashboard, protocol)
    tables = [_table(panel) for panel in _panels(section, "Weave")]
    assert tables == ["metrics", "subjects", "wrong_cells"]


def _logged_charts() -> dict[str, Any]:
    """Return the charts as a run logs them."""
    truth, probabilities = [0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]
    plot: Any = wandb.plot  # its hints take no lists of lists
    return {
        "confusion_matrix": plot.confusion_matrix(y_true=truth, preds=[0, 1, 0, 1]),
        "roc": plot.roc_curve(truth, probabilities),
        "precision_recall": plot.pr_curve(truth, probabilities),
    }


def test_charts_read_what_wandb_plot_logs(dashboard: ModuleType, protocol: str) -> None:
    panels = _panels(_section(dashboard, protocol), "Vega2")
    charts = _logged_charts()
    assert len(panels) == len(charts)
    for panel, (key, chart) in zip(panels, charts.items(), strict=True):
        chart.set_key(key)
        logged = chart.spec.config_value["panel_config"]
        assert panel["panelDefId"] == logged["panelDefId"]
        assert panel["fieldSettings"] == logged["fieldSettings"]
        assert set(panel["fieldSettings"].values()) <= set(chart.table.columns)
        assert panel["stringSettings"].keys() == logged["stringSettings"].keys()
        assert _chart_table(panel) == _chart_table(logged) == chart.spec.table_key


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all numbers that runs and studies of them log."""
    folder = write_run(tmp_path_factory.mktemp("runs"), "proposal", 0, num_epochs=1)
    columns = {*folder.read_metrics().columns, F1_NOROT, *(f"lr/{stage}" for stage in STAGES)}
    scores = {column.removeprefix("val/") for column in columns if column.startswith("val/")}
    return {
        *columns,
        *(f"best/{name}" for name in {*scores, "epoch", "checkpoint"}),
        *(f"test/{name}" for name in METRICS),
        *(f"{name}/{statistic}" for name in METRICS for statistic in STATISTICS),
    }


def _names(section: Any) -> set[str]:
    """Return the names of all numbers that a view asks for."""
    found: set[str] = {section["settings"]["xAxis"]}
    for panel in _panels(section):
        found |= set(panel.get("metrics", []))
        found |= {panel[axis] for axis in ("xAxis", "yAxis", "zAxis") if axis in panel}
        found |= {column["accessor"] for column in panel.get("columns", [])}
    (runs,) = section["runSets"]
    found |= {key["key"]["name"] for key in runs["sort"]["keys"]}
    found |= set(runs["runFeed"]["columnOrder"])
    asked = {name.removeprefix("summary:") for name in found}
    return {name for name in asked if not name.startswith(("run:", "config:", "tags:"))}


def test_every_number_is_one_that_a_run_logs(
    dashboard: ModuleType, protocol: str, logged: set[str]
) -> None:
    asked = _names(_section(dashboard, protocol))
    assert len(asked) > 20
    assert asked <= logged


def test_every_figure_is_one_of_the_report(dashboard: ModuleType, protocol: str) -> None:
    (browser,) = _panels(_section(dashboard, protocol), "Media Browser")
    assert len(browser["mediaKeys"]) > 4
    assert set(browser["mediaKeys"]) <= {names.figure(name) for name in FIGURES}


def test_the_text_names_the_protocol(dashboard: ModuleType, protocol: str) -> None:
    shown = dashboard.specification(dashboard.build("laboratory", "cells", protocol))
    (text,) = [p["value"] for p in _panels(shown["spec"]["section"], "Markdown Panel")]
    assert f"protocol **{protocol}**" in text
    assert protocol in shown["displayName"]
    assert ("flatters" in text) == (protocol == "paper")
    parts = {part["name"] for part in shown["spec"]["section"]["panelBankConfig"]["sections"]}
    assert set(re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text)) <= parts


# -------------------------------------------------------------------------------- specification


def test_specification_survives_the_library(dashboard: ModuleType, protocol: str) -> None:
    view = dashboard.build("laboratory", "cells", protocol)._to_model()
    read = View.model_validate_json(view.model_dump_json(by_alias=True, exclude_none=True))
    again = Workspace._from_model(read)._to_model()
    assert again.model_dump(exclude_none=True) == view.model_dump(exclude_none=True)


def test_panels_have_names_of_their_own(dashboard: ModuleType, protocol: str) -> None:
    section = _section(dashboard, protocol)
    parts = section["panelBankConfig"]["sections"]
    ids = [panel["__id__"] for part in parts for panel in part["panels"]]
    assert len(set(ids)) == len(ids) == len(_panels(section))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection, and W&B's own process, fail the test."""

    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(wandb, "Api", refuse)
    monkeypatch.setattr(wandb, "login", refuse)


@pytest.mark.usefixtures("offline")
def test_dry_run_prints_without_network(
    dashboard: ModuleType,
    protocol: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"https://{HOST}")
    assert dashboard.main([*PLACE, "--protocol", protocol, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    shown = json.loads(printed.out)
    assert shown == dashboard.specification(dashboard.build("laboratory", "cells", protocol))
    assert (shown["entity"], shown["project"]) == ("laboratory", "cells")
    for secret in (KEY, HOST, "://", socket.gethostname()):
        assert secret not in printed.out


@pytest.mark.usefixtures("offline")
def test_defaults_are_those_of_training(
    dashboard: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    assert dashboard.main(["--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["entity"], shown["project"]) == (None, "cnmc")
    monkeypatch.setenv("WANDB_ENTITY", "team")
    assert dashboard.main(["--dry-run", "--name", "Mine"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["entity"], shown["displayName"]) == ("team", "Mine")


def _command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a user without an account does, from another folder."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=tmp_path,
        env={**own, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "NETRC": str(tmp_path / "no")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_prints_the_same_from_any_folder(dashboard: ModuleType, tmp_path: Path) -> None:
    done = _command(tmp_path, *PLACE, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == dashboard.specification(
        dashboard.build("laboratory", "cells", "paper")
    )
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ saving


def test_command_asks_for_a_login(tmp_path: Path) -> None:
    done = _command(tmp_path, *PLACE)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: not logged in to W&B: run wandb login or set WANDB_API_KEY")


class Server:
    """Stands for W&B: keeps what it is sent, and has one saved view."""

    def __init__(self, entity: str | None = "laboratory") -> None:
        self.default_entity = entity
        self.sent: list[dict[str, Any]] = []
        self._service_api = self
        self.app_url = f"https://{HOST}/"
        self.saved = ""

    def execute_graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(variables)
        if "mutation" in query:
            view = {"name": variables["name"], "id": "VmlldzoxMjM="}
            return {"upsertView": {"view": view, "inserted": True}}
        node = {"id": "VmlldzoxMjM=", "displayName": "Old", "spec": self.saved}
        return {"project": {"allViews": {"edges": [{"node": node}]}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", lambda: made)
    return made


def test_saves_what_the_dry_run_prints(
    dashboard: ModuleType, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dashboard.main(list(PLACE)) == 0
    printed = capsys.readouterr()
    (sent,) = server.sent
    assert (sent["entityName"], sent["projectName"], sent["type"]) == (
        "laboratory",
        "cells",
        "project-view",
    )
    assert "id" not in sent
    shown = dashboard.specification(dashboard.build("laboratory", "cells", "paper"))
    assert json.loads(sent["spec"]) == shown["spec"]
    name = sent["name"].removeprefix("nw-").removesuffix("-v")
    assert printed.out == f"https://{HOST}/laboratory/cells?nw={name}\n"
    assert printed.err == ""


def test_entity_is_the_accounts_default(
    dashboard: ModuleType,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WANDB_ENTITY", raising=False)
    assert dashboard.main([]) == 0
    assert server.sent[0]["entityName"] == "laboratory"
    server.default_entity = None
    assert dashboard.main([]) == 2
    assert len(server.sent) == 1
    assert capsys.readouterr().err == (
        "error: --entity: the account has no default; name the user or team\n"
    )


@pytest.mark.parametrize("page", ["", "/workspace", "/table", "/"])
def test_brings_a_saved_view_up_to_date(
    dashboard: ModuleType, server: Server, capsys: pytest.CaptureFixture[str], page: str
) -> None:
    old = dashboard.specification(dashboard.build("laboratory", "cells", "paper"))
    server.saved = json.dumps(old["spec"])
    address = f"https://{HOST}/laboratory/cells{page}?nw=abc123"
    assert dashboard.main(["--view", address, "--protocol", "honest"]) == 0
    _, sent = server.sent
    assert (sent["name"], sent["id"]) == ("nw-abc123-v", "VmlldzoxMjM=")
    shown = dashboard.specification(dashboard.build("laboratory", "cells", "honest"))
    assert json.loads(sent["spec"]) == shown["spec"]
    assert capsys.readouterr().out == f"https://{HOST}/laboratory/cells?nw=abc123\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--view", "cells"],
        ["--view", f"https://{HOST}/laboratory/cells"],
        ["--view", f"https://{HOST}/laboratory/cells?nw=nwuserme"],
        ["--view", f"https://{HOST}/laboratory/cells/runs/a?nw=abc"],
        ["--view", f"https://{HOST}/laboratory/cells?nw=abc", "--project", "other"],
    ],
)
def test_refuses_what_is_no_saved_view(
    dashboard: ModuleType,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    assert dashboard.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --view: ")
    assert HOST not in line
    assert server.sent == []


def test_refuses_a_name_that_wandb_does_not_take(
    dashboard: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dashboard.main(["--name", "lr < 1", "--dry-run"]) == 2
    assert capsys.readouterr().err == (
        "error: --name=lr < 1: W&B takes no symbols such as < + $ in a name\n"
    )


SECRETIVE = f"Failed to verify credentials with https://{HOST}: key {KEY}"


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("error", [wandb.errors.AuthenticationError, RuntimeError, KeyError])
@pytest.mark.parametrize("where", ["login", "Api"])
def test_failures_of_wandb_are_one_line(
    dashboard: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    where: str,
) -> None:
    def fail(**_: Any) -> Any:
        sys.stderr.write(f"wandb: WARNING {SECRETIVE}\n")
        raise error(SECRETIVE)

    monkeypatch.setattr(wandb, where, fail)
    assert dashboard.main(list(PLACE)) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"error: W&B did not take the view ({error.__name__}): ")
    assert "laboratory/cells" in line
    assert HOST not in line
    assert KEY not in line
    assert printed.out == ""


def test_a_refused_view_is_one_line(
    dashboard: ModuleType,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = SimpleNamespace(execute_graphql=lambda *_, **__: {"upsertView": None})
    monkeypatch.setattr(server, "_service_api", answer)
    assert dashboard.main(list(PLACE)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: W&B did not take the view")


def test_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2.interface", None)
    with pytest.raises(SystemExit) as ended:
        _load()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'cnmc[dashboard]'" in line

"""Save a view of a W&B project that compares the runs of a study.

    python sweeps/dashboard.py --entity E --project cnmc            # save it, print its address
    python sweeps/dashboard.py --entity E --project cnmc --dry-run  # print it as JSON, offline
    python sweeps/dashboard.py --view 'https://.../E/cnmc?nw=abc'   # update a saved view

A view shows the runs of one protocol, the best F1 first. The list is not grouped, because that
would group every panel; the panels that compare experiments are grouped separately.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, Literal

import wandb
from pydantic import TypeAdapter

from cnmc.analysis.metrics import METRICS
from cnmc.config.groups import STAGES, LoggerConfig
from cnmc.errors import CnmcError
from cnmc.runs.folder import F1, F1_NOROT
from cnmc.tracking import keys

try:
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws
except ModuleNotFoundError:
    sys.stderr.write("error: the dashboard needs wandb-workspaces: pip install 'cnmc[dashboard]'\n")
    sys.exit(2)

Protocol = Literal["paper", "honest"]

NUM_RUNS = 500
"""Largest number of runs in a panel, instead of W&B's default of ten."""

NUM_BEST = 24
"""Number of runs in the chart of the best ones."""

FIGURES = ("figure2", "figure3", "figure4", "intervals", "selection", "roc", "persons")
"""Figures of the report that a study's run shows."""

_PROJECT = LoggerConfig(kind="wandb").project

_SAVED_VIEW = re.compile(
    r"https?://[^/]+/(?P<entity>[^/?]+)/(?P<project>[^/?]+)(?:/(?:workspace|table))?/?"
    r"\?(?:.*&)?nw=(?!nwuser)(?P<view>\w+)(?:[&#].*)?"
)

_TEXT = """\
The runs on the left have protocol **{protocol}**, the best F1 first; `best/checkpoint` names the
artifact with a run's best checkpoint. Lines and bars are means over the runs of an experiment,
with the standard deviation over its runs unless the title says otherwise. All metrics are fractions
of 1.

{cells} The eye beside a run hides it; show few runs to read *Subjects and cells*.
"""

_CELLS = {
    "paper": "The reported cells also chose the epoch, so every number is optimistic.",
    "honest": "`val/` and `best/` are of the subjects that chose the epoch, `test/` of the "
    "reported cells.",
}


def _by_epoch(title: str, *metrics: str, extremes: bool = False, **options: Any) -> wr.LinePlot:
    """Return lines over the epochs, one for each experiment and metric."""
    return wr.LinePlot(
        title=title,
        x=keys.EPOCH,
        title_x=keys.EPOCH,
        y=list(metrics),
        groupby="Group",
        groupby_aggfunc="median" if extremes else "mean",
        groupby_rangefunc="minmax" if extremes else "stddev",
        max_runs_to_show=NUM_RUNS,
        **options,
    )


def _bars(title: str, *metrics: str, by_experiment: bool = True) -> wr.BarPlot:
    """Return bars, one for each experiment (or run) and metric."""
    grouped: dict[str, Any] = {
        "groupby": "Group",
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }
    return wr.BarPlot(
        title=title,
        metrics=list(metrics),
        orientation="v",
        max_runs_to_show=NUM_RUNS,
        max_bars_to_show=NUM_RUNS,
        **(grouped if by_experiment else {}),
    )


def _chart(key: str, kind: str, title: str, *axes: str, **fields: str) -> wr.CustomChart:
    """Return the panel of a chart of ``wandb.plot``, whose columns are given by field."""
    labels = dict(zip(("x-axis-title", "y-axis-title"), axes, strict=False))
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name=kind,
        chart_fields=fields,
        chart_strings={"title": title, **labels},
    )


def _sections(protocol: Protocol) -> list[ws.Section]:
    reported = keys.test if protocol == "honest" else keys.best
    colors = ("#440154", "#21918c", "#fde725")
    spots = zip(colors, (0, 50, 100), strict=True)
    curve = "wandb/area-under-curve/v0"
    axes = [
        wr.ParallelCoordinatesPlotColumn(wr.Config("experiment")),
        *(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(reported(name))) for name in METRICS),
    ]
    panels: dict[str, list[Any]] = {
        "F1 by epoch": [
            _by_epoch("F1: mean and standard deviation", F1),
            _by_epoch("F1 without rotations: mean and standard deviation", F1_NOROT),
            _by_epoch("Validation loss: mean and standard deviation", "val/loss"),
            _by_epoch("F1: median, lowest and highest run", F1, extremes=True),
            _by_epoch("AUROC: mean and standard deviation", "val/auroc"),
            wr.MarkdownPanel(markdown=_TEXT.format(protocol=protocol, cells=_CELLS[protocol])),
        ],
        "Best checkpoints": [
            wr.ScatterPlot(
                title="Sensitivity against specificity, one point a run, coloured by F1",
                x=wr.SummaryMetric(reported("specificity")),
                y=wr.SummaryMetric(reported("sensitivity")),
                z=wr.SummaryMetric(reported("f1")),
                gradient=[wr.GradientPoint(color=color, offset=place) for color, place in spots],
                legend_template="${run:displayName}",
            ),
            wr.BarPlot(
                title=f"The {NUM_BEST} runs with the highest F1 at their best epoch",
                metrics=[keys.best("f1")],
                max_runs_to_show=NUM_RUNS,
                max_bars_to_show=NUM_BEST,
            ),
            wr.RunComparer(diff_only=True),
        ],
        "Comparison of experiments": [
            _bars("Reported F1: mean and standard deviation", reported("f1")),
            _bars(
                "F1 at the best epoch, with and without rotations",
                keys.best("f1"),
                keys.best("f1_norot"),
            ),
            _bars("Sensitivity and specificity", reported("sensitivity"), reported("specificity")),
            _bars(
                "Studies: mean F1 and the ends of its 95 % interval",
                *("f1/ci_low", "f1/mean", "f1/ci_high"),
                by_experiment=False,
            ),
            wr.ParallelCoordinatesPlot(title="Every run, by experiment", columns=axes),
            wr.WeavePanelSummaryTable(table_name=keys.METRICS_TABLE),
            wr.MediaBrowser(
                title="The report's figures of each study",
                media_keys=["figures/" + name for name in FIGURES],
                num_columns=2,
            ),
        ],
        "Subjects and cells": [
            wr.WeavePanelSummaryTable(table_name=keys.SUBJECTS),
            wr.WeavePanelSummaryTable(table_name=keys.WRONG_CELLS),
            _chart(
                keys.CONFUSION_MATRIX,
                "wandb/confusion_matrix/v1",
                "Confusion matrix",
                **{name: name for name in ("Actual", "Predicted", "nPredictions")},
            ),
            _chart(
                *(keys.ROC, curve, "ROC", "False positive rate", "True positive rate"),
                **{"x": "fpr", "y": "tpr", "class": "class"},
            ),
            _chart(
                *(keys.PRECISION_RECALL, curve, "Precision and recall", "Recall", "Precision"),
                **{"x": "recall", "y": "precision", "class": "class"},
            ),
        ],
        "Optimisation": [
            _by_epoch("Loss in training and validation", "train/loss", "val/loss"),
            _by_epoch("Learning rates by stage", *(f"lr/{stage}" for stage in STAGES), log_y=True),
        ],
    }
    return [
        ws.Section(name=name, is_open=name != "Optimisation", panels=found)
        for name, found in panels.items()
    ]


def build(entity: str, project: str, protocol: Protocol, name: str | None = None) -> ws.Workspace:
    """Return a view that is not saved yet.

    Args:
        entity: W&B user or team that owns the project.
        project: W&B project.
        protocol: Protocol of the runs in the view.
        name: Title of the view; None names the protocol.
    """
    reported = keys.test if protocol == "honest" else keys.best
    best = [keys.best(key) for key in ("f1", "checkpoint", "epoch", "f1_norot")]
    columns = list(dict.fromkeys([*best, *map(reported, METRICS)]))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name or f"C-NMC, protocol {protocol}",
        sections=_sections(protocol),
        settings=ws.WorkspaceSettings(x_axis=keys.EPOCH, max_runs=NUM_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(
                ws.Metric("JobType").isin([keys.TRAIN, keys.STUDY]), ws.Tags().isin([protocol])
            ),
            order=[ws.Ordering(ws.Summary(keys.best("f1")), ascending=False)],
            pinned_columns=[
                "run:displayName",
                *(f"summary:{column}" for column in columns),
                "tags:__ALL__",
            ],
        ),
    )


def save(workspace: ws.Workspace, view: str | None = None) -> str:
    """Save a view at W&B and return its address.

    Args:
        workspace: The view; an empty entity becomes the account's default.
        view: Address of a saved view to replace; None saves a new one.

    Raises:
        CnmcError: Not logged in, or W&B does not accept the view.
    """
    try:
        # W&B prints addresses on stderr.
        with redirect_stderr(io.StringIO()):
            if not wandb.login(prompt=False):
                raise CnmcError(
                    "not logged in to W&B: run wandb login or set WANDB_API_KEY, and leave "
                    "WANDB_MODE unset; --dry-run needs neither"
                )
            workspace.entity = workspace.entity or wandb.Api().default_entity or ""
            if not workspace.entity:
                raise CnmcError("--entity: the account has no default; give the user or team")
            if view is not None:
                saved = ws.Workspace.from_url(view)
                for name in ("name", "sections", "settings", "runset_settings"):
                    setattr(saved, name, getattr(workspace, name))
                workspace = saved
            workspace.save()  # type: ignore[no-untyped-call]
            return str(workspace.url)
    except CnmcError:
        raise
    except Exception as error:
        # The message contains the server's address.
        raise CnmcError(
            f"W&B did not accept the view of {workspace.entity}/{workspace.project} "
            f"({type(error).__name__}); check the network, the key and the name"
        ) from None


def _place(arguments: argparse.Namespace) -> tuple[str, str, str | None]:
    """Return entity, project, and the address of the view to replace.

    Raises:
        CnmcError: The address is not that of a saved view.
    """
    if arguments.view is None:
        entity = arguments.entity or os.environ.get("WANDB_ENTITY", "")
        return entity, arguments.project or _PROJECT, None
    found = _SAVED_VIEW.fullmatch(arguments.view)
    if found is None:
        raise CnmcError("--view: expected a saved view's address, https://.../ENTITY/PROJECT?nw=ID")
    # The library does not accept the longer address that a browser shows.
    entity, project = found["entity"], found["project"]
    return entity, project, f"https://wandb/{entity}/{project}?nw={found['view']}"


def main(command: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entity", help="W&B user or team (default: the account's)")
    parser.add_argument("--project", help=f"W&B project (default: {_PROJECT})")
    parser.add_argument("--protocol", choices=("paper", "honest"), default="paper")
    parser.add_argument("--name", help="title of the view")
    parser.add_argument("--view", metavar="URL", help="a saved view to replace")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON, offline")
    arguments = parser.parse_args(command)
    try:
        entity, project, view = _place(arguments)
        workspace = build(entity, project, arguments.protocol, name=arguments.name)
        if arguments.dry_run:
            print(TypeAdapter(ws.Workspace).dump_json(workspace, indent=2).decode())
        else:
            print(save(workspace, view=view))
    except CnmcError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

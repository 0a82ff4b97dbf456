"""A saved view of a W&B project: what the runs of a study show, side by side.

    python sweeps/dashboard.py --entity E --project cnmc            # save it, print its address
    python sweeps/dashboard.py --entity E --project cnmc --dry-run  # print it as JSON, offline
    python sweeps/dashboard.py --view 'https://.../E/cnmc?nw=abc'   # bring a saved one up to date

The runs are listed by ``best/f1`` with their checkpoints, and stay ungrouped: grouping the list
would group every panel, and the scatter plot would have one point an experiment. The panels that
compare experiments group by themselves. A view shows one protocol, because numbers of the two come
from other cells and are never averaged.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, Literal

import wandb

from cnmc.analysis.metrics import METRICS
from cnmc.config import STAGES, LoggerConfig
from cnmc.errors import CnmcError
from cnmc.runs.folder import F1, F1_NOROT
from cnmc.tracking import keys as names

try:
    import wandb_workspaces.reports.v2.interface as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.utils.validators import validate_no_emoji
except ModuleNotFoundError:
    sys.stderr.write("error: the dashboard needs wandb-workspaces: pip install 'cnmc[dashboard]'\n")
    sys.exit(2)

Protocol = Literal["paper", "honest"]
Spread = Literal["stddev", "minmax"]

EXPERIMENT = "Group"
"""W&B's name of what the runs of an experiment share."""

NUM_RUNS = 500
"""Runs that a panel shows at most. W&B's default of ten would hide most of a study."""

NUM_BEST = 24
"""Runs in the chart of the best: the seeds of the paper's study."""

_PROJECT = LoggerConfig(kind="wandb").project

_LOW_TO_HIGH = ("#440154", "#21918c", "#fde725")

_FEW = "Subjects and cells"
"""The section whose charts lay the runs over each other."""

_FIGURES = ("figure2", "figure3", "figure4", "intervals", "selection", "roc", "persons")
"""Those of the report that a study's run shows."""

_SAVED_VIEW = re.compile(
    r"https?://[^/]+/(?P<entity>[^/?]+)/(?P<project>[^/?]+)(?:/(?:workspace|table))?/?"
    r"\?(?:.*&)?nw=(?!nwuser)(?P<view>\w+)(?:[&#].*)?"
)

_READING = """\
The runs on the left are those of protocol **{protocol}**, the best F1 first; `{checkpoint}` names
the artifact that holds a run's best checkpoint. Lines and bars are means over the runs of an
experiment, and their spread is the standard deviation over its runs, unless a title says otherwise.

{cells} All metrics are fractions of 1. The eye beside a run hides it; *{few}* is read
best with few runs shown.
"""

_CELLS = {
    "paper": "The epoch was chosen on the cells that are reported, which flatters every number.",
    "honest": "`val/` and `best/` are of the subjects that chose the epoch, `test/` of the cells "
    "that are reported.",
}


def _by_epoch(
    title: str,
    metrics: Sequence[str],
    spread: Spread = "stddev",
    *,
    log: bool | None = None,
) -> wr.LinePlot:
    """Return lines over the epochs, one an experiment and metric, with their spread over runs."""
    return wr.LinePlot(
        title=title,
        x=names.EPOCH,
        title_x=names.EPOCH,
        y=list(metrics),
        log_y=log,
        groupby=EXPERIMENT,
        groupby_aggfunc="mean" if spread == "stddev" else "median",
        groupby_rangefunc=spread,
        max_runs_to_show=NUM_RUNS,
    )


def _by_experiment(title: str, metrics: Sequence[str]) -> wr.BarPlot:
    """Return bars, one an experiment and metric, with the standard deviation over runs."""
    return wr.BarPlot(
        title=title,
        metrics=list(metrics),
        orientation="v",
        groupby=EXPERIMENT,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=NUM_RUNS,
        max_bars_to_show=NUM_RUNS,
    )


def _chart(key: str, kind: str, fields: Sequence[str], **strings: str) -> wr.CustomChart:
    """Return the panel of a chart that ``wandb.plot`` made.

    Args:
        key: The name under which the runs logged the chart; its table lies beside it.
        kind: W&B's name of the chart.
        fields: ``<field of the chart>=<column of the table>``.
        strings: Title and labels, with ``_`` for ``-``.
    """
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name=kind,
        chart_fields=dict(field.split("=") for field in fields),
        chart_strings={name.replace("_", "-"): text for name, text in strings.items()},
    )


def _course(protocol: Protocol) -> ws.Section:
    reading = _READING.format(
        protocol=protocol,
        checkpoint=names.best("checkpoint"),
        cells=_CELLS[protocol],
        few=_FEW,
    )
    return ws.Section(
        name="F1 by epoch",
        is_open=True,
        panels=[
            _by_epoch("F1: mean and standard deviation", [F1]),
            _by_epoch("F1 without rotations: mean and standard deviation", [F1_NOROT]),
            _by_epoch("Validation loss: mean and standard deviation", ["val/loss"]),
            _by_epoch("F1: median, lowest and highest run", [F1], "minmax"),
            _by_epoch("AUROC: mean and standard deviation", ["val/auroc"]),
            wr.MarkdownPanel(markdown=reading),
        ],
    )


def _best(reported: Callable[[str], str]) -> ws.Section:
    low, middle, high = (
        wr.GradientPoint(color=color, offset=offset)
        for color, offset in zip(_LOW_TO_HIGH, (0, 50, 100), strict=True)
    )
    f1 = names.best("f1")
    return ws.Section(
        name="Best checkpoints",
        is_open=True,
        panels=[
            wr.ScatterPlot(
                title="Sensitivity against specificity, one point a run, coloured by F1",
                x=wr.SummaryMetric(reported("specificity")),
                y=wr.SummaryMetric(reported("sensitivity")),
                z=wr.SummaryMetric(reported("f1")),
                gradient=[low, middle, high],
                legend_template="${run:displayName}",
            ),
            wr.BarPlot(
                title=f"The {NUM_BEST} runs with the highest F1 at their best epoch",
                metrics=[f1],
                max_runs_to_show=NUM_RUNS,
                max_bars_to_show=NUM_BEST,
            ),
            wr.RunComparer(diff_only=True),
        ],
    )


def _comparison(reported: Callable[[str], str]) -> ws.Section:
    axes = [
        wr.ParallelCoordinatesPlotColumn(wr.Config("experiment")),
        *(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(reported(name))) for name in METRICS),
    ]
    of_studies = [f"f1/{name}" for name in ("ci_low", "mean", "ci_high")]
    return ws.Section(
        name="Comparison of experiments",
        is_open=True,
        panels=[
            _by_experiment("Reported F1: mean and standard deviation", [reported("f1")]),
            _by_experiment(
                "F1 at the best epoch, with and without rotations",
                [names.best("f1"), names.best("f1_norot")],
            ),
            _by_experiment(
                "Sensitivity and specificity", [reported("sensitivity"), reported("specificity")]
            ),
            wr.BarPlot(
                title="Studies: mean F1 and the ends of its 95 % interval",
                metrics=list(of_studies),
                orientation="v",
                max_runs_to_show=NUM_RUNS,
                max_bars_to_show=NUM_RUNS,
            ),
            wr.ParallelCoordinatesPlot(title="Every run, by experiment", columns=axes),
            wr.WeavePanelSummaryTable(table_name=names.METRICS_TABLE),
            wr.MediaBrowser(
                title="The report's figures of each study",
                media_keys=[names.figure(name) for name in _FIGURES],
                num_columns=2,
            ),
        ],
    )


def _subjects_and_cells() -> ws.Section:
    curve = "wandb/area-under-curve/v0"
    return ws.Section(
        name=_FEW,
        is_open=True,
        panels=[
            wr.WeavePanelSummaryTable(table_name=names.SUBJECTS),
            wr.WeavePanelSummaryTable(table_name=names.WRONG_CELLS),
            _chart(
                names.CONFUSION_MATRIX,
                "wandb/confusion_matrix/v1",
                ["Actual=Actual", "Predicted=Predicted", "nPredictions=nPredictions"],
                title="Confusion matrix",
            ),
            _chart(
                names.ROC,
                curve,
                ["x=fpr", "y=tpr", "class=class"],
                title="ROC",
                x_axis_title="False positive rate",
                y_axis_title="True positive rate",
            ),
            _chart(
                names.PRECISION_RECALL,
                curve,
                ["x=recall", "y=precision", "class=class"],
                title="Precision and recall",
                x_axis_title="Recall",
                y_axis_title="Precision",
            ),
        ],
    )


def _optimisation() -> ws.Section:
    return ws.Section(
        name="Optimisation",
        panels=[
            _by_epoch("Loss in training and validation", ["train/loss", "val/loss"]),
            _by_epoch(
                "Learning rates by stage",
                [f"lr/{stage}" for stage in STAGES],
                log=True,
            ),
        ],
    )


def _runs(protocol: Protocol, reported: Callable[[str], str]) -> ws.RunsetSettings:
    """Return which runs are listed, in which order and with which columns."""
    summary = [
        names.best("f1"),
        names.best("checkpoint"),
        names.best("epoch"),
        names.best("f1_norot"),
        *(reported(name) for name in METRICS if reported(name) != names.best("f1")),
    ]
    return ws.RunsetSettings(
        filters=ws.And(
            ws.Metric("JobType").isin([names.TRAIN, names.STUDY]), ws.Tags().isin([protocol])
        ),
        order=[ws.Ordering(ws.Summary(names.best("f1")), ascending=False)],
        pinned_columns=[
            "run:displayName",
            *(f"summary:{name}" for name in summary),
            "tags:__ALL__",
        ],
    )


def build(entity: str, project: str, protocol: Protocol, name: str | None = None) -> ws.Workspace:
    """Return the view, which is neither looked up nor saved.

    Args:
        entity: W&B user or team that owns the project.
        project: W&B project.
        protocol: The one whose runs are shown.
        name: Title of the view; null names the protocol.

    Raises:
        CnmcError: If W&B takes no such name.
    """
    title = name or f"C-NMC, protocol {protocol}"
    try:
        validate_no_emoji(title)
    except ValueError:
        raise CnmcError(f"--name={name}: W&B takes no symbols such as < + $ in a name") from None
    reported = names.test if protocol == "honest" else names.best
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=title,
        sections=[
            _course(protocol),
            _best(reported),
            _comparison(reported),
            _subjects_and_cells(),
            _optimisation(),
        ],
        settings=ws.WorkspaceSettings(x_axis=names.EPOCH, max_runs=NUM_RUNS),
        runset_settings=_runs(protocol, reported),
    )
    # Random by default, and two specifications of the same view would differ.
    for number, section in enumerate(workspace.sections, start=1):
        for position, panel in enumerate(section.panels, start=1):
            if isinstance(panel, wr.Panel):
                panel._id = f"cnmc-{number}-{position}"
    return workspace


def specification(workspace: ws.Workspace) -> dict[str, Any]:
    """Return what saving a view would send, as plain values."""
    view = workspace._to_model()
    return {
        "entity": view.entity or None,
        "project": view.project,
        "displayName": view.display_name,
        "spec": view.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def save(workspace: ws.Workspace, view: str | None = None) -> str:
    """Save a view at W&B and return its address.

    Args:
        workspace: What :func:`build` returned; an empty entity becomes the account's default.
        view: Address of a saved view that it takes the place of; null saves another.

    Raises:
        CnmcError: If nobody is logged in, or W&B does not take the view.
    """
    try:
        # W&B tells on stderr where it connects to, and more than once that it could not.
        with redirect_stderr(io.StringIO()):
            if not wandb.login(prompt=False):
                raise CnmcError(
                    "not logged in to W&B: run wandb login or set WANDB_API_KEY, and leave "
                    "WANDB_MODE unset; --dry-run needs none of it"
                )
            workspace.entity = workspace.entity or wandb.Api().default_entity or ""
            if not workspace.entity:
                raise CnmcError("--entity: the account has no default; name the user or team")
            if view is not None:
                saved = ws.Workspace.from_url(view)
                workspace._internal_name, workspace._internal_id = (
                    saved._internal_name,
                    saved._internal_id,
                )
            workspace.save()  # type: ignore[no-untyped-call]
            return str(workspace.url)
    except CnmcError:
        raise
    except Exception as error:
        # The library raises whatever its transport does, with the server's name in the message.
        place = "/".join(part for part in (workspace.entity, workspace.project) if part)
        raise CnmcError(
            f"W&B did not take the view ({type(error).__name__}): is the network up, the key valid "
            f"and {place} yours to write to?"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entity", help="W&B user or team; the account's default where left out")
    parser.add_argument("--project", help=f"W&B project (default: {_PROJECT})")
    parser.add_argument(
        "--protocol", choices=("paper", "honest"), default="paper", help="whose runs are shown"
    )
    parser.add_argument("--name", help="title of the view")
    parser.add_argument("--view", metavar="URL", help="a saved view to bring up to date")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the specification as JSON, without a network"
    )
    return parser


def _place(arguments: argparse.Namespace) -> tuple[str, str, str | None]:
    """Return entity and project, and the address of the view to bring up to date if there is one.

    Raises:
        CnmcError: If the address is none of a saved view, or given beside what it has in it.
    """
    if arguments.view is None:
        entity = arguments.entity or os.environ.get("WANDB_ENTITY", "")
        return entity, arguments.project or _PROJECT, None
    if arguments.entity or arguments.project:
        raise CnmcError("--view: has the entity and the project in it; leave the others out")
    found = _SAVED_VIEW.fullmatch(arguments.view)
    if found is None:
        raise CnmcError("--view: expected a saved view's address, https://.../ENTITY/PROJECT?nw=ID")
    # The library does not read the address that a browser shows, which has the page in its path.
    entity, project = found["entity"], found["project"]
    return entity, project, f"https://wandb/{entity}/{project}?nw={found['view']}"


def main(command: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 2 where a line on stderr says why."""
    arguments = _parser().parse_args(command)
    try:
        entity, project, view = _place(arguments)
        workspace = build(entity, project, arguments.protocol, name=arguments.name)
        if arguments.dry_run:
            print(json.dumps(specification(workspace), indent=2))
        else:
            print(save(workspace, view=view))
    except CnmcError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

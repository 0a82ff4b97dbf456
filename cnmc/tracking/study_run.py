"""The W&B run of a whole study, because W&B's table of runs shows no spread."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wandb
from PIL import Image

from cnmc.analysis.metrics import METRICS
from cnmc.analysis.results import Group, run_table
from cnmc.analysis.statistics import mean_interval
from cnmc.config import LoggerConfig
from cnmc.runs.identity import without_folders
from cnmc.tracking import keys, wandb_run
from cnmc.tracking.loggers import Figures, StudyFigure

STATISTICS = ("mean", "std", "min", "max", "ci_low", "ci_high")
"""Statistics of a metric over runs, as fractions of 1: the population's standard deviation (ddof 0)
and the 95 % interval of the mean over other seeds on the same cells."""


def over_runs(group: Group) -> pd.DataFrame:
    """Return one row a metric at the best epochs: metric, n and :data:`STATISTICS`.

    Beside :data:`cnmc.analysis.metrics.METRICS` there is ``f1_norot``, without rotations.
    """
    table = run_table([group])
    views = [part for _, part in table.groupby("view", sort=False)]
    values = {name: views[0][name].to_numpy(dtype=float) for name in METRICS}
    values["f1_norot"] = views[-1]["f1"].to_numpy(dtype=float)
    rows = []
    for metric, found in values.items():
        numbers = found.mean(), found.std(), found.min(), found.max(), *mean_interval(found)
        row = dict(zip(STATISTICS, numbers, strict=True))
        rows.append({"metric": metric, "n": len(found), **row})
    return pd.DataFrame(rows)


def log_group(
    options: LoggerConfig, group: Group, root: Path, figures: Figures
) -> wandb.Run | None:
    """Log the runs of a group as one W&B run; return None if W&B is disabled.

    Args:
        options: Project, entity and mode.
        group: The runs.
        root: Folder of the run folders; W&B's files are written to ``wandb/`` in it.
        figures: Returns the figures of the group.
    """
    # The id comes from the run that started first, so that it stays the same when runs are added.
    first = min(group.runs, key=lambda run: (run.info.started, run.info.seed))
    shared = {key: value for key, value in first.config.items() if key not in ("seed", "run")}
    run = wandb_run.start(
        options,
        root,
        id=f"{keys.STUDY}-{first.info.run_id}",
        name=f"{group.label} ({len(group.runs)} runs)",
        group=group.experiment,
        job_type=keys.STUDY,
        tags=wandb_run.tags(first.info, first.config),
        notes=wandb_run.experiment_notes(group.experiment),
        config={
            **without_folders(shared),
            "seeds": group.seeds,
            keys.ORIGIN: first.info.identity(),
        },
    )
    if run is None:
        return None
    try:
        with wandb_run.staged_below(root):
            _log(run, over_runs(group), figures(group, root, options.num_images > 0))
    except BaseException:
        wandb_run.finish(run, exit_code=1)
        raise
    wandb_run.finish(run, exit_code=0)
    return run


def _log(run: wandb.Run, metrics: pd.DataFrame, figures: Sequence[StudyFigure]) -> None:
    summary: dict[str, float] = {"n": int(metrics["n"].iloc[0])}
    for row in metrics.to_dict(orient="records"):
        defined = {name: row[name] for name in STATISTICS if not np.isnan(row[name])}
        summary |= {f"{row['metric']}/{name}": value for name, value in defined.items()}
    run.summary.update(summary)
    charts: dict[str, Any] = {keys.METRICS_TABLE: wandb_run.table(metrics)}
    for figure in figures:
        picture = Image.open(io.BytesIO(figure.png))
        charts[keys.figure(figure.name)] = wandb.Image(picture, caption=figure.title)
    run.log(charts)

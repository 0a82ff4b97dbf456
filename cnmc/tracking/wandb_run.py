"""A run at Weights & Biases: online where that is possible, else in files to be sent later."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers import WandbLogger

from cnmc.config import CONFIG_DIR, LoggerConfig
from cnmc.data.images import Pixels
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import without_folders
from cnmc.tracking import agent
from cnmc.tracking import keys as names
from cnmc.tracking.run_results import RunResults, best_summary

INIT_SECONDS = 30.0
"""How long a run waits for W&B before it is logged offline."""

FINISH_SECONDS = 600.0
"""How long the end of a run waits for what is still to be sent; the rest stays in its files."""

NAME_LENGTH, TAG_LENGTH = 128, 64
"""W&B takes no longer names and tags; searches name many keys."""

_CLASSES = ["HEM", "ALL"]


def wandb_mode(mode: str | None) -> str:
    """Return the mode of W&B: the one asked for, else online when logged in, else offline.

    W&B itself would ask for a key on a terminal and fail without one; training does neither.
    """
    mode = mode or os.environ.get("WANDB_MODE")
    if mode:
        return {"dryrun": "offline"}.get(mode, mode)
    if wandb.run is not None:
        return "offline" if wandb.run.offline else "online"
    # What wandb disabled and wandb offline have set.
    settings = _hush().settings
    if settings.mode in ("disabled", "offline"):
        return str(settings.mode)
    return "online" if _is_logged_in() else "offline"


@cache
def _is_logged_in() -> bool:
    """Ask once a process, since it takes seconds to find that there is no network."""
    try:
        return wandb.login(prompt=False)
    except Exception as error:
        kind = type(error).__name__
        sys.stderr.write(f"warning: W&B took no login ({kind}): logging offline\n")
        return False


def start(
    options: LoggerConfig, folder: Path, *, name: str, tags: Sequence[str], **identity: Any
) -> wandb.Run | None:
    """Begin a run at W&B, or go on with it; None where W&B is disabled.

    Args:
        options: Project, entity and mode; offline takes the place of online where that fails.
        folder: W&B's files come into ``wandb/`` below it.
        name: What people call it; shortened where W&B takes no such name.
        tags: Its tags; shortened too.
        identity: id, group, job_type, notes and config, as ``wandb.init`` takes them.
    """
    _hush()
    settings = wandb.Settings(
        silent=True,
        init_timeout=INIT_SECONDS,
        # Names of machines, also those of a cluster's jobs, addresses of repositories and of people
        # are nobody's business but the user's.
        host="-",
        x_disable_meta=True,
        disable_git=True,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )

    def init(mode: Any) -> wandb.Run:
        return wandb.init(
            project=options.project,
            entity=options.entity,
            dir=folder,
            mode=mode,
            resume="allow",
            # Runs of one process stay apart, also from one that a notebook has open.
            reinit="create_new",
            settings=settings,
            name=name[:NAME_LENGTH],
            tags=[tag[:TAG_LENGTH] for tag in tags],
            **identity,
        )

    mode = wandb_mode(options.mode)
    if mode == "disabled":
        return None
    try:
        return init(mode)
    except Exception as error:
        if mode != "online":
            raise
        kind = type(error).__name__
        sys.stderr.write(f"warning: W&B cannot be reached ({kind}): this run is logged offline\n")
        # The failed attempt holds the id.
        wandb.teardown()
        _hush()
        return init("offline")


def _hush() -> Any:
    """Set W&B up: what there is to say is said by the program, once and without addresses."""
    return wandb.setup(wandb.Settings(silent=True))


def experiment_notes(experiment: str) -> str | None:
    """Return what stands at the head of an experiment's file; None where there is none."""
    folders = [str(CONFIG_DIR)]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [source.path for source in sources if source.schema == "file"]
    for folder in folders:
        path = Path(folder, "experiment", f"{experiment}.yaml")
        if path.is_file():
            lines = path.read_text().splitlines()
            head = [line[1:] for line in lines[: _first_without_comment(lines)]]
            words = [line.removeprefix(" ").rstrip() for line in head if "@package" not in line]
            return "\n".join(words).strip() or None
    return None


def _first_without_comment(lines: list[str]) -> int:
    return next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))


class RunLogger(WandbLogger):
    """Logs epochs under their own count, and keeps the summary of the best one up to date.

    Args:
        run: The run at W&B.
        info: The run's progress; the recorder, which logs an epoch, has filled it in before.
    """

    def __init__(self, run: wandb.Run, info: RunInfo) -> None:
        super().__init__(experiment=run)
        self.run = run
        self.info = info
        run.define_metric(names.EPOCH)
        for pattern in ("train/*", "val/*", "lr/*", "seconds"):
            run.define_metric(pattern, step_metric=names.EPOCH)
        run.define_metric("trainer/global_step")
        run.define_metric(names.LOSS_STEP, step_metric="trainer/global_step")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch of the recorder, or what Lightning logs within one."""
        if names.LOSS_STEP in metrics:
            # Lightning counts epochs from 0 while they last.
            metrics = {key: value for key, value in metrics.items() if key != names.EPOCH}
        super().log_metrics(metrics, step)
        if metrics.get(names.EPOCH) and metrics[names.EPOCH] == self.info.best_epoch:
            self.run.summary.update(best_summary(dict(metrics)))


def tags(info: RunInfo, config: Mapping[str, Any]) -> list[str]:
    """Return the tags of a run: protocol and network."""
    return [str(info.protocol), str(config["model"]["name"])]


def start_run(
    options: LoggerConfig, folder: RunFolder, info: RunInfo, config: Mapping[str, Any]
) -> wandb.Run | None:
    """Begin the W&B run of a run folder, or go on with it; None where W&B is disabled."""
    origin = {
        **info.identity(),
        "setting": info.setting,
        "weights_sha256": info.weights_sha256,
        "versions": info.versions,
        "hardware": info.hardware,
    }
    return start(
        options,
        folder.path,
        id=agent.run_id() or info.run_id,
        name=info.label,
        group=info.experiment,
        job_type=names.TRAIN,
        tags=tags(info, config),
        notes=experiment_notes(info.experiment),
        config={**without_folders(config), names.ORIGIN: origin},
    )


def log_results(
    run: wandb.Run,
    results: RunResults,
    *,
    num_images: int,
    pixels: Callable[[str], Pixels] | None,
) -> None:
    """Log tables, charts and images of what a finished run shows.

    Args:
        run: The run at W&B.
        results: What to log.
        num_images: How many of the cells that are called wrongly are shown.
        pixels: Returns the image of a cell by its id; None where the images are not at hand.
    """
    run.summary.update(results.summary)
    both: Any = [[1 - p, p] for p in results.probabilities.tolist()]
    truth = results.labels.tolist()
    only_all: Any = [1]
    called = [int(p > 0.5) for p in results.probabilities]
    charts: dict[str, Any] = {
        names.CONFUSION_MATRIX: wandb.plot.confusion_matrix(
            y_true=truth, preds=called, class_names=_CLASSES
        ),
        names.SUBJECTS: table(results.subjects),
    }
    if len(set(truth)) == len(_CLASSES):
        roc, precision_recall = wandb.plot.roc_curve, wandb.plot.pr_curve
        charts[names.ROC] = roc(truth, both, _CLASSES, only_all)
        charts[names.PRECISION_RECALL] = precision_recall(truth, both, _CLASSES, only_all)
    wrong = results.wrong.head(num_images)
    if len(wrong):
        charts[names.WRONG_CELLS] = table(wrong, pixels)
    run.log(charts)


def table(frame: pd.DataFrame, pixels: Callable[[str], Pixels] | None = None) -> wandb.Table:
    """Return a table for W&B.

    Args:
        frame: The rows.
        pixels: Returns the image of a cell by its id, for a last column; None for none.
    """
    columns: list[Any] = list(frame.columns)
    rows: list[Any] = [
        list(row) for row in zip(*(frame[name].tolist() for name in columns), strict=True)
    ]
    if pixels is not None:
        columns.append("image")
        for row, cell in zip(rows, frame["cell_id"], strict=True):
            row.append(wandb.Image(pixels(cell)))
    return wandb.Table(columns=columns, data=rows)


def log_checkpoints(
    run: wandb.Run,
    folder: RunFolder,
    info: RunInfo,
    summary: Mapping[str, float],
    *,
    last: bool,
) -> None:
    """Log the best checkpoint of a finished run as an artifact, and the last one if asked.

    The files stay where they are: W&B reads them when it sends them.
    """
    seed = names.seed_alias(info.seed)
    wanted = [(folder.best_checkpoint, [names.BEST, seed])]
    if last:
        wanted.append((folder.last_checkpoint, [names.LAST]))
    for path, aliases in wanted:
        epoch = info.best_epoch if names.BEST in aliases else info.epochs_done
        artifact = wandb.Artifact(
            names.artifact_name(info.run_id),
            type=names.MODEL,
            description=f"{info.label}, epoch {epoch}",
            metadata={
                **info.identity(),
                "epoch": epoch,
                "summary": dict(summary) if names.BEST in aliases else {},
            },
        )
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=aliases)
    name = f"{names.artifact_name(info.run_id)}:{names.BEST}"
    run.summary[names.best("checkpoint")] = name


@contextmanager
def staged_below(folder: Path) -> Iterator[None]:
    """Keep W&B's copies of what it is to send beside its other files instead of in the home."""
    key = "WANDB_DATA_DIR"
    given = os.environ.get(key)
    os.environ.setdefault(key, str(folder / "wandb" / "data"))
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(key, None)


def finish(run: wandb.Run, exit_code: int) -> bool:
    """End a run, and wait until what it logged is sent or written; True where it was."""
    try:
        run.finish(exit_code=exit_code)
        return True
    except Exception:
        # What is left of a service that died would be in the way of the next run.
        with suppress(Exception):
            wandb.teardown()
        raise


def whereabouts(run: wandb.Run, *, sent: bool) -> str:
    """Say where a run that is over can be seen, or how it can be sent.

    Args:
        run: The run.
        sent: Whether all of it reached W&B; offline runs never did.
    """
    folder = Path(run.dir).parent
    if run.offline:
        return f"W&B: logged offline; wandb sync {folder} sends it"
    if not sent:
        return f"W&B: not all of it was sent; wandb sync --include-online {folder} sends it"
    return f"W&B: {run.url}"

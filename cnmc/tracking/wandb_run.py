"""A W&B run for a run folder: online if possible, otherwise in files to be sent later."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning.loggers import WandbLogger

from cnmc.config import CONFIG_DIR, LoggerConfig
from cnmc.runs import sweep_agent
from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.runs.identity import without_folders
from cnmc.tracking import keys
from cnmc.tracking.guard import Guard, GuardedLogger
from cnmc.tracking.loggers import Pixels, Tracker
from cnmc.tracking.run_results import RunResults, best_summary, run_results

INIT_SECONDS = 30.0
"""Seconds that a run waits for W&B before it is logged offline."""

FINISH_SECONDS = 600.0
"""Seconds that the end of a run waits for the upload; the rest stays in W&B's files."""

NAME_LENGTH, TAG_LENGTH = 128, 64
"""W&B's limits."""

_CLASSES = ["HEM", "ALL"]


def wandb_mode(mode: str | None) -> str:
    """Return the mode of W&B: the given one, else online if logged in, else offline."""
    mode = mode or os.environ.get("WANDB_MODE")
    if mode:
        return {"dryrun": "offline"}.get(mode, mode)
    if wandb.run is not None:
        return "offline" if wandb.run.offline else "online"
    # Set by the commands wandb disabled and wandb offline.
    settings = _silent_setup().settings
    if settings.mode in ("disabled", "offline"):
        return str(settings.mode)
    return "online" if _is_logged_in() else "offline"


@cache
def _is_logged_in() -> bool:
    """Ask once a process, because it takes seconds without a network."""
    try:
        return wandb.login(prompt=False)
    except Exception as error:
        kind = type(error).__name__
        sys.stderr.write(f"warning: the login to W&B failed ({kind}): logging offline\n")
        return False


def _silent_setup() -> Any:
    """Set W&B up without its own messages, which contain addresses."""
    return wandb.setup(wandb.Settings(silent=True))


def start(
    options: LoggerConfig, folder: Path, *, name: str, tags: Sequence[str], **identity: Any
) -> wandb.Run | None:
    """Start or resume a W&B run; return None if W&B is disabled.

    Args:
        options: Project, entity and mode. If online fails, the run is logged offline.
        folder: W&B's files are written to ``wandb/`` in it.
        name: Its name, cut to W&B's limit.
        tags: Its tags, cut to W&B's limit.
        identity: id, group, job_type, notes and config of ``wandb.init``.
    """
    mode = wandb_mode(options.mode)
    if mode == "disabled":
        return None
    settings = wandb.Settings(
        silent=True,
        init_timeout=INIT_SECONDS,
        # Names of machines, repositories and people stay private.
        host="-",
        x_disable_meta=True,
        disable_git=True,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )

    def init(mode: Any) -> wandb.Run:
        _silent_setup()
        return wandb.init(
            project=options.project,
            entity=options.entity,
            dir=folder,
            mode=mode,
            resume="allow",
            # Keeps the runs of one process apart, also from one that a notebook has open.
            reinit="create_new",
            settings=settings,
            name=name[:NAME_LENGTH],
            tags=[tag[:TAG_LENGTH] for tag in tags],
            **identity,
        )

    try:
        return init(mode)
    except Exception as error:
        if mode != "online":
            raise
        kind = type(error).__name__
        sys.stderr.write(f"warning: W&B cannot be reached ({kind}): this run is logged offline\n")
        # The failed attempt holds the id.
        wandb.teardown()
        return init("offline")


def experiment_notes(experiment: str) -> str | None:
    """Return the comment at the head of an experiment's file; None if there is none."""
    folders = [str(CONFIG_DIR)]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [source.path for source in sources if source.schema == "file"]
    for folder in folders:
        path = Path(folder, "experiment", f"{experiment}.yaml")
        if path.is_file():
            words = []
            for line in path.read_text().splitlines():
                if not line.startswith("#"):
                    break
                if "@package" not in line:
                    words.append(line[1:].removeprefix(" ").rstrip())
            return "\n".join(words).strip() or None
    return None


class RunLogger(WandbLogger):
    """Logs epochs by their own count, and keeps the summary of the best epoch up to date.

    Args:
        run: The W&B run.
        info: Progress of the run, which the recorder updates before it logs an epoch.
    """

    def __init__(self, run: wandb.Run, info: RunInfo) -> None:
        super().__init__(experiment=run)
        self.run = run
        self.info = info
        run.define_metric(keys.EPOCH)
        for pattern in ("train/*", "val/*", "lr/*", "seconds"):
            run.define_metric(pattern, step_metric=keys.EPOCH)
        run.define_metric("trainer/global_step")
        run.define_metric(keys.LOSS_STEP, step_metric="trainer/global_step")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log an epoch of the recorder, or a step of Lightning."""
        if keys.LOSS_STEP in metrics:
            # Lightning's epoch counts from 0 during the epoch.
            metrics = {key: value for key, value in metrics.items() if key != keys.EPOCH}
        super().log_metrics(metrics, step)
        if metrics.get(keys.EPOCH) and metrics[keys.EPOCH] == self.info.best_epoch:
            self.run.summary.update(best_summary(dict(metrics)))


def tags(info: RunInfo, config: Mapping[str, Any]) -> list[str]:
    """Return the tags of a run: protocol and network."""
    return [str(info.protocol), str(config["model"]["name"])]


@contextmanager
def tracked_at_wandb(
    options: LoggerConfig,
    guard: Guard,
    *,
    folder: RunFolder,
    info: RunInfo,
    config: Mapping[str, Any],
    quiet: bool,
) -> Iterator[Tracker]:
    """Yield the W&B logger of a run, and finish the W&B run at the end.

    See :func:`cnmc.tracking.loggers.tracked`.
    """
    run = guard(lambda: _start_run(options, folder, info, config))
    if run is None:
        yield Tracker([])
        return
    concluded = False

    def conclude(pixels: Pixels | None) -> None:
        nonlocal concluded
        with staged_below(folder.path):
            results = guard(lambda: run_results(folder))
            if results is None:
                return
            guard(lambda: _log_results(run, results, options.num_images, pixels))
            if options.log_model:
                guard(lambda: log_checkpoints(run, folder, info, results.summary, options.log_last))
        concluded = True

    tracker = Tracker([], conclude)
    try:
        logger = guard(lambda: RunLogger(run, info))
        tracker.loggers = [GuardedLogger(logger, guard)] if logger else []
        yield tracker
    finally:
        # A failure after the training is not a failure of the run.
        exit_code = 0 if info.status == "finished" else 1
        sent = guard(lambda: finish(run, exit_code)) is not None
        tracker.complete = concluded and not guard.failed
        if not quiet:
            guard(lambda: print(_address(run, sent)))


def _start_run(
    options: LoggerConfig, folder: RunFolder, info: RunInfo, config: Mapping[str, Any]
) -> wandb.Run | None:
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
        id=sweep_agent.run_id() or info.run_id,
        name=info.label,
        group=info.experiment,
        job_type=keys.TRAIN,
        tags=tags(info, config),
        notes=experiment_notes(info.experiment),
        config={**without_folders(config), keys.ORIGIN: origin},
    )


def _log_results(
    run: wandb.Run, results: RunResults, num_images: int, pixels: Pixels | None
) -> None:
    """Log summary, tables, charts and images of a finished run."""
    run.summary.update(results.summary)
    both: Any = [[1 - p, p] for p in results.probabilities.tolist()]
    labels = results.labels.tolist()
    only_all: Any = [1]
    called = [int(p > 0.5) for p in results.probabilities]
    charts: dict[str, Any] = {
        keys.CONFUSION_MATRIX: wandb.plot.confusion_matrix(
            y_true=labels, preds=called, class_names=_CLASSES
        ),
        keys.SUBJECTS: table(results.subjects),
    }
    if len(set(labels)) == len(_CLASSES):
        roc, precision_recall = wandb.plot.roc_curve, wandb.plot.pr_curve
        charts[keys.ROC] = roc(labels, both, _CLASSES, only_all)
        charts[keys.PRECISION_RECALL] = precision_recall(labels, both, _CLASSES, only_all)
    wrong = results.wrong.head(num_images)
    if len(wrong):
        charts[keys.WRONG_CELLS] = table(wrong, pixels)
    run.log(charts)


def table(frame: pd.DataFrame, pixels: Pixels | None = None) -> wandb.Table:
    """Return a W&B table.

    Args:
        frame: The rows.
        pixels: Returns the image of a cell by its id, for a last column ``image``.
    """
    columns: list[Any] = list(frame.columns)
    lists = (frame[name].tolist() for name in columns)
    rows: list[Any] = [list(row) for row in zip(*lists, strict=True)]
    if pixels is not None:
        columns.append("image")
        for row, cell in zip(rows, frame["cell_id"], strict=True):
            row.append(wandb.Image(pixels(cell)))
    return wandb.Table(columns=columns, data=rows)


def log_checkpoints(
    run: wandb.Run, folder: RunFolder, info: RunInfo, summary: Mapping[str, float], last: bool
) -> None:
    """Log the best checkpoint of a finished run as an artifact, and the last one if wanted."""
    wanted = [(folder.best_checkpoint, info.best_epoch, [keys.BEST, keys.seed_alias(info.seed)])]
    if last:
        wanted.append((folder.last_checkpoint, info.epochs_done, [keys.LAST]))
    for path, epoch, aliases in wanted:
        artifact = wandb.Artifact(
            keys.artifact_name(info.run_id),
            type=keys.MODEL,
            description=f"{info.label}, epoch {epoch}",
            metadata={
                **info.identity(),
                "epoch": epoch,
                "summary": dict(summary) if keys.BEST in aliases else {},
            },
        )
        # The file is not copied: W&B reads it from the run folder.
        artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=aliases)
    run.summary[keys.best("checkpoint")] = f"{keys.artifact_name(info.run_id)}:{keys.BEST}"


@contextmanager
def staged_below(folder: Path) -> Iterator[None]:
    """Keep files that W&B has yet to send in the folder instead of the user's home."""
    key = "WANDB_DATA_DIR"
    given = os.environ.get(key)
    os.environ.setdefault(key, str(folder / "wandb" / "data"))
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(key, None)


def finish(run: wandb.Run, exit_code: int) -> bool:
    """End a run, and wait until everything is sent or written; return True."""
    try:
        run.finish(exit_code=exit_code)
        return True
    except Exception:
        # The remains of a failed service would disturb the next run.
        with suppress(Exception):
            wandb.teardown()
        raise


def _address(run: wandb.Run, sent: bool) -> str:
    """Return a line with the address of a run, or with the command that sends it."""
    folder = Path(run.dir).parent
    if run.offline:
        return f"W&B: logged offline; wandb sync {folder} sends it"
    if not sent:
        return f"W&B: not everything was sent; wandb sync --include-online {folder} sends the rest"
    return f"W&B: {run.url}"

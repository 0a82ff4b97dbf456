"""Loggers beside the run folder's own files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

from cnmc.config import LoggerConfig
from cnmc.runs import RunFolder, RunInfo


def wandb_mode(mode: str | None) -> str:
    """Return the mode of W&B: the one asked for, else online when logged in, else offline.

    W&B itself would ask for a key on a terminal and fail without one; training does neither.
    """
    mode = mode or os.environ.get("WANDB_MODE")
    if mode:
        return mode
    import wandb  # noqa: PLC0415 - takes a second, and only this logger needs it

    try:
        return "online" if wandb.login(prompt=False) else "offline"
    except wandb.Error:
        # A key, but no way to the server: offline runs can be sent later.
        return "offline"


def _steps(folder: RunFolder) -> str:
    """Return a folder for the steps; a resumed run has a second one, or it would lose the first."""
    taken = len(list(folder.path.glob("steps*")))
    return f"steps-{taken + 1}" if taken else "steps"


@contextmanager
def tracked(
    options: LoggerConfig,
    *,
    folder: RunFolder,
    info: RunInfo,
    config: Mapping[str, Any],
    quiet: bool = False,
) -> Iterator[list[Logger]]:
    """Yield the loggers of a run, and close them however the run ends.

    Args:
        options: Which logger, and where to.
        folder: The run folder; loggers keep their files below it.
        info: Identity of the run. Its id is that of the W&B run, so that a resumed run goes on
            in the same one.
        config: The resolved configuration.
        quiet: Print nothing, as one of many runs.
    """
    if options.kind != "wandb":
        yield (
            [CSVLogger(folder.path, name="", version=_steps(folder))]
            if options.kind == "csv"
            else []
        )
        return
    import wandb  # noqa: PLC0415 - takes a second, and only this logger needs it

    mode = wandb_mode(options.mode)
    logger = WandbLogger(
        project=options.project,
        entity=options.entity,
        name=f"{info.experiment}/{info.name}",
        id=info.run_id,
        group=info.experiment,
        save_dir=folder.path,
        mode=mode,
        resume="allow",
        config=dict(config),
        settings=wandb.Settings(silent=quiet),
    )
    try:
        yield [logger]
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()
    if mode == "offline" and not quiet:
        print(f"W&B files lie in {folder.path / 'wandb'}; wandb sync sends them")

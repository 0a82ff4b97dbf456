"""Starting and ending W&B runs: online if possible, otherwise in files to be sent later."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import wandb
from hydra.core.hydra_config import HydraConfig

from cnmc.config import CONFIG_DIR, LoggerConfig
from cnmc.runs.folder import RunInfo
from cnmc.runs.identity import without_folders
from cnmc.tracking import keys


def _silent_setup() -> Any:
    """Set W&B up without its own messages, which contain addresses."""
    return wandb.setup(wandb.Settings(silent=True))


def wandb_mode(mode: str | None) -> str:
    """Return the mode of W&B: the given one, else online if logged in, else offline."""
    if mode := mode or os.environ.get("WANDB_MODE"):
        return mode
    # The commands wandb disabled and wandb offline change the settings.
    mode = str(_silent_setup().settings.mode)
    return "offline" if mode == "online" and not _is_logged_in() else mode


@cache
def _is_logged_in() -> bool:
    """Ask once a process, because it takes seconds without a network."""
    try:
        return wandb.login(prompt=False)
    except Exception as error:
        kind = type(error).__name__
        sys.stderr.write(f"warning: the login to W&B failed ({kind}): logging offline\n")
        return False


def start(
    options: LoggerConfig,
    folder: Path,
    info: RunInfo,
    config: Mapping[str, Any],
    *,
    job_type: str,
    run_id: str,
    name: str,
) -> wandb.Run | None:
    """Start or resume a W&B run, offline if online fails; return None if W&B is disabled.

    W&B's files are written to ``wandb/`` in the folder.
    """
    mode: Any = wandb_mode(options.mode)
    if mode == "disabled":
        return None
    more = ("setting", "weights_sha256", "versions", "hardware")
    origin = info.identity() | {key: getattr(info, key) for key in more}
    # W&B accepts 128 characters of a name, and 64 of a tag.
    tags = [str(tag)[:64] for tag in (info.protocol, config["model"]["name"])]
    init = partial(
        wandb.init,
        project=options.project,
        entity=options.entity,
        id=run_id,
        name=name[:128],
        group=info.experiment,
        job_type=job_type,
        tags=tags,
        notes=_notes(info.experiment),
        config={**without_folders(config), keys.ORIGIN: origin},
        dir=folder,
        resume="allow",
        # Separates the runs of one process, also from one that a notebook has open.
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            init_timeout=30.0,
            finish_timeout=600.0,
            finish_timeout_raises=True,
            # Names of machines, repositories and people stay private.
            host="-",
            x_disable_meta=True,
            disable_git=True,
        ),
    )
    _silent_setup()
    try:
        return init(mode=mode)
    except Exception as error:
        if mode != "online":
            raise
        kind = type(error).__name__
        sys.stderr.write(f"warning: W&B cannot be reached ({kind}): this run is logged offline\n")
        # The failed attempt holds the id.
        wandb.teardown()
        _silent_setup()
        return init(mode="offline")


def finish(run: wandb.Run, exit_code: int) -> None:
    """End a run, and wait until everything is sent or written."""
    try:
        run.finish(exit_code=exit_code)
    except Exception:
        # The remains of a failed service would disturb the next run.
        with suppress(Exception):
            wandb.teardown()
        raise


@contextmanager
def staged_below(folder: Path) -> Iterator[None]:
    """Keep files that W&B has yet to send in the folder instead of the user's home."""
    key = "WANDB_DATA_DIR"
    is_given = key in os.environ
    os.environ.setdefault(key, str(folder / "wandb" / "data"))
    try:
        yield
    finally:
        if not is_given:
            os.environ.pop(key, None)


def _notes(experiment: str) -> str | None:
    """Return the comment at the head of an experiment's file; None if there is none."""
    folders = [str(CONFIG_DIR)]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [source.path for source in sources if source.schema == "file"]
    paths = (Path(folder, "experiment", f"{experiment}.yaml") for folder in folders)
    text = next((path.read_text() for path in paths if path.is_file()), "")
    head = takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = (line[1:].removeprefix(" ").rstrip() for line in head if "@package" not in line)
    return "\n".join(words).strip() or None

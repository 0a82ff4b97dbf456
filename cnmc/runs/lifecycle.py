"""The life of a run folder: new, interrupted, failed, finished, or another run's."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cnmc.config import Config
from cnmc.data.store import CellSplit, CellStore
from cnmc.errors import RefusedError, is_interruption
from cnmc.model.checkpoint import load_checkpoint
from cnmc.runs.folder import INFO, RunFolder, RunInfo, config_hash, differing_keys, identity
from cnmc.runs.provenance import git_commit, hardware, versions

_KEPT = (
    "started",
    "run_id",
    "seconds",
    "retries",
    "protocol",
    "manifest_fingerprint",
    "split_fingerprint",
    "weights_sha256",
    "epochs_done",
    "best_epoch",
    "best_f1",
)
"""What a run keeps of itself when another process goes on with it."""


def find_run(folder: RunFolder, config: Config, resolved: Mapping[str, Any]) -> RunInfo:
    """Return what is known of a run before its data are opened.

    Args:
        folder: Where the run belongs; its lock must be held.
        config: The configuration.
        resolved: The same as plain values.

    Returns:
        A new run's description; or, of one that was begun, its identity and how far it came, with
        the versions and the machine of this process. Only a finished run is returned as it was.

    Raises:
        RefusedError: The folder holds a run of another configuration (the keys that differ are
            named, and the ways out), or the remains of one.
    """
    info = _describe(folder, config, resolved)
    before = folder.read_info()
    if before is None:
        if folder.has_results():
            raise RefusedError(
                f"{folder.path} holds results of a run whose {INFO} is lost; remove the folder, or "
                "start over with run.overwrite=true"
            )
        return info
    # Nothing is lost where nothing was stored: a mistake that was mended leaves no trace.
    if before.status == "finished" or folder.has_results():
        _check_same_config(folder, resolved)
    elif before.config_hash != info.config_hash:
        return info
    if before.status == "finished":
        return before
    return replace(info, **{name: getattr(before, name) for name in _KEPT})


def begin_run(
    folder: RunFolder,
    info: RunInfo,
    config: Config,
    resolved: Mapping[str, Any],
    store: CellStore,
) -> bool:
    """Make a run folder ready to be worked on, and write down that it is.

    Args:
        folder: The run folder; its lock must be held.
        info: What :func:`find_run` gave; completed here.
        config: The configuration.
        resolved: The same as plain values.
        store: The data of the run.

    Returns:
        Whether there is an epoch to go on from.

    Raises:
        RefusedError: The run was begun with another data set, split or other initial weights.
    """
    check_origin(folder, info, config, store)
    info.protocol = store.split.protocol
    info.manifest_fingerprint = store.manifest.fingerprint
    info.split_fingerprint = store.split.fingerprint
    info.weights_sha256 = _sha256(config.model.weights)
    folder.remove_temporaries()
    folder.write_config(resolved)
    # The checkpoint knows best: the process may have died between run.json and it.
    info.epochs_done = 0
    if folder.last_checkpoint.is_file():
        info.epochs_done = int(load_checkpoint(folder.last_checkpoint, lazy=True)["cnmc"]["epoch"])
    # What was stored of epochs after the last checkpoint is dropped, since they are repeated.
    folder.forget_after(info.epochs_done if info.epochs_done else -1)
    metrics = folder.read_metrics()
    info.seconds = float(metrics["seconds"].sum()) if len(metrics) else 0.0
    info.best_epoch, info.best_f1 = folder.best_epoch() or (None, None)
    info.status, info.error = "running", None
    folder.write_info(info)
    return info.epochs_done > 0


def check_origin(folder: RunFolder, info: RunInfo, config: Config, store: CellSplit) -> None:
    """Refuse to go on with a run on other data, another split or from other weights.

    Raises:
        RefusedError: What differs is named, and the ways out.
    """
    if info.manifest_fingerprint is None:
        return
    weights = _sha256(config.model.weights)
    for what, key, old, new in (
        ("another data set", "data.root", info.manifest_fingerprint, store.manifest.fingerprint),
        ("another split", "split", info.split_fingerprint, store.split.fingerprint),
        ("other initial weights", "model.weights", info.weights_sha256, weights),
    ):
        if old != new:
            raise RefusedError(
                f"{folder.path} was begun with {what} ({key}: fingerprint "
                f"{str(old)[:12]} there, now {str(new)[:12]}); give it the old one, choose another "
                "run.root, or start over with run.overwrite=true"
            )


@contextmanager
def failure_recorded(folder: RunFolder, info: RunInfo) -> Iterator[None]:
    """Write an error into the run folder on its way up.

    A folder that refuses the run keeps what it says of its own.
    """
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        if is_interruption(error):
            raise
        info.status, info.error = "failed", traceback.format_exc()
        try:
            folder.write_info(info)
        except OSError as unwritten:
            # The disk may be what failed. The run stays one to go on with.
            sys.stderr.write(f"{info.error}{folder.path}: not recorded: {unwritten}\n")
        raise


def start_over(folder: RunFolder, study_id: str | None) -> None:
    """Remove a run folder, and nothing that is none; ``run.overwrite=true`` asks for it.

    What this study itself began is kept: a cluster starts the job of a run again when its time was
    up, and the run goes on then.

    Raises:
        RefusedError: There is something that is no run folder.
    """
    leftover = folder.path.with_name(f".{folder.path.name}.removed")
    if folder.path.exists():
        if not (folder.is_run() or folder.has_results()):
            raise RefusedError(
                f"run.overwrite=true: {folder.path} exists and is no run folder; remove it "
                "yourself, or choose another run.name or run.root"
            )
        info = folder.read_info() if study_id is not None else None
        if info is not None and info.study_id == study_id:
            return
        # In one step: half a run folder could be taken for one to go on with.
        shutil.rmtree(leftover, ignore_errors=True)
        folder.path.rename(leftover)
    shutil.rmtree(leftover, ignore_errors=True)


def _describe(folder: RunFolder, config: Config, resolved: Mapping[str, Any]) -> RunInfo:
    digest = config_hash(resolved)
    name = folder.path.name
    seed = f"seed={config.seed}"
    return RunInfo(
        status="running",
        experiment=config.experiment,
        name=name,
        # Only a name that the program made tells what was swept.
        setting=name.removeprefix(f"{seed},") if name.startswith(f"{seed},") else "",
        seed=config.seed,
        config_hash=digest,
        study_id=config.study.id,
        # Two folders may hold the same configuration, on other data or once more.
        run_id=f"{digest}-{secrets.token_hex(3)}",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        max_epochs=config.trainer.max_epochs,
        git_commit=git_commit(),
        versions=versions(),
        hardware=hardware(),
    )


def _sha256(path: str | None) -> str | None:
    """Return the digest of a file; None for none, or for one that is missed when it is loaded."""
    if path is None or not Path(path).expanduser().is_file():
        return None
    with Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_same_config(folder: RunFolder, resolved: Mapping[str, Any]) -> None:
    stored = folder.read_config()
    if config_hash(stored) == config_hash(resolved):
        return
    old, new = identity(stored), identity(resolved)
    differences = ", ".join(
        f"{key} (there {old.get(key, 'absent')}, now {new.get(key, 'absent')})"
        for key in differing_keys(stored, resolved)
    )
    raise RefusedError(
        f"{folder.path} holds a run of another configuration: {differences}; choose another "
        "run.name or run.root, sweep the key so that it names the folder, or start over with "
        "run.overwrite=true"
    )

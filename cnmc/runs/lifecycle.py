"""The life of a run folder: new, interrupted, failed, finished, or of another run."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from cnmc.config import Config
from cnmc.errors import CnmcError, RefusedError, is_interruption
from cnmc.runs.folder import INFO, RunFolder, RunInfo
from cnmc.runs.identity import config_hash, differing_keys, identity
from cnmc.runs.provenance import git_commit, hardware, versions

LONGEST_NAME = 240
"""Bytes of the longest name of a run folder: file systems take 255, and its lock adds some."""


@dataclass(frozen=True)
class Origin:
    """What a run is trained on."""

    protocol: str
    """``paper`` or ``honest``."""
    manifest_fingerprint: str
    split_fingerprint: str
    weights_sha256: str | None
    """Digest of the file of initial weights (see :func:`file_digest`)."""


_KEPT = (
    *("started", "run_id", "seconds", "retries", "epochs_done", "best_epoch", "best_f1"),
    *(item.name for item in fields(Origin)),
)
"""Values of ``run.json`` that another process that resumes the run keeps."""


def file_digest(path: str | None) -> str | None:
    """Return the SHA-256 of a file; None without a path, or if there is no such file."""
    if path is None or not Path(path).expanduser().is_file():
        return None
    with Path(path).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_place(folder: RunFolder) -> None:
    """Check that a run folder can be made and written; nothing is created.

    Raises:
        CnmcError: Its name is too long, or ``run.root`` cannot be written.
    """
    name, root = folder.path.name, folder.path.parents[1]
    size = len(os.fsencode(name))
    if size > LONGEST_NAME:
        raise CnmcError(
            f"run.name: {name[:40]}... has {size} bytes, at most {LONGEST_NAME} fit; give a "
            "shorter run.name, or sweep fewer keys"
        )
    try:
        place = next(path for path in (folder.path, *folder.path.parents) if path.exists())
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise CnmcError(
            f"run.root={root}: cannot write there ({error.strerror}); expected a folder that you "
            "may write to"
        ) from None


def find_run(folder: RunFolder, config: Config, resolved: Mapping[str, Any]) -> RunInfo:
    """Return what is known of a run before its data are read.

    Args:
        folder: The run folder; its lock must be held.
        config: The configuration.
        resolved: The same as plain values.

    Returns:
        The stored description of a finished run. For an interrupted one, its stored identity and
        progress, with the versions and the machine of this process. Else a new description.

    Raises:
        RefusedError: The folder holds a run of another configuration, or the rest of a run. The
            message names the keys that differ, and what to do.
    """
    info = _describe(folder, config, resolved)
    before = folder.read_info()
    if before is None:
        if folder.has_results():
            raise RefusedError(
                f"{folder.path} holds results of a run whose {INFO} is missing; remove the "
                "folder, or start over with run.overwrite=true"
            )
        return info
    # A run without results, such as one that failed by a mistake, can be replaced.
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
    resolved: Mapping[str, Any],
    origin: Origin,
    epochs_done: int,
) -> None:
    """Prepare a run folder for training, and store that the run is running.

    Args:
        folder: The run folder; its lock must be held.
        info: The result of :func:`find_run`; completed here.
        resolved: The configuration as plain values.
        origin: What the run is trained on.
        epochs_done: Complete epochs of the last checkpoint; 0 without one.

    Raises:
        RefusedError: The run was begun with another data set, split or other initial weights.
    """
    check_origin(folder, info, origin)
    folder.remove_temporaries()
    folder.write_config(resolved)
    folder.forget_after(epochs_done if epochs_done else -1)
    metrics = folder.read_metrics()
    for name, value in asdict(origin).items():
        setattr(info, name, value)
    info.epochs_done = epochs_done
    info.seconds = float(metrics["seconds"].sum()) if len(metrics) else 0.0
    info.best_epoch, info.best_f1 = folder.best_epoch() or (None, None)
    info.status, info.error = "running", None
    folder.write_info(info)


def check_origin(folder: RunFolder, info: RunInfo, origin: Origin) -> None:
    """Check that a run that was begun has the same data, split and initial weights as now.

    Raises:
        RefusedError: One of them differs; the message names it, and what to do.
    """
    if info.manifest_fingerprint is None:
        return
    for what, key, name in (
        ("another data set", "data.root", "manifest_fingerprint"),
        ("another split", "split", "split_fingerprint"),
        ("other initial weights", "model.weights", "weights_sha256"),
    ):
        old, new = getattr(info, name), getattr(origin, name)
        if old != new:
            raise RefusedError(
                f"{folder.path} was begun with {what} ({key}: fingerprint "
                f"{str(old)[:12]} there, now {str(new)[:12]}); use the old one, choose another "
                "run.root, or start over with run.overwrite=true"
            )


@contextmanager
def failure_recorded(folder: RunFolder, info: RunInfo) -> Iterator[None]:
    """Store an error in the run folder and raise it again.

    A folder that refuses the run stays unchanged. A user's mistake that is found before the first
    evaluation leaves no new folder.
    """
    is_new = not folder.path.exists()
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        if isinstance(error, CnmcError) and is_new and not folder.has_results():
            shutil.rmtree(folder.path, ignore_errors=True)
        elif not is_interruption(error):
            info.status, info.error = "failed", traceback.format_exc()
            try:
                folder.write_info(info)
            except OSError as unwritten:
                # A full disk may be the error.
                sys.stderr.write(f"{info.error}{folder.path}: not recorded: {unwritten}\n")
        raise


def start_over(folder: RunFolder, study_id: str | None) -> None:
    """Remove a run folder, as ``run.overwrite=true`` asks.

    A folder that this study began is kept: a cluster restarts a job whose time was up, and its run
    is then resumed.

    Raises:
        RefusedError: The folder is not a run folder.
    """
    removed = folder.path.with_name(f".{folder.path.name}.removed")
    if folder.path.exists():
        if not (folder.is_run() or folder.has_results()):
            raise RefusedError(
                f"run.overwrite=true: {folder.path} exists and is not a run folder; remove it "
                "yourself, or choose another run.name or run.root"
            )
        info = folder.read_info() if study_id is not None else None
        if info is not None and info.study_id == study_id:
            return
        # Renamed first, since a half-removed folder could be taken for an interrupted run.
        shutil.rmtree(removed, ignore_errors=True)
        folder.path.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def _describe(folder: RunFolder, config: Config, resolved: Mapping[str, Any]) -> RunInfo:
    digest, name, seed = config_hash(resolved), folder.path.name, f"seed={config.seed},"
    return RunInfo(
        status="running",
        experiment=config.experiment,
        name=name,
        setting=name.removeprefix(seed) if name.startswith(seed) else "",
        seed=config.seed,
        config_hash=digest,
        study_id=config.study.id,
        # Two folders may hold the same configuration on other data.
        run_id=f"{digest}-{secrets.token_hex(3)}",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        max_epochs=config.trainer.max_epochs,
        git_commit=git_commit(),
        versions=versions(),
        hardware=hardware(),
    )


def _check_same_config(folder: RunFolder, resolved: Mapping[str, Any]) -> None:
    stored = folder.read_config()
    old, new = identity(stored), identity(resolved)
    differences = [
        f"{key} (there {old.get(key, 'absent')}, now {new.get(key, 'absent')})"
        for key in differing_keys(stored, resolved)
    ]
    if differences:
        raise RefusedError(
            f"{folder.path} holds a run of another configuration: {', '.join(differences)}; choose "
            "another run.name or run.root, sweep the key so that it names the folder, or start "
            "over with run.overwrite=true"
        )

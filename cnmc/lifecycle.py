"""The life of a run folder: new, interrupted, finished, or another run's."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cnmc.callbacks.checkpoints import load_checkpoint
from cnmc.config import Config
from cnmc.data.store import CellStore
from cnmc.errors import CnmcError
from cnmc.provenance import git_commit, hardware, versions
from cnmc.runs import RunFolder, RunInfo, config_hash, differing_keys, identity

Action = Literal["train", "resume", "skip"]


def open_run(
    folder: RunFolder, config: Config, resolved: Mapping[str, Any], store: CellStore
) -> tuple[Action, RunInfo]:
    """Decide what to do with a run folder, and write down that it is being worked on.

    Args:
        folder: Where the run belongs; its lock must be held.
        config: The configuration.
        resolved: The same as plain values.
        store: The data of the run.

    Returns:
        ``train`` for a new run, ``resume`` for one to go on with after its last whole epoch,
        ``skip`` for a finished one; and what ``run.json`` holds.

    Raises:
        CnmcError: The folder holds a run of another configuration, data set, split or other
            weights; what differs is named, and the ways out.
    """
    info = _describe(folder, config, resolved, store)
    if config.run.overwrite:
        _remove(folder)
    before = folder.read_info()
    if before is not None:
        _check_same_config(folder, resolved)
        _check_same_origin(folder, before, info)
        if before.status == "finished":
            return "skip", before
    folder.remove_temporaries()
    folder.write_config(resolved)
    if before is not None:
        info.started, info.run_id = before.started, before.run_id
        if folder.last_checkpoint.is_file():
            info.epochs_done = int(load_checkpoint(folder.last_checkpoint)["cnmc"]["epoch"])
    # What was stored of epochs after the last checkpoint is dropped, since they are repeated.
    folder.forget_after(info.epochs_done if info.epochs_done else -1)
    metrics = folder.read_metrics()
    info.seconds = float(metrics["seconds"].sum()) if len(metrics) else 0.0
    best = folder.best_epoch()
    if best is not None:
        info.best_epoch, info.best_f1 = best
    folder.write_info(info)
    return "resume" if info.epochs_done else "train", info


def _describe(
    folder: RunFolder, config: Config, resolved: Mapping[str, Any], store: CellStore
) -> RunInfo:
    digest = config_hash(resolved)
    return RunInfo(
        status="running",
        experiment=config.experiment,
        name=folder.path.name,
        seed=config.seed,
        protocol=store.split.protocol,
        config_hash=digest,
        # Two folders may hold the same configuration, on other data or once more.
        run_id=f"{digest}-{secrets.token_hex(3)}",
        manifest_fingerprint=store.manifest.fingerprint,
        split_fingerprint=store.split.fingerprint,
        weights_sha256=_sha256(config.model.weights),
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


def _remove(folder: RunFolder) -> None:
    """Remove a run folder, and nothing that is none."""
    if not folder.path.exists():
        return
    if not folder.is_run():
        raise CnmcError(
            f"run.overwrite=true: {folder.path} exists and is no run folder; remove it yourself, "
            "or choose another run.name or run.root"
        )
    shutil.rmtree(folder.path)


def _check_same_config(folder: RunFolder, resolved: Mapping[str, Any]) -> None:
    stored = folder.read_config()
    if config_hash(stored) == config_hash(resolved):
        return
    old, new = identity(stored), identity(resolved)
    differences = ", ".join(
        f"{key} (there {old.get(key, 'absent')}, now {new.get(key, 'absent')})"
        for key in differing_keys(stored, resolved)
    )
    raise CnmcError(
        f"{folder.path} holds a run of another configuration: {differences}; choose another "
        "run.name or run.root, sweep the key so that it names the folder, or start over with "
        "run.overwrite=true"
    )


def _check_same_origin(folder: RunFolder, before: RunInfo, now: RunInfo) -> None:
    for what, key, old, new in (
        ("another data set", "data.root", before.manifest_fingerprint, now.manifest_fingerprint),
        ("another split", "split", before.split_fingerprint, now.split_fingerprint),
        ("other initial weights", "model.weights", before.weights_sha256, now.weights_sha256),
    ):
        if old != new:
            raise CnmcError(
                f"{folder.path} was begun with {what} ({key}: fingerprint "
                f"{str(old)[:12]} there, now {str(new)[:12]}); give it the old one, choose another "
                "run.root, or start over with run.overwrite=true"
            )

"""A stand-in for ``wandb.Api`` with the parts of its runs and artifacts that are used."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import wandb

from cnmc.tracking import keys

ENTITY, PROJECT = "hematology", "cnmc"
DATA, OTHER_DATA, SPLIT, HONEST_SPLIT = "a" * 64, "d" * 64, "b" * 64, "c" * 64
ADDRESS = "https://wandb.clinic.example"


def origin(experiment: str, seed: int, **changes: Any) -> dict[str, Any]:
    """Return the entry ``origin`` in the configuration of a run."""
    return {
        "experiment": experiment,
        "name": f"seed={seed}",
        "seed": seed,
        "protocol": "paper",
        "config_hash": "0123456789ab",
        "run_id": f"{experiment}{seed}",
        "manifest_fingerprint": DATA,
        "split_fingerprint": SPLIT,
        "git_commit": None,
        **changes,
    }


def checkpoint(run: dict[str, Any], epoch: int) -> bytes:
    """Return the content of a checkpoint of a run."""
    buffer = io.BytesIO()
    states = {"fc.weight": torch.zeros(1, 2)}
    torch.save({"state_dict": states, "cnmc": {"config": {}, "run": run, "epoch": epoch}}, buffer)
    return buffer.getvalue()


def files_below(folder: Path) -> list[str]:
    """Return the files in a folder, also hidden ones."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@dataclass
class Run:
    """A run of the project."""

    config: dict[str, Any]
    summary_metrics: dict[str, Any]
    state: str
    group: str
    job_type: str


@dataclass
class Artifact:
    """A checkpoint of a run."""

    name: str
    aliases: list[str]
    metadata: dict[str, Any]
    content: bytes
    damaged: bool = False
    saved: Callable[[str, list[str]], None] = lambda _name, _aliases: None

    def download(self, root: str, skip_cache: bool) -> None:
        """Write the file."""
        assert skip_cache
        Path(root, "best.ckpt").write_bytes(self.content)

    def verify(self, root: str) -> None:
        """Raise as W&B does if a file is not the one that was logged."""
        if self.damaged:
            raise ValueError(f"Digest mismatch for file: {root}/best.ckpt")

    def save(self) -> None:
        """Keep the changed aliases."""
        self.saved(self.name, self.aliases)


@dataclass
class FakeApi:
    """A project at W&B; :attr:`failing` maps a method to the error that it raises."""

    stored: list[Run] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    changes: list[tuple[str, list[str]]] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    default_entity: str | None = ENTITY
    settings: dict[str, Any] = field(default_factory=lambda: {"entity": None})

    def add_run(
        self,
        run: dict[str, Any] | None,
        f1: Any,
        *,
        epoch: Any = 3,
        state: str = "finished",
        summary: dict[str, Any] | None = None,
        job_type: str = keys.TRAIN,
    ) -> None:
        """Add a run, and its best checkpoint; None adds a run of another program."""
        numbers = {"best/epoch": epoch, "best/f1": f1, "_step": 9, **(summary or {})}
        config = {"seed": 1} if run is None else {"seed": 1, keys.ORIGIN: run}
        experiment = run["experiment"] if run else "other"
        self.stored.append(Run(config, numbers, state, experiment, job_type))
        if run is not None:
            prints = {key: run[key] for key in ("manifest_fingerprint", "split_fingerprint")}
            self.artifacts.append(
                Artifact(
                    keys.artifact_name(run["run_id"]),
                    [keys.BEST, keys.seed_alias(run["seed"])],
                    {"epoch": epoch, **prints},
                    checkpoint(run, epoch),
                    saved=lambda *change: self.changes.append(change),
                )
            )

    def checkpoint_of(self, run_id: str) -> Artifact:
        """Return the checkpoint of a run."""
        return next(a for a in self.artifacts if a.name == keys.artifact_name(run_id))

    def holders(self) -> list[str]:
        """Return the artifacts that have the alias of the best of a study."""
        return [item.name for item in self.artifacts if keys.BEST_OF_STUDY in item.aliases]

    def runs(self, path: str, filters: dict[str, str], lazy: bool) -> list[Run]:
        """Return the runs that pass the filters."""
        assert not lazy
        self._may_fail("runs")
        if path != f"{ENTITY}/{PROJECT}":
            raise ValueError(f"Could not find project {path} at {ADDRESS}")
        fields = {"jobType": "job_type", "group": "group"}
        return [
            run
            for run in self.stored
            if all(getattr(run, fields[key]) == value for key, value in filters.items())
        ]

    def artifact(self, name: str, type: str) -> Artifact:  # noqa: A002 - W&B's name
        """Return the artifact ``<entity>/<project>/<name>:<alias>``."""
        assert type == keys.MODEL
        self._may_fail("artifact")
        wanted, alias = name.removeprefix(f"{ENTITY}/{PROJECT}/").split(":")
        for item in self.artifacts:
            if item.name == wanted and alias in item.aliases:
                return item
        missing = ValueError(f"artifact '{name}' not found at {ADDRESS}")
        raise wandb.errors.CommError(str(missing), missing)

    def _may_fail(self, method: str) -> None:
        if method in self.failing:
            raise self.failing[method]

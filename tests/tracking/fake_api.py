"""A stand-in for ``wandb.Api`` with the parts of its runs and artifacts that are used."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch

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
        "run_id": f"{experiment}{seed}",
        "manifest_fingerprint": DATA,
        "split_fingerprint": SPLIT,
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
class Artifact:
    """A checkpoint of a run."""

    name: str
    aliases: list[str]
    content: bytes
    changed: list[str]
    """Receives the names of saved artifacts."""
    damaged: bool = False

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
        self.changed.append(self.name)


@dataclass
class FakeApi:
    """A project at W&B; :attr:`error` is raised by its methods."""

    stored: list[Any] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """The checkpoint of each run, by the id of the run."""
    changed: list[str] = field(default_factory=list)
    error: Exception | None = None
    default_entity: str | None = ENTITY
    settings: dict[str, Any] = field(default_factory=lambda: {"entity": None})

    def add_run(
        self,
        run: dict[str, Any] | None,
        f1: Any,
        summary: Mapping[str, Any] = MappingProxyType({}),
        *,
        state: str = "finished",
        job_type: str = keys.TRAIN,
    ) -> None:
        """Add a run and its best checkpoint, of epoch 3; None adds a run of another program."""
        self.stored.append(
            SimpleNamespace(
                config={"seed": 1} if run is None else {"seed": 1, keys.ORIGIN: run},
                summary_metrics={"best/epoch": 3, "best/f1": f1, "best/checkpoint": "a", **summary},
                state=state,
                filters={"group": run and run["experiment"], "jobType": job_type},
            )
        )
        if run is not None:
            name = keys.artifact_name(run["run_id"])
            aliases = [keys.BEST, f"seed-{run['seed']}"]
            content = checkpoint(run, 3)
            self.artifacts[run["run_id"]] = Artifact(name, aliases, content, self.changed)

    def holders(self) -> list[str]:
        """Return the ids of the runs whose checkpoint is the best of a study."""
        return [key for key, it in self.artifacts.items() if keys.BEST_OF_STUDY in it.aliases]

    def runs(self, path: str, filters: dict[str, str], lazy: bool) -> list[Any]:
        """Return the runs that pass the filters."""
        assert not lazy
        if self.error is not None:
            raise self.error
        if path != f"{ENTITY}/{PROJECT}":
            raise ValueError(f"Could not find project {path} at {ADDRESS}")
        return [run for run in self.stored if filters.items() <= run.filters.items()]

    def artifact_exists(self, name: str, type: str) -> bool:  # noqa: A002 - W&B's name
        """Return whether there is an artifact ``<entity>/<project>/<name>:<alias>``."""
        return self.artifact(name, type) is not None

    def artifact(self, name: str, type: str) -> Artifact | None:  # noqa: A002 - W&B's name
        """Return an artifact."""
        assert type == keys.MODEL
        if self.error is not None:
            raise self.error
        wanted, alias = name.removeprefix(f"{ENTITY}/{PROJECT}/").split(":")
        found = [a for a in self.artifacts.values() if a.name == wanted and alias in a.aliases]
        return found[0] if found else None

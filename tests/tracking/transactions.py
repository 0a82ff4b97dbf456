"""Reads what W&B wrote offline: its transaction log, with W&B's own message definitions.

The Python package has no reader of the file; its frames are those of LevelDB's log
(https://github.com/google/leveldb/blob/main/doc/log_format.md), after a header of seven bytes.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _FRAME = 32768, struct.Struct("<IHB")
_FULL, _LAST = 1, 4


def _messages(data: bytes) -> Iterator[bytes]:
    at, parts = 7, b""
    while at + _FRAME.size <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _FRAME.size:
            at += room
            continue
        _, length, kind = _FRAME.unpack_from(data, at)
        at += _FRAME.size + length
        parts += data[at - length : at]
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


@dataclass
class LoggedRun:
    """The content of one transaction log."""

    run: Any = None
    """W&B's record of the run: ``run_id``, ``run_group``, ``display_name``, ``tags`` and others."""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    """By name or pattern of a metric, its x axis."""
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The rows of the history that are epochs."""
        return [row for row in self.history if "epoch" in row]

    def add(self, record: Any) -> None:
        """Add a record."""
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            _put_all(self.config, record.run.config.update)
        elif kind == "config":
            _put_all(self.config, record.config.update)
        elif kind == "history":
            self.history.append({})
            _put_all(self.history[-1], record.history.item)
        elif kind == "summary":
            _put_all(self.summary, record.summary.update)
        elif kind == "metric":
            self.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            self.artifacts.append(record.artifact)
        elif kind == "exit":
            self.exit_code = record.exit.exit_code


def _put_all(target: dict[str, Any], items: Any) -> None:
    for item in items:
        place = target
        *path, last = list(item.nested_key) or [item.key]
        for key in path:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)


def _read_log(path: Path) -> LoggedRun:
    logged = LoggedRun()
    for message in _messages(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(message)
        logged.add(record)
    return logged


def read_logs(folder: Path, patience: float = 30.0) -> list[LoggedRun]:
    """Read every offline run below a folder, in the order of their starts.

    W&B's own process may still be writing when a run's ``finish`` returns.
    """
    end = time.monotonic() + patience
    while True:
        runs = [_read_log(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
        if all(run.exit_code is not None for run in runs) or time.monotonic() > end:
            return runs
        time.sleep(0.05)

"""Reads what W&B wrote offline: its transaction log, with W&B's own message definitions.

The Python package has no reader of the file any more; its frames are those of LevelDB's log
(https://github.com/google/leveldb/blob/main/doc/log_format.md), after a header of seven bytes.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _FRAME = 32768, struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def _messages(data: bytes) -> Iterator[bytes]:
    header, _magic, version = struct.unpack("<4sHB", data[:7])
    assert header == b":W&B"
    assert version == 0
    at, parts = 7, b""
    while at + _FRAME.size <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _FRAME.size:
            at += room
            continue
        checksum, length, kind = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        part = data[at : at + length]
        at += length
        assert len(part) == length, "truncated"
        assert zlib.crc32(bytes([kind]) + part) == checksum, "damaged"
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts


@dataclass
class LoggedRun:
    """What one transaction log says of a run."""

    id: str = ""
    group: str = ""
    name: str = ""
    job_type: str = ""
    notes: str = ""
    host: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    """By name or pattern of a metric, what it is drawn against."""
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    kinds: list[str] = field(default_factory=list)
    """Of all records, in their order."""


def _put_all(target: dict[str, Any], items: Any) -> None:
    for item in items:
        place = target
        path = list(item.nested_key) or [item.key]
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = json.loads(item.value_json)


def read_logs(folder: Path, patience: float = 30.0) -> list[LoggedRun]:
    """Read every offline run below a folder, in the order of their starts.

    W&B's own process may still be writing when a run's ``finish`` returns.
    """
    end = time.monotonic() + patience
    while True:
        try:
            runs = [read_log(path) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
            if all(run.exit_code is not None for run in runs) or time.monotonic() > end:
                return runs
        except (AssertionError, struct.error):
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def read_log(path: Path) -> LoggedRun:
    """Read a ``.wandb`` file."""
    run = LoggedRun()
    for message in _messages(path.read_bytes()):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(message)
        kind = str(record.WhichOneof("record_type"))
        run.kinds.append(kind)
        _add(run, kind, record)
    return run


def _add(run: LoggedRun, kind: str, record: Any) -> None:
    if kind == "run":
        known = record.run
        run.id, run.group, run.name = known.run_id, known.run_group, known.display_name
        run.job_type, run.notes, run.host = known.job_type, known.notes, known.host
        run.tags = list(known.tags)
        _put_all(run.config, known.config.update)
    elif kind == "config":
        _put_all(run.config, record.config.update)
    elif kind == "history":
        run.history.append({})
        _put_all(run.history[-1], record.history.item)
    elif kind == "summary":
        _put_all(run.summary, record.summary.update)
    elif kind == "metric":
        run.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    elif kind == "artifact":
        run.artifacts.append(record.artifact)
    elif kind == "exit":
        run.exit_code = record.exit.exit_code

"""Keeps the logits of a screening while it runs, so that a process that is killed loses little."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnmc.deploy.exported import Logits
from cnmc.deploy.outputs import JOURNAL, remove_results
from cnmc.errors import CnmcError
from cnmc.files import replacing

FORMAT = 2
"""Version of the journal; raise it when files are decoded or warned about in another way."""


@dataclass(frozen=True)
class Entry:
    """What the networks gave for the content of a file.

    Attributes:
        logits: One logit per rotation, by network.
        warnings: How the image differs from those of training.
    """

    logits: tuple[tuple[float, ...], ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Logits], warnings: tuple[str, ...]) -> Entry:
        """Make an entry of one row of logits per network."""
        return cls(tuple(tuple(map(float, row)) for row in rows), warnings)


class Journal:
    """Append to the journal of a folder, and read what it held before.

    An entry is found by the digest of the file's content, so a renamed file is not computed again
    and a replaced file is. Every line has a checksum over itself and the networks: a line that was
    edited or damaged is ignored, so its file is computed again.

    Args:
        folder: The output folder. Where a new journal begins, earlier results are removed from it.
        networks: Digests of the networks, in the order of the logits.
        overwrite: Replace the journal of other networks.

    Raises:
        CnmcError: The journal belongs to other networks, or its first line is damaged.
    """

    def __init__(self, folder: Path, networks: Sequence[str], *, overwrite: bool = False) -> None:
        self._path = folder / JOURNAL
        self._header = json.dumps({"cnmc.screening": FORMAT, "networks": list(networks)})
        self.entries: dict[str, Entry] = {}
        lines = self._path.read_bytes().split(b"\n") if self._path.is_file() else []
        if lines and _parsed(lines[0]) == json.loads(self._header):
            self.entries = dict(filter(None, map(self._entry, lines[1:])))
            if lines[-1]:  # a process was killed while it wrote this line
                self._append("\n")
            return
        if lines and not overwrite:
            raise CnmcError(
                f"{self._path}: belongs to other networks or another version of cnmc, or is "
                "damaged; overwrite=true starts over in this folder, output=DIR names another"
            )
        # Remove them first: tables must never lie beside the journal of other networks.
        remove_results(folder)
        with replacing(self._path) as temporary:
            temporary.write_text(f"{self._header}\n", encoding="utf-8")

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Append entries by the digest of their file's content."""
        rows = [
            {"file": key, "logits": entry.logits, "warnings": entry.warnings}
            for key, entry in entries.items()
        ]
        self._append(
            "".join(json.dumps(row | {"check": self._checksum(row)}) + "\n" for row in rows)
        )
        self.entries.update(entries)

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)

    def _entry(self, line: bytes) -> tuple[str, Entry] | None:
        """Return a line's key and entry; None where it is not as it was written."""
        row = _parsed(line)
        if not isinstance(row, dict) or row.pop("check", None) != self._checksum(row):
            return None
        return row["file"], Entry(tuple(map(tuple, row["logits"])), tuple(row["warnings"]))

    def _checksum(self, row: Mapping[str, Any]) -> str:
        text = self._header + json.dumps(row)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _parsed(line: bytes) -> Any:
    """Return the JSON of a line; None where it has none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None

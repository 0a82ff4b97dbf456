"""What was screened, kept while it goes on, so that a process that is killed loses little."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnmc.deploy.runtime import Logits
from cnmc.deploy.screening_files import JOURNAL, remove_results
from cnmc.errors import CnmcError
from cnmc.files import replacing

FORMAT = 1
"""Of the journal; raise it when files are read, or warned about, otherwise than before."""


@dataclass(frozen=True)
class Entry:
    """What the networks gave for the content of a file.

    Attributes:
        logits: By network, one logit a rotation.
        warnings: How the image is unlike those of training.
    """

    logits: tuple[tuple[float, ...], ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, rows: Iterable[Logits], warnings: tuple[str, ...]) -> Entry:
        """Make an entry of one row of logits a network."""
        return cls(tuple(tuple(map(float, row)) for row in rows), warnings)


class Journal:
    """Appends to the journal of a folder, and knows what it held before.

    Where a new journal begins, results of a former one are removed from the folder.

    Entries go by the content of the files, so that what was renamed or copied is known, and what
    was replaced is not, whatever its name, size and time.

    Args:
        folder: The output folder.
        networks: Digests of the networks, whose logits the entries hold in this order.
        overwrite: Forget what other networks gave.

    Raises:
        CnmcError: The folder holds a journal of other networks, or one that cannot be read.
    """

    def __init__(self, folder: Path, networks: Sequence[str], *, overwrite: bool = False) -> None:
        self._path = folder / JOURNAL
        self.entries: dict[str, Entry]
        header = {"cnmc.screening": FORMAT, "networks": list(networks)}
        if self._path.is_file() and not (overwrite and self._header() != header):
            self._check(header)
            self.entries = self._read(len(networks))
            return
        self.entries = {}
        # First, so that a process that is killed leaves no tables beside the journal of others.
        remove_results(folder)
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps(header) + "\n", encoding="utf-8")

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Append entries by the digest of their file's content, all or the first few of them."""
        lines = [
            json.dumps({"file": key, "logits": entry.logits, "warnings": entry.warnings})
            for key, entry in entries.items()
        ]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
        self.entries.update(entries)

    def _header(self) -> Any:
        try:
            with self._path.open(encoding="utf-8") as file:
                return json.loads(file.readline())
        except (OSError, ValueError):
            return None

    def _check(self, expected: Mapping[str, Any]) -> None:
        header = self._header()
        if header == expected:
            return
        held = "the screening by another network, or by another version of cnmc"
        if not isinstance(header, dict) or "cnmc.screening" not in header:
            held = "a journal that is none of cnmc, or damaged"
        raise CnmcError(
            f"{self._path}: holds {held}; overwrite=true starts over in this folder, output=DIR "
            "names another"
        )

    def _read(self, num_networks: int) -> dict[str, Entry]:
        """Return what is there, and cut off a line that was never finished."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)
        entries: dict[str, Entry] = {}
        for line in content[:whole].splitlines()[1:]:
            # A line that a full disk or a failing one has spoilt is worked out again.
            try:
                values = json.loads(line)
                logits = [np.asarray(row, dtype=np.float64) for row in values["logits"]]
                if len(logits) == num_networks and all(np.isfinite(row).all() for row in logits):
                    warnings = tuple(map(str, values["warnings"]))
                    entries[str(values["file"])] = Entry.of(values["logits"], warnings)
            except (ValueError, KeyError, TypeError):
                continue
        return entries

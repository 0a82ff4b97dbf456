"""Write the output folder of a screening: journal, results and the challenge's submission."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from cnmc.errors import CnmcError
from cnmc.files import natural_key, replacing

RESULTS = ("predictions.csv", "subjects.csv", "skipped.csv", "screening.html", "submission.zip")
JOURNAL = "journal.jsonl"

_JOURNAL_FORMAT = 2
"""Version of the journal; raise it when files are decoded or warned about in another way."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes text that begins with one of these for a formula."""


@contextmanager
def output_lock(folder: Path) -> Iterator[None]:
    """Create an output folder and keep other processes out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".screening.lock", timeout=0):
            yield
    except OSError as error:  # or the Timeout of a lock
        raise CnmcError(
            f"output={folder}: cannot be written ({error}); make room there, wait for another "
            "screening into it, or give another folder"
        ) from error


class Entry(NamedTuple):
    """The logits of a file's content, by network and rotation, and the warnings about it."""

    logits: Sequence[Sequence[float]]
    warnings: Sequence[str]


class Journal:
    """Store logits while a screening runs, and read those of an interrupted screening.

    Entries are found by the digest of a file's content, so a renamed file is not computed again and
    a replaced file is. Every line has a checksum over itself and the networks; a line that was
    edited or damaged is ignored. A foreign or damaged journal is only replaced with ``overwrite``.
    Where a new journal begins, the results in its folder are removed.
    """

    def __init__(self, folder: Path, networks: Sequence[str], *, overwrite: bool) -> None:
        self._path = folder / JOURNAL
        self._header = json.dumps({"cnmc.screening": _JOURNAL_FORMAT, "networks": networks})
        self.entries: dict[str, Entry] = {}
        lines = []
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")
        if lines and lines[0] == self._header:
            for line in lines[1:]:
                text = line.rpartition(', "check": ')[0] + "}"
                if line == self._with_checksum(text):
                    row = json.loads(text)
                    self.entries[row["file"]] = Entry(row["logits"], row["warnings"])
        elif lines and not overwrite:
            raise CnmcError(
                f"{self._path}: belongs to other networks or another version of cnmc, or is "
                "damaged; overwrite=true starts over in this folder, output=DIR names another"
            )
        else:
            # Remove them first: tables must never lie beside the journal of other networks.
            write_results(folder, {})
            with replacing(self._path) as temporary:
                temporary.write_text(self._header, encoding="utf-8")

    def add(self, entries: Mapping[str, Entry]) -> None:
        """Append entries by the digest of their file's content."""
        rows = [json.dumps({"file": key, **entry._asdict()}) for key, entry in entries.items()]
        with self._path.open("a", encoding="utf-8") as file:
            # The line break comes first: the last line may end where a process was killed.
            file.writelines("\n" + self._with_checksum(row) for row in rows)
        self.entries.update(entries)

    def _with_checksum(self, row: str) -> str:
        check = hashlib.blake2b((self._header + row).encode(), digest_size=8).hexdigest()
        return f'{row[:-1]}, "check": "{check}"}}'


def write_results(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace all former results by files with these names and contents, or change nothing."""
    with ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(replacing(folder / name)).write_bytes(content)
        for name in set(RESULTS) - set(contents):
            (folder / name).unlink(missing_ok=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as CSV: numbers with 6 decimals, and no text that a spreadsheet would execute."""

    def plain(value: object) -> object:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list):
            return "; ".join(value)
        if isinstance(value, float):
            return f"{value:.6f}"
        return f"'{value}" if str(value).startswith(_FORMULA) else value

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *(map(plain, row) for row in rows)])
    return text.getvalue().encode()


def check_submission(names: Collection[str], skipped: Collection[str]) -> None:
    """Refuse files other than those of the challenge: 1.bmp, 2.bmp, and so on without a gap."""
    expected = {f"{number}.bmp" for number in range(1, len(names) + 1)}
    wrong = list(skipped) or sorted({n.lower() for n in names} ^ expected, key=natural_key)
    if wrong:
        raise CnmcError(
            f"format=challenge: {', '.join(wrong[:5])}: {'left out' if skipped else 'unexpected'}"
            " or missing; expected 1.bmp, 2.bmp and so on without a gap, and no other file"
        )


def submission(labels: Iterable[str]) -> bytes:
    """Return the challenge's submission: a zipped file with one label per line, 1 ALL and 0 HEM."""
    content = io.BytesIO()
    text = "".join(f"{int(label == 'ALL')}\n" for label in labels)
    with zipfile.ZipFile(content, "w") as archive:
        # ZipInfo has a fixed date, so the same labels give the same file.
        archive.writestr(zipfile.ZipInfo("isbi_valid.predict"), text, zipfile.ZIP_DEFLATED)
    return content.getvalue()

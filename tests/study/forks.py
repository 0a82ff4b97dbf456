"""Commands as real processes, many of them: forked from one that has imported everything.

A command takes some ten seconds to import torch and the rest; a fork of a process that did so
starts at once, so that a test can afford to kill dozens. ``python -m tests.study.forks`` reads one
request a line (:class:`Request` as JSON) and answers each with the outcomes of its commands.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.conftest import ROOT


@dataclass(frozen=True)
class Request:
    """Commands to run side by side."""

    arguments: list[list[str]]
    """The command line of each, without the program's name."""
    signal: int | None = None
    """What to send to each and its children."""
    after: float = 0.0
    """Seconds until the signal is sent."""
    file_limit: int | None = None
    """Bytes beyond which a file cannot grow: writes fail as on a full disk."""
    broken_seed: int | None = None
    """The seed of runs whose training raises, as if out of memory, in its second epoch."""
    broken_times: int = 1_000_000
    """How often it does."""
    patience: float = 10.0
    """Seconds to wait for the lock of a run."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of the commands, besides those of this process."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    """Exit status; negative the number of the signal that ended it."""
    output: str
    """Standard output and error."""


class Forks:
    """The process that forks."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *commands: Sequence[str], **options: Any) -> list[Outcome]:
        """Run commands side by side; the options are those of :class:`Request`."""
        request = Request([list(command) for command in commands], **options)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        return [Outcome(**answer) for answer in json.loads(self._process.stdout.readline())]


@contextmanager
def forks() -> Iterator[Forks]:
    """Yield a process that forks, and end it."""
    command = [sys.executable, "-m", "tests.study.forks"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Forks(process)
        assert process.stdin is not None
        process.stdin.close()


def _child(arguments: Sequence[str], request: Request, output: int) -> None:
    """Be one command; does not return."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["train", *arguments]
    os.environ.update(request.environment)
    if request.file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request.file_limit, request.file_limit))
    import cnmc.runs.folder  # noqa: PLC0415 - imported by the parent before it forked
    from cnmc.cli.app import run_app  # noqa: PLC0415
    from cnmc.config import Config  # noqa: PLC0415
    from cnmc.study.plan import with_multirun  # noqa: PLC0415
    from cnmc.train import close, main  # noqa: PLC0415

    cnmc.runs.folder.LOCK_PATIENCE = request.patience
    if request.broken_seed is not None:
        _break(request.broken_seed, request.broken_times)
    run_app(main, Config, arguments=with_multirun, close=close)


def _break(seed: int, times: int) -> None:
    """Let training raise in the second epoch of runs of a seed."""
    import torch  # noqa: PLC0415

    from cnmc.model.module import CellClassifier  # noqa: PLC0415

    step = CellClassifier.training_step
    left = times

    def training_step(self: CellClassifier, batch: Any, position: int) -> Any:
        nonlocal left
        if self.seed == seed and self.current_epoch == 1 and left > 0:
            left -= 1
            raise torch.OutOfMemoryError("CUDA out of memory, says the test")
        return step(self, batch, position)

    CellClassifier.training_step = training_step  # type: ignore[assignment]


def _read(output: int, texts: list[str]) -> None:
    with os.fdopen(output, errors="replace") as file:
        texts.append(file.read())


def _serve(request: Request) -> list[Outcome]:
    started: list[tuple[int, threading.Thread, list[str]]] = []
    for arguments in request.arguments:
        output, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _child(arguments, request, writer)
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                # Threads and locks of the parent are not this process's to clean up.
                os._exit(status)
        os.close(writer)
        reader = threading.Thread(target=_read, args=(output, texts := list[str]()))
        started.append((pid, reader, texts))
    # Only now, since a process that has threads should not fork.
    for _, reader, _ in started:
        reader.start()
    if request.signal is not None:
        time.sleep(request.after)
        for pid, _, _ in started:
            try:
                os.killpg(pid, request.signal)
            except ProcessLookupError:
                os.kill(pid, request.signal)
    outcomes = []
    for pid, reader, texts in started:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        reader.join()
        outcomes.append(Outcome(status, "".join(texts)))
    return outcomes


def _main() -> None:
    import cnmc.train  # noqa: F401, PLC0415 - what takes the time

    # A signal meant for a child must not end the parent; the child sets its own.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps([asdict(out) for out in _serve(Request(**json.loads(line)))]))
        answers.write("\n")
        answers.flush()


if __name__ == "__main__":
    _main()

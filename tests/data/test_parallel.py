from __future__ import annotations

import threading
import time

import pytest

import cnmc.data.parallel as module
from cnmc.data.parallel import map_threads


def test_results_keep_their_order() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    results = list(
        map_threads(slow_first, range(20), num_workers=4, description="x", show_progress=False)
    )
    assert results == [item * item for item in range(20)]


def test_no_workers_count_as_one() -> None:
    threads = set(
        map_threads(
            lambda _: threading.get_ident(),
            range(5),
            num_workers=0,
            description="x",
            show_progress=False,
        )
    )
    assert len(threads) == 1
    assert list(map_threads(str, [], num_workers=2, description="x")) == []


def test_the_first_failure_ends_the_whole() -> None:
    begun: list[int] = []

    def fail(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise RuntimeError("broken")
        time.sleep(0.01)

    with pytest.raises(RuntimeError, match="broken"):
        list(map_threads(fail, range(500), num_workers=1, description="x", show_progress=False))
    assert len(begun) < 250


def test_without_a_terminal_lines_are_few(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(map_threads(str, range(2000), num_workers=2, description="Reading"))
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", 0.0)
    list(map_threads(str, range(3), num_workers=1, description="Reading"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Reading: 1 of 3, ")
    assert lines[-1].startswith("Reading: 3 in ")
    list(map_threads(str, range(3), num_workers=1, description="Reading", show_progress=False))
    assert capsys.readouterr().err == ""

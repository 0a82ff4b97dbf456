"""The progress of a running study: what its jobs write, and what the command shows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.study.monitor import Board, JobState, Monitor, seconds_left
from cnmc.training.progress import RunProgress

LABELS = ["demo/seed=0", "demo/seed=1", "demo/seed=2"]


def _study(root: Path, *, terminal: bool) -> tuple[Board, Monitor, Callable[[], list[str]]]:
    board = Board(root, "a")
    board.open()
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, highlight=False)
    monitor = Monitor(board, [RunFolder(root / label) for label in LABELS], console)
    return board, monitor, lambda: text.getvalue().splitlines()


def _running(epoch: int, share: float, doing: str | None = None) -> JobState:
    f1 = None if doing and epoch == 0 else 0.8125
    progress = RunProgress("demo/seed=1", epoch, 4, share, f1, f1, seconds_left=75.0, doing=doing)
    return JobState(1, "running", began=0.0, progress=progress)


def test_states_are_read_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    board = Board(tmp_path, "a")
    board.open()
    states = [JobState(10, "refused", began=0.0), _running(1, 0.25), JobState(0, "finished", 0.0)]
    for state in states:
        board.write(state)
    assert Board(tmp_path, "a").states() == states[::-1]
    assert [state.share for state in states] == [0.0, 0.25, 1.0]


def test_a_board_that_cannot_be_written_stops_no_study(tmp_path: Path) -> None:
    (tmp_path / ".multirun").write_text("a file in the way")
    board = Board(tmp_path, "a")
    board.open()
    board.write(_running(0, 0.0))
    assert board.states() == []
    board.close()


def test_boards_of_ended_commands_are_removed(tmp_path: Path) -> None:
    dead, alive, new = (Board(tmp_path, name) for name in ("dead", "alive", "new"))
    dead.open()
    dead._lock.release()  # as the end of a process does
    alive.open()
    # A job that outlives its command writes again.
    dead.write(_running(0, 0.0))
    new.open()
    assert not dead.path.exists()
    assert alive.path.is_dir()
    new.close()
    alive.close()
    assert list((tmp_path / ".multirun").iterdir()) == []


def test_every_epoch_is_printed_once(tmp_path: Path) -> None:
    board, monitor, lines = _study(tmp_path, terminal=False)
    monitor.start()
    for state in (_running(0, 0.0, "evaluated batch 1/2"), _running(0, 0.0), _running(1, 0.25)):
        board.write(state)
        monitor.look()
        monitor.look()
    monitor.stop()
    monitor.stop()
    _, *epochs = lines()
    assert [line.split("  ")[:3] for line in epochs] == [
        ["run 2 of 3", "demo/seed=1 epoch 0/4", "F1 81.25"],
        ["run 2 of 3", "demo/seed=1 epoch 1/4", "F1 81.25"],
    ]
    assert "study" in epochs[-1]


def test_within_an_epoch_there_is_a_line_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, monitor, lines = _study(tmp_path, terminal=False)
    for batch in (1, 2):
        board.write(_running(1, 0.25, f"training batch {batch}/9"))
        monitor.look()
    assert len(lines()) == 1
    monkeypatch.setattr("cnmc.training.progress.SECONDS_BETWEEN_LINES", 0.0)
    monitor.look()
    assert len(lines()) == 2
    assert "training batch 2/9" in lines()[-1]


def test_the_end_of_a_run_shows_its_result_or_reason(tmp_path: Path) -> None:
    board, monitor, lines = _study(tmp_path, terminal=False)
    info = RunInfo("finished", "demo", "seed=0", 0, "0", "now", best_f1=0.5, best_epoch=3)
    RunFolder(tmp_path / LABELS[0]).write_info(info)
    board.write(JobState(0, "skipped", began=0.0))
    board.write(JobState(1, "failed", began=0.0, error="OSError: [Errno 28] full [bold]"))
    board.write(JobState(2, "interrupted", began=0.0))
    monitor.look()
    monitor.look()
    first, second, third = lines()
    assert first == "run 1 of 3  demo/seed=0 finished already  F1 50.00 at epoch 3"
    assert second == "run 2 of 3  demo/seed=1 failed: OSError: [Errno 28] full [bold]"
    assert third.startswith("run 3 of 3  demo/seed=2 interrupted: ")


def test_a_terminal_shows_a_bar_for_each_running_run_and_the_study(tmp_path: Path) -> None:
    board, monitor, lines = _study(tmp_path, terminal=True)
    board.write(JobState(0, "finished", began=0.0))
    board.write(_running(2, 0.5, "training batch 3/9"))
    board.write(JobState(2, "running", began=0.0))
    monitor.display.bars.start()
    monitor.look()
    monitor.display.bars.stop()
    before = len(lines())
    monitor.display.console.print(monitor.display.bars.get_renderable())
    bars = lines()[before - 1 :]
    for words in ("training batch 3/9", "demo/seed=2 opening the data", "1 of 3 runs done"):
        assert sum(words in bar for bar in bars) == 1


def test_the_time_left_follows_the_pace_of_this_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 160.0)
    assert seconds_left([], 5) is None
    # Skipped runs took no time; half of the second run existed before.
    states = [
        JobState(0, "skipped", began=0.0),
        JobState(1, "finished", began=100.0, first_share=0.5),
        _running(2, 0.5),
        JobState(3, "refused", began=100.0),
    ]
    states[2].began = 100.0
    # One run's worth in 60 s; half a run and a whole one are left.
    assert seconds_left(states, 5) == pytest.approx(90.0)

"""The board of a study: what the jobs write, what the launching process reads."""

from __future__ import annotations

from pathlib import Path

from cnmc.study.board import Board, JobState, JobStatus
from cnmc.training.progress import RunProgress


def _state(num: int, status: JobStatus) -> JobState:
    progress = RunProgress("demo/seed=0", epoch=1, max_epochs=6, share=0.25, f1=0.5)
    return JobState(num, status, began=100.0, progress=progress)


def test_states_are_read_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    board = Board(tmp_path, "a")
    board.open()
    states = [_state(10, "running"), _state(2, "finished")]
    for state in states:
        board.write(state)
    assert Board(tmp_path, "a").states() == states[::-1]
    assert [state.share for state in states] == [0.25, 1.0]


def test_a_refused_run_is_a_failure(tmp_path: Path) -> None:
    board = Board(tmp_path, "a")
    board.open()
    board.write(_state(0, "finished"))
    assert board.first_failure() is None
    board.write(_state(1, "refused"))
    assert board.first_failure() == _state(1, "refused")


def test_a_board_that_cannot_be_written_stops_no_study(tmp_path: Path) -> None:
    (tmp_path / ".multirun").write_text("a file in the way")
    board = Board(tmp_path, "a")
    board.open()
    board.write(_state(0, "running"))
    assert board.states() == []
    board.close()


def test_boards_of_ended_commands_are_removed(tmp_path: Path) -> None:
    dead, alive, new = (Board(tmp_path, name) for name in ("dead", "alive", "new"))
    dead.open()
    dead.write(_state(0, "running"))
    dead._lock.release()  # as the end of a process does
    alive.open()
    assert not dead.path.exists()
    # A job that outlives its command writes again.
    dead.write(_state(0, "finished"))
    new.open()
    assert not dead.path.exists()
    assert alive.path.is_dir()
    new.close()
    alive.close()
    assert list((tmp_path / ".multirun").iterdir()) == []

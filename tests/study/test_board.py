"""The board of a study: what the jobs write, what the launching process reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cnmc.runs.folder import RunFolder
from cnmc.study.board import Board, JobState, JobStatus
from cnmc.training.progress import RunProgress


def _progress(epoch: int, share: float) -> RunProgress:
    return RunProgress(name="demo/seed=0", epoch=epoch, max_epochs=6, share=share, f1=0.5)


def _board(root: Path, num_runs: int = 4) -> Board:
    board = Board(root, "a")
    assert board.open([RunFolder(root / "demo" / f"seed={seed}") for seed in range(num_runs)])
    return board


def _state(num: int, status: JobStatus, share: float = 0.0, began: float = 100.0) -> JobState:
    return JobState(num, status, f"runs/demo/seed={num}", began, progress=_progress(1, share))


def test_states_are_read_as_they_were_written_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    board = _board(tmp_path, 12)
    states = [_state(num, "running", 0.25) for num in (10, 2)]
    for state in states:
        board.write(state)
    assert Board(tmp_path, "a").states() == states[::-1]
    assert board.plan()["pid"] == os.getpid()
    assert len(board.plan()["runs"]) == 12


def test_the_time_left_goes_by_what_this_command_did(tmp_path: Path) -> None:
    board = _board(tmp_path, 5)
    assert board.seconds_left(now=100.0) is None
    # Skipped runs took no time; of the second, half was there already.
    board.write(_state(0, "skipped", began=0.0))
    half = _state(1, "finished")
    half.first_share = 0.5
    board.write(half)
    board.write(_state(2, "running", 0.5))
    # Neither work nor left to do.
    board.write(_state(3, "refused"))
    # One run's worth in 60 s; half a run and a whole one are left.
    assert board.seconds_left(now=160.0) == pytest.approx(90.0)


def test_a_run_that_was_refused_is_a_failure(tmp_path: Path) -> None:
    board = _board(tmp_path)
    board.write(_state(0, "finished"))
    assert board.first_failure() is None
    board.write(_state(1, "refused"))
    failed = board.first_failure()
    assert failed is not None
    assert failed.num == 1


def test_a_state_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / ".multirun").write_text("a file in the way")
    board = Board(tmp_path, "a")
    assert board.open([]) is None
    board.write(_state(0, "running"))
    assert board.states() == []
    assert board.plan()["runs"] == []


def test_boards_of_commands_that_are_no_more_are_removed(tmp_path: Path) -> None:
    dead = Board(tmp_path, "dead")
    lock = dead.open([])
    assert lock is not None
    living = Board(tmp_path, "living")
    held = living.open([])
    assert held is not None
    assert dead.path.is_dir()
    # As the end of a process does.
    lock.release()
    # As one that is killed between the removal of its board and that of the lock leaves it.
    (tmp_path / ".multirun" / ".gone.lock").touch()
    # And as one that is killed before it has written its plan.
    (tmp_path / ".multirun" / ".early.lock").touch()
    (tmp_path / ".multirun" / "early").mkdir()
    (tmp_path / ".multirun" / "of_a_launcher").mkdir()
    next_one = Board(tmp_path, "next")
    next_lock = next_one.open([])
    assert next_lock is not None
    assert not dead.path.exists()
    assert not (tmp_path / ".multirun" / "early").exists()
    assert living.path.is_dir()
    held.release()
    next_lock.release()
    next_one.close()
    living.close()
    assert [path.name for path in (tmp_path / ".multirun").iterdir()] == ["of_a_launcher"]


def test_a_board_stays_while_a_job_outlives_its_command(tmp_path: Path) -> None:
    """A cluster's jobs go on when the command that sent them has ended."""
    board = Board(tmp_path, "a")
    lock = board.open([])
    assert lock is not None
    folder = RunFolder(tmp_path / "demo" / "seed=0")
    board.write(JobState(0, "running", str(folder.path), began=0.0))
    lock.release()
    with folder.lock():
        board.close()
        assert board.states()
    board.close()
    assert not board.path.exists()

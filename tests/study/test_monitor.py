"""What is shown of a study at work."""

from __future__ import annotations

import io
import time
from pathlib import Path

from rich.console import Console

from cnmc.runs.folder import RunFolder, RunInfo
from cnmc.study.board import Board, JobState
from cnmc.study.monitor import _GOES_ON, Monitor
from cnmc.training.progress import RunProgress

LABELS = ["demo/seed=0", "demo/seed=1", "demo/seed=2"]


def _study(root: Path, *, terminal: bool) -> tuple[Board, Monitor, io.StringIO]:
    board = Board(root, "a")
    assert board.open([RunFolder(root / label) for label in LABELS])
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, highlight=False)
    return board, Monitor(board, len(LABELS), console), text


def _progress(epoch: int, doing: str | None = None) -> RunProgress:
    return RunProgress(
        "demo/seed=1",
        epoch=epoch,
        max_epochs=4,
        share=epoch / 4,
        f1=0.8125,
        f1_norot=0.75,
        best_f1=0.8125,
        seconds_left=75.0,
        doing=doing,
    )


def test_every_epoch_is_one_line_and_said_once(tmp_path: Path) -> None:
    board, monitor, text = _study(tmp_path, terminal=False)
    state = JobState(1, "running", str(tmp_path / LABELS[1]), began=0.0, progress=_progress(1))
    monitor.start()
    board.write(state)
    monitor.stop()
    monitor.stop()
    first, line = text.getvalue().splitlines()
    assert first.startswith("a study of 3 runs")
    assert line.startswith("run 2 of 3  demo/seed=1 epoch 1/4  F1 81.25  without rotations 75.00")
    assert "best 81.25  0:01:15 left, study " in line


def test_the_network_before_training_is_told_when_it_is_evaluated(tmp_path: Path) -> None:
    board, monitor, text = _study(tmp_path, terminal=False)
    state = JobState(1, "running", str(tmp_path / LABELS[1]), began=0.0)
    board.write(state)
    monitor._look()
    for f1 in (None, 0.5):
        doing = "evaluated batch 1/2" if f1 is None else None
        state.progress = RunProgress("demo/seed=1", 0, 4, share=0.0, f1=f1, doing=doing)
        board.write(state)
        monitor._when[1] = time.monotonic()
        monitor._look()
    (line,) = text.getvalue().splitlines()
    assert line.startswith("run 2 of 3  demo/seed=1 epoch 0/4  F1 50.00")


def test_within_an_epoch_a_line_a_minute_is_enough(tmp_path: Path) -> None:
    board, monitor, text = _study(tmp_path, terminal=False)
    for batch in (1, 2):
        doing = f"training batch {batch}/9 loss 0.5000"
        board.write(JobState(1, "running", "x", began=0.0, progress=_progress(1, doing)))
        monitor._look()
    assert text.getvalue().count("\n") == 1
    monitor._when[1] -= 60.0
    monitor._look()
    assert "training batch 2/9 loss 0.5000" in text.getvalue().splitlines()[-1]
    assert text.getvalue().count("\n") == 2
    monitor._ended.set()


def test_endings_are_told_with_their_result_or_reason(tmp_path: Path) -> None:
    board, monitor, text = _study(tmp_path, terminal=False)
    done = RunFolder(tmp_path / LABELS[0])
    info = RunInfo("finished", "demo", "seed=0", 0, "0", "now", best_f1=0.5, best_epoch=3)
    done.write_info(info)
    board.write(JobState(0, "skipped", str(done.path), began=0.0))
    board.write(
        JobState(1, "failed", f"r/{LABELS[1]}", began=0.0, error="OSError: [Errno 28] full [bold]")
    )
    board.write(JobState(2, "interrupted", f"r/{LABELS[2]}", began=0.0))
    monitor._look()
    monitor._look()
    assert text.getvalue().splitlines() == [
        "run 1 of 3  demo/seed=0 finished already  F1 50.00 at epoch 3",
        "run 2 of 3  demo/seed=1 failed: OSError: [Errno 28] full [bold]",
        f"run 3 of 3  demo/seed=2 interrupted: {_GOES_ON}",
    ]


def test_a_terminal_shows_a_line_for_each_run_at_work_and_one_for_the_study(
    tmp_path: Path,
) -> None:
    board, monitor, text = _study(tmp_path, terminal=True)
    board.write(JobState(0, "finished", str(tmp_path / LABELS[0]), began=0.0))
    board.write(JobState(1, "running", "x", began=0.0, progress=_progress(2, "training batch 3/9")))
    board.write(JobState(2, "running", f"r/{LABELS[2]}", began=0.0))
    monitor.console.print(monitor._at_work())
    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    assert "demo/seed=1 epoch 2/4" in lines[0]
    assert "training batch 3/9" in lines[0]
    assert "demo/seed=2 opening the data" in lines[1]
    assert "1 of 3 runs done" in lines[2]

"""What the person who waits for a study sees."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from components.training.observer import Place
from pipelines.mailbox import Update
from pipelines.progress import Board, LiveBoard, PlainBoard
from pipelines.study.watch import Watch

NAMES = {"k1": "plain, seed 0", "k2": "prm-kd, seed 0"}


def watched(board: Board) -> None:
    with board:
        watch = Watch(board, NAMES)
        watch({"k1": Update(begun=Place(5, 0, 0, 100, 0), epochs=5)}, {})
        watch({"k1": Update(done=50, epoch=1, epochs=5)}, {})
        watch({"k1": Update(done=50, epoch=2, epochs=5)}, {"k1": ""})
        watch({"k1": Update(done=50)}, {"k1": ""})  # late news of what is over
        watch({}, {"k1": "", "k2": "the disk is full"})  # over before any news came
        watch({}, {"k1": "", "k2": "the disk is full"})


def test_every_trial_begins_and_ends_once_and_a_line_counts_them() -> None:
    stream = io.StringIO()
    now = iter(range(0, 1000, 10))
    watched(PlainBoard(Console(file=stream, width=200), interval=1, clock=lambda: float(next(now))))
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if "starts" in line or "done" in line or "failed" in line] == [
        "study: starts (2 trials)",
        "study/plain, seed 0: starts (training)",
        "study/plain, seed 0: done",
        "study/prm-kd, seed 0: starts (training)",
        "study/prm-kd, seed 0: failed: the disk is full",
        "study: 1 of 2 trials done",
    ]
    assert any(line.startswith("study/plain, seed 0: 50 of 100 targets") for line in lines)
    assert any(line.startswith("study: 1 of 2 trials, ") and line.endswith(" left") for line in lines)


@pytest.mark.parametrize("width", [40, 200])
def test_the_live_board_shows_it_too(width: int) -> None:
    stream = io.StringIO()
    watched(LiveBoard(Console(file=stream, width=width, force_terminal=True)))
    assert "failed: the disk is" in " ".join(stream.getvalue().split())

from __future__ import annotations

import io
import threading

from rich.console import Console

from pipelines.progress import LiveBoard, PlainBoard, Tracker, duration, make_board


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plain() -> tuple[PlainBoard, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    return PlainBoard(Console(file=stream, width=200), interval=5, clock=clock), clock, stream


def test_a_line_tells_count_rate_and_time_left() -> None:
    tracker = Tracker(100.0, total=1000, done=250, unit="rows", shown={"loss": 3.14159, "epoch": "2/9"})
    assert tracker.describe(110.0) == "250 of 1,000 rows, 25/s, 30 s left, loss 3.142, epoch 2/9"


def test_what_was_done_before_says_nothing_of_the_speed() -> None:
    tracker = Tracker(100.0, total=1000, done=250, before=200, unit="rows")
    assert tracker.describe(110.0) == "250 of 1,000 rows, 5/s, 2 min 30 s left"
    assert Tracker(100.0, total=1000, done=200, before=200, unit="rows").describe(110.0) == "200 of 1,000 rows"


def test_a_line_without_total_has_no_time_left() -> None:
    assert Tracker(0.0, done=30, unit="rows").describe(10.0) == "30 rows, 3/s"


def test_a_line_before_counting_shows_the_note() -> None:
    assert Tracker(0.0, text="reading").describe(10.0) == "reading"


def test_nothing_is_divided_by_zero() -> None:
    assert Tracker(0.0, total=0, unit="rows").describe(0.0) == "0 of 0 rows"


def test_durations() -> None:
    assert [duration(value) for value in (0.2, 59, 60, 3599, 3600, 90061)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "25 h 1 min",
    ]


def test_plain_lines_come_at_most_every_few_seconds() -> None:
    board, clock, stream = plain()
    progress = board.begin("prepare", "not done yet")
    progress.start(100, "rows")
    for _ in range(50):
        clock.now += 0.25
        progress.advance(1)
    board.end("prepare", "done in 13 s")
    assert stream.getvalue().splitlines() == [
        "prepare: starts (not done yet)",
        "prepare: 20 of 100 rows, 4/s, 20 s left",
        "prepare: 40 of 100 rows, 4/s, 15 s left",
        "prepare: done in 13 s",
    ]


def test_text_of_users_is_no_markup() -> None:
    board, _, stream = plain()
    board.end("teach/a", "[red]failed[/red]")
    assert stream.getvalue() == "teach/a: [red]failed[/red]\n"


def test_threads_lose_no_count() -> None:
    board, _, _ = plain()
    progress = board.begin("teach/a", "x")
    progress.start(None, "rows")
    threads = [threading.Thread(target=lambda: [progress.advance() for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.tracker.done == 4000  # type: ignore[attr-defined]


def test_a_terminal_gets_live_lines() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with make_board(console) as board:
        assert isinstance(board, LiveBoard)
        progress = board.begin("teach/a", "not done yet")
        progress.start(10, "rows")
        progress.advance(5)
        progress.say("resumed at epoch 2, step 4")
        board.end("teach/a", "done in 1 s")
    assert "teach/a: resumed at epoch 2, step 4" in stream.getvalue()
    assert "teach/a: done in 1 s" in stream.getvalue()


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(make_board(Console(file=io.StringIO())), PlainBoard)

"""The worker's end of the contest, without a process of its own."""

from __future__ import annotations

import io
import json

import pytest

from benchmarks.peers.session import Session, cpu_seconds, peak_megabytes, reset_peak


def talk(lines: list[dict[str, object]]) -> tuple[Session, io.StringIO]:
    answers = io.StringIO()
    return Session(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), answers), answers


def read(answers: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_rounds_are_answered_with_sums_and_means() -> None:
    session, answers = talk([{"steps": 2}, {"steps": 1}])
    session.begin(parameters=7)
    session.tick(10, 4.0)
    session.tick(20, 2.0)
    with pytest.raises(SystemExit):  # the contest closes stdin
        session.tick(5, 1.0)
    ready, first, second = read(answers)
    assert ready["ready"] == {"parameters": 7}
    assert (first["units"], first["steps"], first["value"]) == (30, 2, 3.0)
    assert (second["units"], second["steps"], second["value"]) == (5, 1, 1.0)


def test_a_round_of_seconds_ends_with_the_step_that_uses_them_up() -> None:
    session, answers = talk([{"seconds": 0.2}, {"steps": 1}])
    session.begin()

    def work() -> None:
        while True:
            before = cpu_seconds()
            while cpu_seconds() - before < 0.06:
                sum(range(1000))
            session.tick(1)

    with pytest.raises(SystemExit):
        work()
    _, first, second = read(answers)
    assert 0.2 <= float(str(first["cpu_s"])) < 5
    assert int(str(first["steps"])) > 1
    assert second["steps"] == 1


def test_rankings_are_made_between_rounds_and_not_charged() -> None:
    asked: list[tuple[str, str]] = []
    session, answers = talk([{"steps": 1}, {"rank": "valid", "file": "v"}, {"rank": "test", "file": "t"}, {"steps": 1}])

    def rank(part: str, file: str) -> None:
        asked.append((part, file))
        before = cpu_seconds()
        while cpu_seconds() - before < 0.2:
            sum(range(1000))

    session.begin(rank, parameters=7)
    session.tick(1)
    with pytest.raises(SystemExit):
        session.tick(1)
    assert asked == [("valid", "v"), ("test", "t")]
    ready, _, valid, test, last = read(answers)
    assert (ready["ready"], valid, test) == ({"parameters": 7}, {"ranked": "valid"}, {"ranked": "test"})
    assert float(str(last["cpu_s"])) < 0.1


def test_a_worker_that_cannot_rank_says_so() -> None:
    session, _ = talk([{"rank": "test", "file": "t"}])
    with pytest.raises(ValueError, match="asked to rank the part 'test', but this worker ranks for nobody"):
        session.begin()


def test_the_clock_stands_still_between_rounds() -> None:
    """Work done before `begin` and between the rounds is not charged."""
    session, answers = talk([{"steps": 1}])
    before = cpu_seconds()
    while cpu_seconds() - before < 0.2:
        sum(range(1000))
    session.begin()
    with pytest.raises(SystemExit):
        session.tick(1)
    assert float(str(read(answers)[1]["cpu_s"])) < 0.1


def test_peak_memory_is_of_the_time_since_the_reset() -> None:
    block = bytearray(128 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    with_block = peak_megabytes()
    del block
    if not reset_peak():
        pytest.skip("this system cannot reset the peak")
    assert peak_megabytes() < with_block - 64

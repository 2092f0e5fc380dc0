"""The Pareto front and the winner: pure functions, against a plain reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import StageError
from pipelines.search.candidates import Weight
from pipelines.search.choice import choose_winner, fits, pareto_front
from pipelines.search.config import SearchConfig
from pipelines.search.trial import Record, State


def record(number: int, metric: float, size: int, latency: float = 1.0, state: State = "done") -> Record:
    weight = Weight(size // 4, size)
    return Record(number, str(number), {}, weight, state, "", [metric], metric, latency)


points = st.lists(st.tuples(st.integers(0, 5), st.integers(4, 9), st.integers(1, 4)), min_size=1, max_size=12)


@given(points)
def test_the_front_is_what_nothing_dominates(values: list[tuple[int, int, int]]) -> None:
    records = [record(number, metric / 10, size, latency) for number, (metric, size, latency) in enumerate(values)]
    front = {each.number for each in pareto_front(records)}
    for number, (metric, size, latency) in enumerate(values):
        better = [
            (m >= metric and s <= size and q <= latency) and (m, s, q) != (metric, size, latency) for m, s, q in values
        ]
        assert (number in front) == (not any(better))


def test_only_finished_students_count() -> None:
    records = [record(1, 0.5, 100), record(2, 0.9, 50, state="stopped"), record(3, 0.9, 50, state="failed")]
    assert [each.number for each in pareto_front(records)] == [1]
    assert choose_winner(records, SearchConfig()).record.number == 1


def test_the_best_within_the_budgets_wins_and_says_why() -> None:
    records = [record(1, 0.5, 100), record(2, 0.4, 40), record(3, 0.4, 44), record(4, 0.6, 60, latency=9.0)]
    assert choose_winner(records, SearchConfig()).record.number == 4
    assert choose_winner(records, SearchConfig(max_latency_ms=2)).record.number == 1
    winner = choose_winner(records, SearchConfig(max_bytes=60, max_latency_ms=2))
    assert winner.record.number == 2  # as good as 3, and smaller
    assert "best valid_ndcg@10 (0.4000) of 2 finished students within max_bytes 60, max_latency_ms 2" in winner.reason
    assert "2 finished ones were too large or too slow" in winner.reason
    assert not fits(records[3], SearchConfig(max_latency_ms=2))


def test_no_winner_has_a_reason() -> None:
    with pytest.raises(StageError, match=r"max_latency_ms: 0.5 was met by none of 1 finished .* takes 1.000 ms"):
        choose_winner([record(1, 0.5, 100)], SearchConfig(max_latency_ms=0.5))
    failed = Record(1, "1", {}, Weight(1, 4), "failed", "the loss is NaN")
    with pytest.raises(StageError, match="no student of the search finished training; the loss is NaN"):
        choose_winner([failed], SearchConfig())

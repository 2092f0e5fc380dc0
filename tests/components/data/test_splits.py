import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.splits import (
    BUCKETS,
    Cuts,
    Shares,
    find_time,
    leave_one_out,
    split,
    time_bounds,
    time_histogram,
)
from components.data.tally import Tally

SECOND = 1_000_000


def partition(*users: list[int]) -> pa.Table:
    """Sequences of which only the times, in seconds, matter."""
    times = pa.array([[second * SECOND for second in user] for user in users], pa.list_(pa.int64()))
    return pa.table({"items": times, "timestamps": times})


@pytest.mark.parametrize(("length", "ends"), [(1, (1, 1)), (2, (2, 2)), (3, (1, 2)), (7, (5, 6))])
def test_leave_one_out(length: int, ends: tuple[int, int]) -> None:
    assert tuple(int(end[0]) for end in leave_one_out(np.array([length]))) == ends


def test_two_points_in_time_cut_every_user() -> None:
    table = split(partition([1, 2, 3, 4], [3, 3], [9], [1]), Cuts(3 * SECOND, 4 * SECOND))
    assert table["train_end"].to_pylist() == [2, 0, 0, 1]
    assert table["valid_end"].to_pylist() == [3, 2, 0, 1]


def test_times_within_a_second_are_cut_exactly() -> None:
    times = pa.array([[5 * SECOND - 1, 5 * SECOND]], pa.list_(pa.int64()))
    table = split(pa.table({"items": times, "timestamps": times}), Cuts(5 * SECOND, 9 * SECOND))
    assert table["train_end"].to_pylist() == [1]


def of_users(names: list[str], length: int) -> pa.Table:
    lists = pa.array([[0] * length] * len(names), pa.list_(pa.int32()))
    return pa.table({"items": lists, "user_id": pa.array(names, pa.string())})


def test_whole_sequences_are_held_out_in_the_wanted_shares() -> None:
    table = split(of_users([f"u{row // 2}" for row in range(10_000)], 4), Shares(0.1, 0.2))
    ends = list(zip(table["train_end"].to_pylist(), table["valid_end"].to_pylist(), strict=True))
    assert set(ends) == {(0, 3), (3, 4), (4, 4)}
    assert abs(ends.count((0, 3)) / len(ends) - 0.2) < 0.02
    assert abs(ends.count((3, 4)) / len(ends) - 0.1) < 0.02
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    assert sum(one != other for one, other in pairs) > 1000, "sequences of a user are drawn one by one"


def test_who_is_held_out_does_not_depend_on_the_partition() -> None:
    names = [f"u{row // 3}" for row in range(60)]
    whole = split(of_users(names, 3), Shares(0.3, 0.3))
    halves = [split(of_users(part, 3), Shares(0.3, 0.3)) for part in (names[:30], names[30:])]
    assert pa.concat_tables(halves) == whole.combine_chunks()


def test_a_sequence_of_one_item_trains() -> None:
    assert split(of_users(["a"], 1), Shares(0.1, 0.8))["train_end"].to_pylist() == [1]


@settings(deadline=None)
@given(
    st.lists(st.integers(-(10**10), 10**10), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(1, 3),
)
def test_the_cut_is_the_quantile(seconds: list[int], share: float, parts: int) -> None:
    blocks = [partition(seconds[part::parts]) for part in range(parts)]
    bounds, _ = Tally(map(time_bounds, blocks)).pairs("bounds")

    def histogram(low: int, width: int) -> tuple[int, np.ndarray]:
        tally = Tally(time_histogram(block, low, width) for block in blocks)
        return tally.scalar("before"), tally.dense("times", BUCKETS)

    wanted = max(round(share * len(seconds)), 1)
    cut = find_time(histogram, int(bounds[0]), int(bounds[-1]), wanted)
    assert sum(second < cut for second in seconds) >= wanted
    assert sum(second < cut - 1 for second in seconds) < wanted

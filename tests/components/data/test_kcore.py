from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.kcore import count_items, find_core, keep_core
from components.data.tally import Tally

Pairs = list[tuple[int, int]]
NUM_ITEMS = 6


def partition(pairs: Pairs) -> pa.Table:
    users = sorted({user for user, _ in pairs})
    lists = [[item for other, item in pairs if other == user] for user in users]
    return pa.table({"items": pa.array(lists, pa.list_(pa.int32())), "user_id": pa.array(users)})


def plain_core(pairs: Pairs, min_user: int, min_item: int) -> Pairs:
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        kept = [(user, item) for user, item in pairs if users[user] >= min_user and items[item] >= min_item]
        if len(kept) == len(pairs):
            return kept
        pairs = kept


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, NUM_ITEMS - 1)), max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_the_core_is_that_of_the_plain_definition(pairs: Pairs, min_user: int, min_item: int, parts: int) -> None:
    blocks = [partition([pair for pair in pairs if pair[0] % parts == part]) for part in range(parts)]

    def count(alive: np.ndarray) -> np.ndarray:
        return Tally(count_items(block, alive, min_user) for block in blocks).dense("items", NUM_ITEMS)

    core = find_core(count, np.ones(NUM_ITEMS, np.bool_), min_item)
    kept = [
        (row["user_id"], item)
        for block in blocks
        for row in keep_core(block, core.alive, min_user).to_pylist()
        for item in row["items"]
    ]
    assert sorted(kept) == sorted(plain_core(pairs, min_user, min_item))


def test_a_chain_falls_round_by_round() -> None:
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]
    block = partition(pairs)
    core = find_core(lambda alive: Tally([count_items(block, alive, 2)]).dense("items", 4), np.ones(4, np.bool_), 2)
    assert core.items_per_round == [2, 0]
    assert not core.alive.any()


@pytest.mark.parametrize("candidates", [[True, False], [False, False]])
def test_only_candidates_survive(candidates: list[bool]) -> None:
    core = find_core(lambda alive: np.array([9, 9]) * alive, np.array(candidates), 1)
    assert core.alive.tolist() == candidates

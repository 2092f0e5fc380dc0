"""Histories in chunks: against a plain definition, and what stands beside them."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.chunks import cut_chunks

Users = list[list[int]]


def partition(users: Users) -> pa.Table:
    return pa.table(
        {
            "range": pa.array(range(len(users)), pa.int32()),
            "user_id": pa.array([f"u{row}" for row in range(len(users))]),
            "items": pa.array(users, pa.list_(pa.int32())),
            "timestamps": pa.array([[10 * item for item in user] for user in users], pa.list_(pa.int64())),
        }
    )


def plain_chunks(users: Users, chunk: int) -> list[tuple[str, list[int]]]:
    found = []
    for row, user in enumerate(users):
        pieces = []
        while user:
            user, piece = user[:-chunk], user[-chunk:]
            pieces.append(piece)
        found += [(f"u{row}", piece) for piece in reversed(pieces) if len(piece) > 1]
    return found


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=6), st.integers(2, 5))
def test_chunks_are_those_of_the_plain_definition(users: Users, chunk: int) -> None:
    found = cut_chunks(partition(users), chunk).to_pylist()
    assert [(row["user_id"], row["items"]) for row in found] == plain_chunks(users, chunk)
    for row in found:
        assert row["timestamps"] == [10 * item for item in row["items"]]
        assert row["user_id"] == f"u{row['range']}"


def test_types_stay() -> None:
    table = partition([[1, 2, 3], []])
    assert cut_chunks(table, 2).schema == table.schema

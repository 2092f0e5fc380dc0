import numpy as np
import pyarrow as pa
import pytest

from components.data.audit import audit, check_audit, summarize
from components.data.tally import Tally
from components.errors import DataError

DAY = 86_400 * 1_000_000


def report(*users: tuple[list[int], list[int] | None, int, int], split: str = "leave_one_out") -> dict[str, object]:
    """Users as (item codes, days, train_end, valid_end); every user is a partition."""
    tables = []
    for items, days, train_end, valid_end in users:
        columns = {"range": pa.array([0], pa.int32()), "items": pa.array([items], pa.list_(pa.int32()))}
        if days is not None:
            columns["timestamps"] = pa.array([[day * DAY for day in days]], pa.list_(pa.int64()))
        columns["train_end"] = pa.array([train_end], pa.int32())
        columns["valid_end"] = pa.array([valid_end], pa.int32())
        tables.append(summarize(pa.table(columns), 4, 1))
    return audit(Tally(tables), np.ones(4, np.bool_), split)


def finding(found: dict[str, object], name: str) -> dict[str, object] | None:
    return next((item for item in found["findings"] if item["name"] == name), None)  # type: ignore[attr-defined]


def test_training_after_the_tests_of_others_is_a_leak() -> None:
    found = report(([0, 1, 2], [1, 2, 3], 1, 2), ([0, 1, 2], [8, 9, 10], 1, 2))
    leak = finding(found, "training_after_test")
    assert leak is not None
    assert (leak["severity"], leak["count"], leak["share"]) == ("leak", 1, 0.5)
    assert leak["mean_future_share"] == 0.25  # one of two tests has one of two training interactions in its future
    assert found["leaks"]


def test_a_clean_global_split_has_no_leak() -> None:
    found = report(([0, 1, 2], [1, 2, 3], 1, 2), ([0], [1], 1, 1), split="global_time")
    assert not found["leaks"]
    assert finding(found, "training_after_test") is None


def test_without_times_the_audit_says_that_it_cannot_know() -> None:
    found = report(([0, 1, 2], None, 1, 2))
    assert finding(found, "no_timestamps") is not None
    assert not found["leaks"]


def test_targets_that_training_never_saw_and_targets_seen_before() -> None:
    found = report(([0, 1, 3], None, 1, 2), ([2, 2, 2], None, 1, 2), ([0], None, 1, 1))
    assert finding(found, "unseen_test_targets")["count"] == 1  # type: ignore[index]
    assert finding(found, "repeated_test_targets")["count"] == 1  # type: ignore[index]
    assert (found["test_cases"], found["valid_cases"], found["training_interactions"]) == (2, 2, 3)
    assert found["items_without_training"] == 2  # items 1 and 3


def test_blocking_names_the_leak() -> None:
    found = report(([0, 1, 2], [1, 2, 3], 1, 2), ([0, 1, 2], [8, 9, 10], 1, 2))
    check_audit(found, "report")
    with pytest.raises(
        DataError, match=r"prepare\.audit: block: the split leave_one_out leaks: training_after_test: 1"
    ):
        check_audit(found, "block")
    check_audit(report(([0, 1, 2], None, 1, 2)), "block")

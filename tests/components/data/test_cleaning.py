import polars as pl
import pytest
from pydantic import ValidationError

from components.data.cleaning import PrepareConfig, check_rejected, clean, malformed_rows
from components.errors import DataError


def raw(**columns: list[object]) -> pl.DataFrame:
    size = max(map(len, columns.values()))
    base = {"user_id": ["u"] * size, "item_id": ["i"] * size, "timestamp": ["1"] * size}
    return pl.DataFrame({**base, **columns}, strict=False)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": [""]}, "user_id is missing"),
        ({"user_id": ["  "]}, "user_id is missing"),
        ({"item_id": [None, "i"]}, "item_id is missing"),
        ({"user_id": ["a\ufffdb"]}, "user_id is not UTF-8"),
        ({"user_id": [float("nan")]}, "user_id is not an id"),
        ({"timestamp": [""]}, "timestamp is missing"),
        ({"timestamp": [None, "1"]}, "timestamp is missing"),
        ({"timestamp": ["soon"]}, "timestamp is not a time"),
        ({"rating": ["nan"]}, "rating is not a number"),
        ({"rating": ["five"]}, "rating is not a number"),
        ({"rating": [float("nan")]}, "rating is not a number"),
        ({"rating": [float("inf")]}, "rating is not a number"),
        ({"rating": [None, 1.0]}, "rating is missing"),
        ({"position": ["1.5"]}, "position is not a whole number"),
    ],
)
def test_an_unusable_row_keeps_its_reason(columns: dict[str, list[object]], reason: str) -> None:
    frame = raw(**columns)
    cleaned = clean(frame, "log.csv")
    assert cleaned.rejected["reason"].to_list() == [reason]
    assert cleaned.rejected["source"].to_list() == ["log.csv"]
    assert cleaned.rows.height == frame.height - 1


def test_the_first_reason_counts_and_the_row_is_kept_as_it_was() -> None:
    rejected = clean(raw(user_id=[""], rating=["x"]), "f").rejected
    assert rejected["reason"].to_list() == ["user_id is missing"]
    assert '"rating":"x"' in rejected["row"][0]


def test_strange_ids_are_kept_as_they_are() -> None:
    ids = ["a\nb", "日本", " padded ", "'; DROP TABLE"]
    assert clean(raw(user_id=ids, item_id=ids), "f").rows["user_id"].to_list() == ids


def test_every_row_of_an_unusable_id_goes_whatever_the_type_of_the_column() -> None:
    for kind in (pl.String, pl.Categorical):
        ids = pl.Series("item_id", [" ", "a", "\ufffd", "a", " ", "\ufffd"], dtype=kind)
        cleaned = clean(raw(user_id=["u"] * 6).with_columns(ids), "f")
        reasons = ["item_id is missing", "item_id is not UTF-8"]
        assert cleaned.rejected["reason"].to_list() == [*reasons, *reasons]
        assert cleaned.rows["row"].to_list() == [1, 3]


def test_numbers_become_their_text() -> None:
    frame = raw(item_id=[7, -3, None, 7])
    assert clean(frame, "f").rows["item_id"].to_list() == ["7", "-3", "7"]


def test_whole_floats_are_the_integers_they_once_were() -> None:
    assert clean(raw(item_id=[12.0, 7.0]), "f").rows["item_id"].to_list() == ["12", "7"]


def test_rows_are_typed_and_numbered_before_the_bad_ones_go() -> None:
    rows = clean(raw(user_id=["a", "", "c"], rating=["1", "2", "3.5"]), "f", first_row=10).rows
    assert rows["row"].to_list() == [10, 12]
    assert rows.schema["rating"] == pl.Float32
    assert rows["timestamp"].to_list() == [1_000_000, 1_000_000]


def test_a_clean_batch_rejects_nothing() -> None:
    assert clean(raw(user_id=["a", "b"]), "f").rejected.is_empty()


def test_too_many_rejected_rows_show_counts_and_an_example() -> None:
    example = {"row": '{"user_id":""}', "source": "log.csv", "reason": "user_id is missing"}
    with pytest.raises(DataError, match=r"30 of 100 rows .*30\.0%.*5\.0%.*user_id is missing: 30.*log\.csv"):
        check_rejected(100, {"user_id is missing": 30}, 0.05, example)
    check_rejected(100, {"user_id is missing": 5}, 0.05, example)


def test_an_empty_log() -> None:
    with pytest.raises(DataError, match="the log holds no rows"):
        check_rejected(0, {}, 0.05, None)


def test_malformed_lines_are_rejected_rows() -> None:
    assert malformed_rows(["a,b"], "why", "f").to_dicts() == [{"source": "f", "row": "a,b", "reason": "why"}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"valid_from": 1, "test_from": 2}, "belong to split: global_time"),
        ({"split": "global_time", "valid_from": 1}, "give both"),
        ({"split": "global_time", "valid_from": "soon", "test_from": 2}, "'soon' is no time"),
        ({"split": "global_time", "valid_from": 2, "test_from": 1}, "must lie before"),
        ({"valid_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"min_ratings": 3}, "min_ratings"),
    ],
)
def test_a_wrong_configuration_says_why(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrepareConfig(**values)  # type: ignore[arg-type]

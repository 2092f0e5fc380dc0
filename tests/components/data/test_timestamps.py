from datetime import UTC, date, datetime

import polars as pl
import pytest

from components.data.timestamps import SECOND, parse_time, parse_times

NOON = int(datetime(2020, 1, 1, 12, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON * 1_000,
        NOON * 1_000_000,
        NOON * 1_000_000_000,
        float(NOON),
        str(NOON),
        f"{NOON}.0",
        f" {NOON * 1000} ",
        "2020-01-01T12:00:00Z",
        "2020-01-01T12:00:00",
        "2020-01-01 12:00:00.000",
        "2020-01-01T12:00",
        "2020-01-01T14:00:00+02:00",
    ],
)
def test_every_spelling_of_one_moment(value: object) -> None:
    assert parse_times(pl.Series([value])).to_list() == [NOON * SECOND]


def test_dates_and_times_of_parquet_files() -> None:
    assert parse_times(pl.Series([date(2020, 1, 1)])).to_list() == [(NOON - 43_200) * SECOND]
    for unit in ("ms", "us", "ns"):
        column = pl.Series([datetime(2020, 1, 1, 12)], dtype=pl.Datetime(unit))
        assert parse_times(column).to_list() == [NOON * SECOND]


def test_each_value_is_judged_alone() -> None:
    mixed = pl.Series(["2020-01-01T12:00:00Z", str(NOON), "soon", None, ""])
    assert parse_times(mixed).to_list() == [NOON * SECOND, NOON * SECOND, None, None, None]


@pytest.mark.parametrize("value", ["soon", "nan", "inf", "1e30", "2020-13-01", float("nan"), float("inf")])
def test_no_time(value: object) -> None:
    assert parse_times(pl.Series([value])).to_list() == [None]


def test_milliseconds_keep_their_order() -> None:
    assert parse_times(pl.Series([NOON * 1000 + 5, NOON * 1000 + 4])).to_list() == [
        NOON * SECOND + 5000,
        NOON * SECOND + 4000,
    ]


def test_one_time_of_the_configuration() -> None:
    assert parse_time("2020-01-01T12:00:00Z") == NOON * SECOND
    assert parse_time("yesterday") is None

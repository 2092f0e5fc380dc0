from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from components.data.item_attributes import attribute_values, choose_attributes, find_separator, with_new_items
from components.errors import ConfigError, UnknownNameError


def items(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"item": [1, 2, 3], "item_id": ["a", "b", "c"], "count": [3, 2, 1], **columns})


def values(column: Any, separator: str | None = None) -> list[list[str]]:
    table = items(one=column)
    wanted = None if separator is None else {"one": separator}
    found: list[list[str]] = attribute_values(table, choose_attributes(table, wanted))["one"].to_list()
    return found


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["Action|Drama", "Drama", None], [["Action", "Drama"], ["Drama"], []]),
        (["Action;Drama", " War ; War", ""], [["Action", "Drama"], ["War"], []]),
        (["Action, Drama", "Drama", "War"], [["Action", "Drama"], ["Drama"], ["War"]]),
        (["Toys,Test, Measure", "Toys", None], [["Toys", "Test, Measure"], ["Toys"], []]),
        (["1,299", "3", "4"], [["1,299"], ["3"], ["4"]]),
        ([["x", "y", None], [], None], [["x", "y"], [], []]),
        ([["x", " x "], ["", "z"], None], [["x"], ["z"], []]),
        ([1999, None, 2000], [["1999"], [], ["2000"]]),
        ([1999.0, None, 2000.0], [["1999"], [], ["2000"]]),
        ([[1, 2], [2], None], [["1", "2"], ["2"], []]),
        ([True, False, None], [["true"], ["false"], []]),
    ],
)
def test_the_values_of_a_column(column: Any, expected: list[list[str]]) -> None:
    assert values(column) == expected


def test_a_few_commas_make_no_lists() -> None:
    brands = pl.Series(["Acme, Inc.", *["3M"] * 9])
    assert find_separator(brands) == ""
    assert find_separator(pl.Series(["Acme, Inc."] * 3 + ["3M"] * 9)) == ", "
    assert find_separator(pl.Series([None, ""], dtype=pl.String)) == ""


def test_a_separator_that_is_named_wins() -> None:
    assert values(["Acme, Inc.", "Ash, Ltd.", "3M"], "") == [["Acme, Inc."], ["Ash, Ltd."], ["3M"]]
    assert values(["a/b", "c", "d"], "/") == [["a", "b"], ["c"], ["d"]]


def test_what_nobody_filters_by_is_left_out() -> None:
    table = items(
        title=["x"] * 3,
        text=["y"] * 3,
        plot=["long " * 30] * 3,
        price=[1.5, 2.0, None],
        image=[b"p"] * 3,
        vector=[[0.5, 1.0]] * 3,
        brand=["3M"] * 3,
    )
    assert choose_attributes(table) == {"brand": ""}
    assert choose_attributes(table, {"plot": "", "price": ""}) == {"plot": "", "price": ""}
    assert choose_attributes(table, {}) == {}


def test_a_wanted_column_must_exist_and_hold_values() -> None:
    table = items(brand=["3M"] * 3, film=[b"p"] * 3)
    with pytest.raises(
        UnknownNameError, match=r"unknown item attribute in export.attributes 'brnd'.*did you mean 'brand'"
    ):
        choose_attributes(table, {"brnd": ""})
    with pytest.raises(ConfigError, match=r"export.attributes.film: a column of Binary has no values"):
        choose_attributes(table, {"film": ""})


def test_new_items_are_split_alike() -> None:
    old = attribute_values(items(brand=["3M"] * 3, genres=["A|B"] * 3), {"brand": "", "genres": "|"})
    grown = with_new_items(old, pl.DataFrame({"genres": ["C|D", None]}), {"brand": "", "genres": "|"})
    assert grown["genres"].to_list()[2:] == [["A", "B"], ["C", "D"], []]
    assert grown["brand"].to_list()[2:] == [["3M"], [], []]
    assert grown.schema == old.schema

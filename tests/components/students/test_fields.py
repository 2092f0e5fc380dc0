"""Values of fields: numbered by frequency, bounded, unknown ones without a vector, restored without the catalog."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from components.data.flat_sequences import Sequences
from components.errors import ConfigError
from components.students import STUDENTS
from components.students.fields import AttributeField, number_values
from tests.components.students.factor_worlds import (
    ALL_FIELDS,
    ATTRIBUTES,
    CATALOG,
    HISTORIES,
    USERS,
    batch,
    every_position,
    make,
)
from tests.worlds import sequences

SEQUENCES: Sequences = sequences([[1, 2, 3, 4], [5, 6, 7, 8], [1, 9, 2], [3, 4, 5], [6, 7, 8]])


@pytest.mark.parametrize(
    ("min_count", "max_values", "expected"),
    [
        (1, 10, ([1, 3, 1, 0, 3, 1, 4, 2, 2], 4)),
        (2, 10, ([1, 3, 1, 0, 3, 1, 0, 2, 2], 3)),
        (1, 1, ([1, 0, 1, 0, 0, 1, 0, 0, 0], 1)),
        (4, 10, ([0] * 9, 0)),
    ],
)
def test_values_are_ranked_by_frequency_and_ties_by_text(
    min_count: int, max_values: int, expected: tuple[list[int], int]
) -> None:
    texts = ["c", "b", "c", "", "b", "c", "rare", "a", "a"]
    assert number_values(texts, min_count, max_values) == expected


def test_a_column_in_which_every_row_differs_keeps_a_bounded_table() -> None:
    catalog = replace(CATALOG, num_items=5000, counts=CATALOG.counts.repeat(501)[:5001])
    model = make("fm", catalog=replace(catalog, attributes={"sku": [f"sku {item}" for item in range(5000)]}),
                 item_fields=["sku"], min_count=1, max_values=7)  # fmt: skip
    field = model.item_rows.fields.fields[1]
    assert isinstance(field, AttributeField)
    assert field.table.weight.shape == (8, 7)
    assert torch.bincount(field.values[1:]).tolist() == [4993, *[1] * 7]


def test_a_million_distinct_values_cost_little_more_than_their_count() -> None:
    texts = [f"sku {number}" for number in range(1_000_000)]
    tracemalloc.start()
    ids, num_values = number_values(texts, min_count=1, max_values=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_values == max(ids) == 10_000
    assert ids.count(0) == 990_000
    assert ids[0] == 1  # of equal frequency the first text: "sku 0"
    assert peak < 64 * len(texts)  # bytes; to sort all of them takes 104 a value
    assert number_values(texts, min_count=2, max_values=10_000) == ([0] * len(texts), 0)


def test_unknown_users_and_values_have_zero_vectors_without_gradient() -> None:
    model = make("fm", **ALL_FIELDS, loss="bce", num_negatives=2)
    brand = model.item_rows.fields.fields[1]
    assert brand(torch.tensor([4, 7])).eq(0).all()  # no brand, and one of a single item
    assert brand(torch.tensor([1])).ne(0).all()
    assert model.user_rows.fields.fields(torch.tensor([0])).eq(0).all()
    model.loss(replace(batch(), targets=torch.tensor([4, 7, 1, 2]))).backward()
    for table in (brand.table, model.user_rows.fields.fields.fields[0].table):
        assert table.weight.grad[0].eq(0).all()
        assert table.weight.grad[1:].ne(0).any()


def test_the_history_is_the_mean_of_the_past_alone() -> None:
    fields = make("fm").user_rows.fields
    history = fields(every_position([3, 1, 4], 2))[:, -1]  # (3, D + 1)
    table = fields.history.weight
    expected = torch.stack([table[3], (table[3] + table[1]) / 2, (table[3] + table[1] + table[4]) / 3])
    torch.testing.assert_close(history, expected)
    assert fields(batch([[]], [2]))[0, -1].eq(0).all()


def test_without_history_the_state_is_the_user() -> None:
    model = make("fm", use_history=False).eval()
    states = model.states(batch([[1, 2], [9], []], [3, 3, 3]))
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])
    assert not torch.equal(states[0], model.states(batch([[1]], [2]))[0])
    assert "user_rows.fields.history.weight" not in model.state_dict()


@pytest.mark.parametrize("kind", ["fm", "deepfm"])
def test_a_saved_model_ranks_without_the_catalog(kind: str) -> None:
    model = make(kind, **ALL_FIELDS).eval()
    bare = replace(CATALOG, attributes=None, user_attributes=None)
    rebuilt = make(kind, 5, bare, **ALL_FIELDS).eval()
    rebuilt.load_tensors(model.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt.all_scores(batch()), model.all_scores(batch()))
    assert rebuilt.parameter_parts() == model.parameter_parts()


@pytest.mark.parametrize("kind", ["fm", "deepfm"])
def test_kept_item_rows_follow_every_change_of_the_model(kind: str) -> None:
    model, other = make(kind, **ALL_FIELDS).eval(), make(kind, 1, **ALL_FIELDS).eval()
    with torch.no_grad():
        first, expected = model.all_scores(batch()), other.all_scores(batch())
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.all_scores(batch()), expected)
        model.train().eval()
        assert torch.equal(model.all_scores(batch()), expected)
    assert not torch.equal(first, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"item_fields": ["colour"]},
            r"item_fields: no item attribute 'colour'; expected one of input\.text_columns: brand, color; "
            r"did you mean 'color'",
        ),
        (
            {"user_fields": ["age"]},
            r"user_fields: no user attribute 'age'; expected one of the file input\.users: there is none",
        ),
    ],
)
def test_a_field_that_the_catalog_lacks_is_named(arguments: dict[str, list[str]], message: str) -> None:
    catalog = replace(CATALOG, sequences=SEQUENCES, attributes=ATTRIBUTES, user_attributes=None)
    with pytest.raises(ConfigError, match=message):
        STUDENTS["fm"].make(catalog, arguments)


def test_a_field_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"expected every field once, got \['brand', 'brand'\]"):
        STUDENTS["fm"].make(CATALOG, {"item_fields": ["brand", "brand"]})


def test_users_of_a_batch_keep_their_own_fields() -> None:
    model = make("fm", **ALL_FIELDS).eval()
    together = model.states(batch())
    for row, (history, user) in enumerate(zip(HISTORIES, USERS, strict=True)):
        torch.testing.assert_close(model.states(batch([history], [user]))[0], together[row])

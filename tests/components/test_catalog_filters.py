from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.artifacts.format import read_json, seal
from components.catalog_filters import CatalogFilters, Filter, ItemAttributes
from components.errors import ArtifactError, DataError, UnknownNameError
from components.recommender import Query, Recommender
from tests.tiny_artifact import attributes_of, item_id, write_artifact

NUM_ITEMS = 60
VALUES = {
    "color": ["red", "green", "blue", "mauve"],
    "kinds": ["kind 0", "kind 1", "kind 2", "all, of them", "no kind"],
}

sides = st.fixed_dictionaries(
    {}, optional={name: st.lists(st.sampled_from(values), max_size=3) for name, values in VALUES.items()}
)
ids = st.lists(st.integers(1, NUM_ITEMS + 3).map(item_id), max_size=30)
filters = st.builds(Filter.of, sides, sides, st.none() | ids, ids)


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(write_artifact(tmp_path_factory.mktemp("filters") / "artifact", NUM_ITEMS, attributes=True))


def passes(number: int, wanted: Filter) -> bool:
    """The plain reference."""
    own = attributes_of(number)
    return (
        all(set(own[name]) & set(values) for name, values in wanted.allow)
        and not any(set(own[name]) & set(values) for name, values in wanted.deny)
        and (wanted.allow_items is None or item_id(number) in wanted.allow_items)
        and item_id(number) not in wanted.deny_items
    )


@settings(max_examples=150, deadline=None)
@given(wanted=filters, history=st.lists(st.integers(1, 64).map(item_id), max_size=15), k=st.integers(1, 70))
def test_a_filtered_answer_is_the_whole_ranking_without_the_others(
    recommender: Recommender, wanted: Filter, history: list[str], k: int
) -> None:
    whole = recommender.answer([Query(history, NUM_ITEMS)])[0]
    answer = recommender.answer([Query(history, k, filter=wanted)])[0]
    passing = {item_id(number) for number in range(1, NUM_ITEMS + 1) if passes(number, wanted)}
    assert answer.items == [item for item in whole.items if item.item_id in passing][:k]
    assert (answer.fallback, answer.unknown_items) == (whole.fallback, whole.unknown_items)


@settings(max_examples=30, deadline=None)
@given(asked=st.lists(st.tuples(st.none() | filters, ids, st.integers(1, 20), st.booleans()), min_size=2, max_size=12))
def test_filters_of_one_batch_do_not_meet(
    recommender: Recommender, asked: list[tuple[Filter | None, list[str], int, bool]]
) -> None:
    queries = [Query(history, k, seen, filter=wanted) for wanted, history, k, seen in asked]
    assert recommender.answer(queries) == [recommender.answer([query])[0] for query in queries]


def test_unknown_attributes_list_the_known(recommender: Recommender) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown item attribute 'colour'; known: color, kinds; did you mean"):
        recommender.answer([Query(["id-1"], filter=Filter.of({"colour": ["red"]}))])
    with pytest.raises(UnknownNameError, match="'colour'"):
        recommender.answer([Query(["id-1"], filter=Filter.of({"colour": []}))])


def test_an_artifact_without_attributes_filters_by_ids_alone(tmp_path: Path) -> None:
    plain = Recommender(write_artifact(tmp_path / "artifact"))
    assert plain.attributes.names == []
    assert plain.item("id-3") == ("Thing Nº 3", {})
    only = Filter.of(allow_items=["id-9", "id-8", "nope"], deny_items=["id-8"])
    assert [item.item_id for item in plain.answer([Query(["id-1"], filter=only)])[0].items] == ["id-9"]
    with pytest.raises(DataError, match="carries no item attributes to filter by; export the run again"):
        plain.answer([Query(["id-1"], filter=Filter.of({"color": ["red"]}))])


def test_an_item_tells_its_attributes(recommender: Recommender) -> None:
    assert recommender.item("id-3") == ("Thing Nº 3", {"color": ["red"], "kinds": ["kind 0", "all, of them"]})
    assert recommender.item("id-2") == ("Thing Nº 2", {"color": ["blue"]})
    assert recommender.item("nope") is None


def test_a_mask_is_made_once_and_few_are_kept() -> None:
    table = pl.DataFrame({"color": [["red"], ["blue"], []]}, schema={"color": pl.List(pl.String)})
    kept = CatalogFilters(ItemAttributes(table), {"a": 1, "b": 2, "c": 3})
    mask = kept.mask(Filter.of({"color": ["red"]}))
    assert mask is kept.mask(Filter.of({"color": ["red"]}))
    assert mask.tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True
    for number in range(1000):
        kept.mask(Filter.of(deny_items=[str(number)]))
    assert mask is not kept.mask(Filter.of({"color": ["red"]}))


def test_an_attribute_that_no_item_has_is_no_error() -> None:
    table = pl.DataFrame({"color": [[], []]}, schema={"color": pl.List(pl.String)})
    assert ItemAttributes(table).items_with("color", "red").tolist() == []
    assert np.flatnonzero(CatalogFilters(ItemAttributes(table), {"a": 1, "b": 2}).mask(Filter())).tolist() == [1, 2]


@pytest.mark.parametrize("table", [{"color": [["red"]] * 3}, {"color": ["red"] * NUM_ITEMS}])
def test_attributes_that_do_not_fit_are_an_error(tmp_path: Path, table: dict[str, list[str]]) -> None:
    folder = write_artifact(tmp_path / "artifact", NUM_ITEMS)
    pl.DataFrame(table).write_parquet(folder / "attributes.parquet")
    seal(folder, {"model": read_json(folder / "manifest.json")["model"]})
    with pytest.raises(ArtifactError, match=r"attributes.parquet: expected lists of texts for 60 items"):
        Recommender(folder)

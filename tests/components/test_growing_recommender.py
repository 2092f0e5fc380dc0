"""A recommender that grows in memory: known scores stay, and the disk would give the same model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from components.artifacts.growth import grow_model, grown_model
from components.artifacts.models import load_model, read_model_config
from components.catalog_filters import Filter
from components.errors import StageError
from components.item_maker import ItemMaker, look_up_values, read_projections
from components.recommender import Query, Recommender
from components.scores_kept import served_scores
from tests.growable_artifact import DIMS, write_growable

HISTORIES = [np.array(history, np.int32) for history in ([1], [5, 2, 60], list(range(1, 13)))]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_growable(tmp_path_factory.mktemp("growing") / "artifact")


@pytest.fixture(scope="module")
def recommender(artifact: Path) -> Recommender:
    return Recommender(artifact)


@pytest.fixture(scope="module")
def maker(artifact: Path) -> ItemMaker:
    maker = read_projections(artifact)
    assert maker is not None
    return maker


def random_vectors(count: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(count, dim, generator=generator), dim=1) for dim in DIMS.values()]


def answers(recommender: Recommender, histories: list[list[str]]) -> list[dict[str, float]]:
    found = recommender.recommend(histories, recommender.num_items, exclude_seen=False)
    return [{item.item_id: item.score for item in one.items} for one in found]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 10_000))
def test_known_scores_stay_however_items_arrive(
    recommender: Recommender, maker: ItemMaker, sizes: list[int], seed: int
) -> None:
    histories = [["id-1"], ["id-7", "id-60", "id-3"]]
    vectors, grown = random_vectors(sum(sizes), seed), recommender
    before, begin = answers(recommender, histories), 0
    for size in sizes:
        items = [(f"new-{number}", None) for number in range(begin, begin + size)]
        grown = grown.grown(items, maker.rows([one[begin : begin + size] for one in vectors]))
        begin += size
    together = recommender.grown([(f"new-{number}", None) for number in range(begin)], maker.rows(vectors))
    after = answers(grown, histories)
    assert after == answers(together, histories)
    assert [{item_id: one[item_id] for item_id in old} for old, one in zip(before, after, strict=True)] == before
    assert answers(recommender, histories) == before, "the old one goes on as it was"
    assert grown.num_items == recommender.num_items + begin
    assert all(np.isfinite(list(one.values())).all() for one in after)


@pytest.mark.parametrize("compression", [{}, {"item_precision": "int8"}, {"item_precision": "bf16"}])
def test_memory_and_disk_grow_alike(tmp_path: Path, compression: dict[str, Any]) -> None:
    artifact = write_growable(tmp_path / "artifact", **compression)
    maker = read_projections(artifact)
    assert maker is not None
    rows = maker.rows(random_vectors(5, 3))
    model, config = load_model(artifact), read_model_config(artifact)
    memory, memory_config = grown_model(model, config, rows)
    target = tmp_path / "target"
    target.mkdir()
    grow_model(artifact, target, rows)
    assert memory_config == read_model_config(target)
    np.testing.assert_array_equal(served_scores(memory, HISTORIES), served_scores(load_model(target), HISTORIES))
    assert served_scores(model, HISTORIES).shape[1] == 60


def test_rows_that_do_not_fit_are_named(recommender: Recommender) -> None:
    (table,) = recommender.item_tensors()
    for rows, message in (
        ({table.name: torch.zeros(1, 3)}, "rows of shape"),
        ({"nothing": torch.zeros(1, 16)}, "no tensor 'nothing'"),
        ({table.name: torch.zeros(1, 16), "x": torch.zeros(2, 16)}, "as many rows for every tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            recommender.grown([("new", None)], rows)


def test_an_item_without_a_score_is_refused(recommender: Recommender) -> None:
    (table,) = recommender.item_tensors()
    with pytest.raises(StageError, match="scores NaN or infinity"):
        recommender.grown([("new", None)], {table.name: torch.full((1, 16), torch.nan)})


def test_growth_needs_no_artifact_on_the_disk(tmp_path: Path) -> None:
    recommender = Recommender(write_growable(tmp_path / "artifact"))
    (table,) = recommender.item_tensors()
    shutil.rmtree(tmp_path / "artifact")
    grown = recommender.grown([("new", "New")], {table.name: torch.ones(1, 16)})
    assert grown.knows("new")
    assert not recommender.knows("new")
    assert grown.search("new") == [("new", "New")]


def test_a_grown_one_filters_and_explains(recommender: Recommender, maker: ItemMaker) -> None:
    grown = recommender.grown([("new-1", None), ("new-2", None)], maker.rows(random_vectors(2, 5)))
    history = ["id-3", "new-1"]
    (only,) = grown.answer([Query(history, 5, filter=Filter.of(allow_items=["new-2", "id-4"]), explain=True)])
    assert {item.item_id for item in only.items} == {"new-2", "id-4"}
    assert all(item.because and {cause.item_id for cause in item.because} <= set(history) for item in only.items)
    (without,) = grown.answer([Query(history, 100, False, filter=Filter.of(deny_items=["new-1"]))])
    assert {item.item_id for item in without.items} == {*grown.item_ids} - {"new-1"}


def test_values_are_looked_up_by_text() -> None:
    values = torch.tensor([0, 2, 3])
    assert look_up_values(["red", "blue"], values, ["blue", "green", ""])[0] == 3

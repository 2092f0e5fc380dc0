from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.artifacts.format import read_json, seal, write_json
from components.errors import ArtifactError
from components.inference import Scorer
from components.recommender import Query, Recommender
from tests.tiny_artifact import item_id, make_model, write_artifact


@pytest.fixture
def recommender(tmp_path: Path) -> Recommender:
    return Recommender(write_artifact(tmp_path / "artifact", histories=True))


def reseal(folder: Path) -> None:
    seal(folder, {"model": read_json(folder / "manifest.json").get("model")})


def test_it_ranks_what_the_scorer_ranks(recommender: Recommender) -> None:
    answer = recommender.recommend([["id-3", "id-7"]], k=5)[0]
    items, scores = Scorer(make_model(60)[0], reproducible=True).top_k([np.array([3, 7], np.int32)], 5)
    assert [item.item_id for item in answer.items] == [item_id(number) for number in items[0]]
    assert [item.score for item in answer.items] == scores[0].tolist()
    assert answer.items[0].title == f"Thing Nº {items[0][0]}"
    assert answer.fallback is None


def test_unknown_ids_are_reported_and_change_nothing(recommender: Recommender) -> None:
    plain = recommender.recommend([["id-3", "id-7"]])[0]
    mixed = recommender.recommend([["nope", "id-3", "id-7", "ID-3"]])[0]
    assert mixed.items == plain.items
    assert mixed.unknown_items == ["nope", "ID-3"]


@pytest.mark.parametrize("history", [[], ["nope"]])
def test_no_known_item_falls_back_to_popularity_and_says_so(recommender: Recommender, history: list[str]) -> None:
    answer = recommender.recommend([history], k=3)[0]
    assert [(item.item_id, item.score) for item in answer.items] == [("id-1", 60.0), ("id-2", 59.0), ("id-3", 58.0)]
    assert answer.fallback == "popularity"
    assert answer.unknown_items == history


def test_seen_items_are_left_out_only_if_asked(recommender: Recommender) -> None:
    history = [item_id(number) for number in range(1, 59)]
    left = recommender.recommend([history], k=10)[0]
    assert {item.item_id for item in left.items} == {"id-59", "id-60"}
    assert len(recommender.recommend([history], k=100, exclude_seen=False)[0].items) == 60


def test_each_answer_is_the_one_that_the_query_alone_gets(recommender: Recommender) -> None:
    rng = np.random.default_rng(0)
    queries = [
        Query(
            [item_id(n) for n in rng.integers(1, 70, rng.integers(0, 20))],
            int(rng.integers(1, 50)),
            bool(rng.integers(2)),
        )
        for _ in range(70)
    ]
    together = recommender.answer(queries)
    assert together == [recommender.answer([query])[0] for query in queries]
    assert len({len(answer.items) for answer in together}) > 10


def test_unknown_items_are_told_apart(recommender: Recommender) -> None:
    assert recommender.unknown_items(["nope", "id-1", "no", "nope"]) == ["nope", "no", "nope"]


def test_the_name_carries_the_version(recommender: Recommender) -> None:
    assert recommender.name == f"tiny@{recommender.manifest['files']['model.safetensors'][:12]}"
    assert recommender.parameters["embedding"] == 61 * 16


def test_search_ignores_case_and_prefers_frequent_items(recommender: Recommender) -> None:
    assert recommender.search("NG nº 2", 2) == [("id-2", "Thing Nº 2"), ("id-20", "Thing Nº 20")]
    assert recommender.search("id-60") == [("id-60", "Thing Nº 60")]
    assert recommender.search("zebra") == []


def test_titles_come_before_texts(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    items = pl.read_parquet(folder / "items.parquet")
    titles = pl.Series("title", ["", None, "Three"] + [None] * 57)
    items.with_columns(titles, pl.col("text") + "x" * 300).write_parquet(folder / "items.parquet")
    reseal(folder)
    found = Recommender(folder).titles
    assert found[2] == "Three"
    assert found[0] is not None
    assert found[0].startswith("Thing Nº 1xxx")
    assert len(found[0]) == 120


def test_items_that_do_not_fit_the_model_are_an_error(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    pl.read_parquet(folder / "items.parquet").head(50).write_parquet(folder / "items.parquet")
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"items.parquet: 50 items, the model ranks 60"):
        Recommender(folder)


def test_a_lacking_column_is_named(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    pl.read_parquet(folder / "items.parquet").drop("count").write_parquet(folder / "items.parquet")
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"lacks the columns count"):
        Recommender(folder)


@pytest.mark.parametrize("name", ["items.parquet", "metrics.json", "config.json", "model.safetensors"])
def test_every_file_of_the_artifact_is_needed(tmp_path: Path, name: str) -> None:
    folder = write_artifact(tmp_path / "artifact")
    (folder / name).unlink()
    reseal(folder)
    with pytest.raises(ArtifactError, match=name):
        Recommender(folder)


def test_a_table_that_is_none_is_an_error(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    (folder / "items.parquet").write_bytes(b"no table")
    reseal(folder)
    with pytest.raises(ArtifactError, match=r"items.parquet: not readable as Parquet"):
        Recommender(folder)


def test_damage_is_found_before_anything_is_read(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    write_json(folder / "metrics.json", {"valid_ndcg@10": 0.99})
    with pytest.raises(ArtifactError, match=r"metrics.json: sha256"):
        Recommender(folder)

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.approximate import ApproximateScorer, Recall, drawn_histories
from components.catalog_filters import Filter
from components.errors import ArtifactError, UserError
from components.inference import Scorer
from components.model import Catalog
from components.recommender import Query, Recommender
from components.students import STUDENTS
from tests.tiny_artifact import item_id, make_model, write_artifact

pytest.importorskip("faiss")
MANY = 3000


@pytest.fixture(scope="module")
def exact() -> Scorer:
    return Scorer(make_model(MANY)[0], reproducible=True)


@pytest.fixture(scope="module")
def approximate(exact: Scorer) -> ApproximateScorer:
    return ApproximateScorer(exact)


def test_most_of_the_exact_answer_is_found_with_its_scores(exact: Scorer, approximate: ApproximateScorer) -> None:
    histories = drawn_histories(np.ones(MANY, np.float32))[:40]
    items, scores = exact.top_k(histories, 10)
    found, found_scores = approximate.top_k(histories, 10)
    shares = [len(np.intersect1d(one, other)) / 10 for one, other in zip(items, found, strict=True)]
    assert np.mean(shares) > 0.95
    exactly = [row for row, share in enumerate(shares) if share == 1]
    assert len(exactly) > 20
    assert (found[exactly] == items[exactly]).all()
    np.testing.assert_allclose(found_scores[exactly], scores[exactly], rtol=1e-5)
    assert (np.diff(found_scores, axis=1) <= 0).all()
    assert approximate.measure(histories, "here") == Recall(round(float(np.mean(shares)), 4), 10, 40, "here")


def test_an_index_that_finds_less_measures_less(exact: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = ApproximateScorer(exact)
    monkeypatch.setattr(poor, "_candidates", lambda state, count: np.arange(1, 301))
    assert poor.measure(drawn_histories(np.ones(MANY, np.float32)), "here").recall < 0.5


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_where_all_items_are_candidates_the_answer_is_the_exact_one(exclude_seen: bool) -> None:
    scorer = Scorer(make_model(60)[0], reproducible=True)
    histories = [np.array(history, np.int32) for history in ([3, 7], list(range(1, 59)), [9, 9, 9])]
    items, scores = scorer.top_k(histories, 60, exclude_seen=exclude_seen)
    found, found_scores = ApproximateScorer(scorer).top_k(histories, 60, exclude_seen=exclude_seen)
    assert (found == items).all()
    np.testing.assert_allclose(found_scores, scores, rtol=1e-4, atol=1e-4)


def test_company_never_changes_an_answer(exact: Scorer, approximate: ApproximateScorer) -> None:
    histories = drawn_histories(np.ones(MANY, np.float32), seed=3)[:30]
    items, scores = approximate.top_k(histories, 15)
    for row, history in enumerate(histories):
        alone, alone_scores = approximate.top_k([history], 15)
        assert (alone[0] == items[row]).all()
        assert (alone_scores[0] == scores[row]).all()


def test_a_width_that_is_odd_and_a_catalogue_that_is_tiny_are_no_trouble() -> None:
    catalog = Catalog(7, 1, np.zeros(8, np.int64))
    arguments = {"dim": 5, "num_heads": 1, "num_layers": 1, "inner_dim": 8, "max_length": 4}
    scorer = Scorer(STUDENTS["sasrec"].make(catalog, arguments), reproducible=True)
    items, _ = ApproximateScorer(scorer).top_k([np.array([1], np.int32)], 7)
    assert sorted(items[0].tolist()) == [0, 2, 3, 4, 5, 6, 7]


def test_vectors_that_are_not_numbers_are_an_error() -> None:
    model, _ = make_model(40)
    with torch.no_grad():
        model.head.item_embedding.weight[5] = float("nan")  # type: ignore[union-attr,operator,index]
    with pytest.raises(ArtifactError, match="not numbers: its training diverged"):
        ApproximateScorer(Scorer(model))


@pytest.mark.parametrize(
    ("kind", "arguments", "head"),
    [
        ("mostpop", {}, "PopularityHead"),
        ("sasrec", {"compression": {"boundaries": [10]}}, "TreeHead"),
        ("bert4rec", {}, "BiasedHead"),
        ("lightgcn", {"loss": "bpr"}, "BPRHead"),
    ],
)
def test_other_scores_than_inner_products_are_refused(kind: str, arguments: dict[str, Any], head: str) -> None:
    model, _ = make_model(40)
    if kind != "lightgcn":
        model = STUDENTS[kind].make(Catalog(40, 1, np.ones(41, np.int64)), arguments)
    else:
        from components.students.lightgcn import BPRHead

        items = model.head.item_embedding  # type: ignore[union-attr]
        model.head = BPRHead(items, items, None, 0.0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=rf"a {head} scores otherwise; leave --retrieval exact"):
        ApproximateScorer(Scorer(model))


def test_a_missing_faiss_says_what_to_install(exact: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'distilrec\[faiss\]'"):
        ApproximateScorer(exact)


def test_the_recommender_refuses_a_recall_that_is_too_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_artifact(tmp_path / "artifact", MANY)
    recommender = Recommender(folder)
    recommender.search_approximately(0.9)
    found = recommender.recall
    assert found is not None
    assert found.recall > 0.95
    assert found.source == "drawn by popularity"
    monkeypatch.setattr(ApproximateScorer, "_candidates", lambda self, state, count: np.arange(1, 301))
    with pytest.raises(UserError, match=r"faiss finds \d+.\d% of .* less than --min-recall 90.0%; lower it"):
        Recommender(folder).search_approximately(0.9)


def test_recall_is_measured_on_the_artifacts_own_histories(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", histories=True)
    recommender = Recommender(folder)
    recommender.search_approximately(0.9)
    found = recommender.recall
    assert found is not None
    assert (found.histories, found.source) == (2, "of stored users")


def test_queries_of_one_batch_do_not_meet_and_filters_are_exact(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", MANY, attributes=True)
    recommender, plain = Recommender(folder), Recommender(folder)
    recommender.search_approximately(0.9)
    rng = np.random.default_rng(0)
    red = Filter.of({"color": ["red"]})
    queries = [
        Query([item_id(n) for n in rng.integers(1, MANY, 4)], int(rng.integers(1, 60)), filter=rng.choice([None, red]))
        for _ in range(40)
    ]
    answers = recommender.answer(queries)
    assert answers == [recommender.answer([query])[0] for query in queries]
    filtered = [i for i, query in enumerate(queries) if query.filter]
    assert 5 < len(filtered) < 35
    assert [answers[i] for i in filtered] == plain.answer([queries[i] for i in filtered])


def test_histories_are_drawn_as_often_as_items_are_met() -> None:
    counts = np.zeros(50, np.float32)
    counts[3] = 10_000
    drawn = np.concatenate(drawn_histories(counts))
    assert (drawn == 4).mean() > 0.9
    assert drawn.dtype == np.int32
    assert set(drawn.tolist()) <= set(range(1, 51))

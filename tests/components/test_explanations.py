from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.explanations import MAX_ITEMS, influences
from components.inference import Scorer
from components.model import Catalog
from components.recommender import Query, Recommender
from components.students import STUDENTS
from tests.tiny_artifact import item_id, make_model, write_artifact


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(make_model(60)[0], reproducible=True)


def score(scorer: Scorer, history: list[int], item: int) -> float:
    """The plain reference: the whole ranking, looked up."""
    items, scores = scorer.top_k([np.array(history, np.int32)], 60, exclude_seen=False)
    return float(scores[0][items[0] == item][0])


def test_a_change_is_the_score_without_the_item(scorer: Scorer) -> None:
    history, items = [5, 9, 5, 30, 12, 44], [7, 21]
    for item, found in zip(items, influences(scorer, np.array(history, np.int32), items), strict=True):
        whole = score(scorer, history, item)
        changes = {out: whole - score(scorer, [one for one in history if one != out], item) for out in set(history)}
        strongest = sorted(changes, key=lambda out: -abs(changes[out]))[:3]
        assert [one.number for one in found] == strongest
        assert [one.change for one in found] == pytest.approx([changes[out] for out in strongest], abs=1e-3)


def test_what_the_model_no_longer_sees_is_not_tried(scorer: Scorer) -> None:
    history = np.arange(1, 41, dtype=np.int32)
    named = {one.number for found in influences(scorer, history, list(range(41, 61))) for one in found}
    assert named
    assert min(named) > 40 - scorer.model.max_length


def test_the_cost_is_bounded(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer.model.max_length = 500
    asked: list[int] = []

    def counted(histories: list[object], items: list[int], users: list[int]) -> object:
        asked.append(len(histories))
        return np.zeros((len(histories), len(items)), np.float32)

    monkeypatch.setattr(scorer, "scores_of", counted)
    assert influences(scorer, np.arange(1, 61, dtype=np.int32), [1, 2]) == [(), ()]
    assert asked == [MAX_ITEMS + 1]


@pytest.mark.parametrize("history", [[5], [5, 5, 5]])
def test_a_single_item_has_nothing_to_be_compared_with(scorer: Scorer, history: list[int]) -> None:
    assert influences(scorer, np.array(history, np.int32), [7, 8]) == [(), ()]


def test_a_model_that_reads_no_history_explains_nothing() -> None:
    catalog = Catalog(4, 1, np.array([0, 9, 5, 2, 1]))
    popular = Scorer(STUDENTS["mostpop"].make(catalog, {}))
    assert influences(popular, np.array([1, 2], np.int32), [3, 4]) == [(), ()]


def test_an_answer_says_why_only_where_it_is_asked(tmp_path: Path) -> None:
    recommender = Recommender(write_artifact(tmp_path / "artifact"))
    history = [item_id(number) for number in (5, 9, 30)]
    asked = [Query(history, 4, explain=True), Query(history, 4), Query([], 2, explain=True)]
    explained, plain, popular = recommender.answer(asked)
    assert all(item.because is None for item in plain.items)
    assert [item.because for item in popular.items] == [(), ()]
    for item, same in zip(explained.items, plain.items, strict=True):
        assert (item.item_id, item.score) == (same.item_id, same.score)
        assert item.because
        assert {cause.item_id for cause in item.because} <= set(history)
        assert item.because[0].title == recommender.item(item.because[0].item_id)[0]  # type: ignore[index]

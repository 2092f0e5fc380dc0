"""What becomes a trial and what is refused, with an Optuna that proposes what a test says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.search import Searcher

from components.model import Catalog
from pipelines.search.candidates import Scale, Weight
from pipelines.search.config import SearchConfig
from pipelines.search.proposals import FAILED, NDCG, NUMBER, PARAMETERS, WORST, Search, WithinBudget, numbers
from pipelines.search.trial import Record, read_record, read_records, trial_folder, write_record
from pipelines.search.tuning import DIED, Ends, scheduler_of
from tests.pipelines.run_configs import PLAIN_RUN, make_config
from tune_spaces.domain import space

CATALOG = Catalog(300, 4, np.arange(301)[::-1].copy())
SPACE = {"student.dim": [8, 16, 32], "student.num_heads": [2, 16]}


class Scripted:
    """Proposes places in a fixed order, and then the last one again and again."""

    metric, mode = NDCG, "max"

    def __init__(self, *places: tuple[int, int]) -> None:
        self.places = list(places)
        self.told: list[tuple[Any, bool]] = []

    def suggest(self, name: str) -> dict[str, Any]:
        dim, heads = self.places.pop(0) if len(self.places) > 1 else self.places[0]
        return {"student.dim": dim, "student.num_heads": heads}

    def on_trial_complete(self, name: str, result: Any = None, error: bool = False) -> None:
        self.told.append((result, error))


def make_search(folder: Path, epochs: int = 12, **changes: Any) -> Search:
    config = make_config(
        folder, {**PLAIN_RUN, "student": {"kind": "sasrec", "max_length": 10}, "training": {"epochs": epochs}}
    )
    chosen = SearchConfig(spaces=[], space=space(SPACE), **changes)
    return Search(config, chosen, folder / "trials", folder, 0, chosen.whole_space())


def within(search: Search, inner: Scripted, known: dict[str, int] | None = None) -> WithinBudget:
    return WithinBudget(inner, search, Scale(CATALOG), known or {})  # type: ignore[arg-type]


def test_a_student_gets_its_number_and_its_weight(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    key, _, setting = search.proposal({"student.dim": 1, "student.num_heads": 0})
    searcher = within(search, Scripted((1, 0), (2, 0)), {key: 4})
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert first is not None
    assert second is not None
    assert (first["student.dim"], first[NUMBER]) == (1, 4)
    assert first[PARAMETERS] == Scale(CATALOG).weigh(setting).parameters
    assert second[NUMBER] == 5  # counted on behind all known ones


def test_over_budget_and_impossible_students_take_no_place(tmp_path: Path) -> None:
    search = make_search(tmp_path, max_bytes=60_000)
    inner = Scripted((2, 0), (0, 1), (0, 0))  # too wide; 8 does not divide by 16 heads; fine
    searcher = within(search, inner)
    found = searcher.suggest("a")
    assert found is not None
    assert (found["student.dim"], found["student.num_heads"]) == (0, 0)
    assert dict(searcher.refused) == {"over budget": 1, "impossible": 1}
    (large, _), (impossible, _) = inner.told
    assert large[NDCG] < FAILED
    assert large["bytes"] == WORST  # it must not look small on the front
    assert impossible[NDCG] == FAILED


def test_nothing_over_budget_is_ever_let_through(tmp_path: Path) -> None:
    searcher = within(make_search(tmp_path, max_bytes=60_000), Scripted((2, 0)))
    assert searcher.suggest("a") == Searcher.FINISHED


def test_a_student_is_proposed_once(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    inner = Scripted((0, 0), (0, 0), (1, 0))
    searcher = within(search, inner)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert first is not None
    assert second is not None
    assert second["student.dim"] == 1
    assert inner.told == [(None, True)]  # it still trains: nothing is known of it
    key, values, _ = search.proposal(first)
    done = Record(1, key, values, Weight(3, 4), "done", "", [0.1], 0.2, 1.5)
    write_record(trial_folder(search.trials, key), done)
    inner.places = [(0, 0), (2, 0)]
    third = searcher.suggest("c")
    assert third is not None
    assert inner.told[-1] == (numbers(done, search.search), False)
    assert searcher.suggest("d") == Searcher.FINISHED  # (2, 0) again and again


@pytest.mark.parametrize(
    ("record", "limit", "expected"),
    [
        (Record(1, "k", {}, Weight(3, 4), "done", "", [0.1], 0.2, 1.5), None, (0.2, 4.0, 1.5)),
        (Record(1, "k", {}, Weight(3, 4), "done", "", [0.1], 0.2, 1.5), 1.0, (-0.3, 4.0, 1.5)),
        (Record(1, "k", {}, Weight(3, 4), "running", "", [0.1], None, 0.5), 1.0, (0.1, 4.0, 0.5)),
        (Record(1, "k", {}, Weight(3, 4), "failed", "why", [0.1], None, 0.5), None, (FAILED, WORST, WORST)),
    ],
)
def test_what_tune_is_told(record: Record, limit: float | None, expected: tuple[float, float, float]) -> None:
    told = numbers(record, SearchConfig(max_latency_ms=limit))
    assert (told[NDCG], told["bytes"], told["latency_ms"]) == pytest.approx(expected)


def test_the_scheduler_knows_how_long_students_may_train(tmp_path: Path) -> None:
    assert scheduler_of(make_search(tmp_path, epochs=5, grace_epochs=5)) is None
    scheduler = scheduler_of(make_search(tmp_path, epochs=12, grace_epochs=3))
    assert scheduler is not None
    assert scheduler._max_t == 13
    longer = make_search(tmp_path, epochs=12, grace_epochs=3)
    chosen = SearchConfig(spaces=[], space=space({**SPACE, "training.epochs": [10, 40]}), grace_epochs=3)
    searched = Search(longer.config, chosen, longer.trials, tmp_path, 0, chosen.whole_space())
    scheduler = scheduler_of(searched)
    assert scheduler is not None
    assert scheduler._max_t == 41


def test_a_student_whose_process_dies_is_listed_as_failed(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    searcher = within(search, Scripted((0, 0), (1, 0)))
    dead, slow = (SimpleNamespace(config=searcher.suggest(name)) for name in "ab")
    ends = Ends(search)
    ends.on_trial_error(1, [], dead)
    failed = read_record(trial_folder(search.trials, search.proposal(dead.config)[0]))
    assert failed is not None
    assert (failed.state, failed.reason, failed.number) == ("failed", DIED, 1)
    assert failed.weight.parameters == dead.config[PARAMETERS]
    ends.on_trial_complete(1, [], slow)
    ends.on_trial_complete(1, [], dead)  # what is known already stays
    states = [record.state for record in read_records(search.trials)]
    assert states == ["failed", "stopped"]

"""What the endpoint answers over HTTP is what `Recommender` ranks in this process: items, order and scores."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from components.data.prepared import PreparedSet
from components.inference import one_thread
from components.recommender import Recommender
from pipelines.served import find_artifact
from serve.client import Client
from serve.settings import MAX_HISTORY
from tests.serving_process import Served
from tests.tiny_artifact import item_id, write_artifact

USERS, K, AT_ONCE = 1000, 20, 16
RUN_VARIABLE = "DISTILREC_TEST_RUN"  # a finished run whose users are asked for, instead of made-up ones


@pytest.fixture
def run(tmp_path: Path) -> Path:
    if RUN_VARIABLE in os.environ:
        return Path(os.environ[RUN_VARIABLE])
    write_artifact(tmp_path / "run" / "export", num_items=3000)
    return tmp_path / "run"


def histories_of(run: Path) -> list[list[str]]:
    if (run / "prepare").is_dir():
        prepared = PreparedSet(run / "prepare")
        ids, sequences = prepared.item_ids, prepared.sequences
        return [[ids[item - 1] for item in sequences.items[a:b][-MAX_HISTORY:]] for a, b in _rows(sequences.offsets)]
    rng = np.random.default_rng(0)
    return [[item_id(n) for n in rng.integers(1, 3001, rng.integers(0, 60))] for _ in range(USERS)]


def _rows(offsets: np.ndarray) -> list[tuple[int, int]]:
    return [(int(offsets[row]), int(offsets[row + 1])) for row in range(min(USERS, len(offsets) - 1))]


@pytest.mark.slow
@pytest.mark.ray
def test_the_twenty_best_of_a_thousand_users_are_the_same_over_http(run: Path) -> None:
    histories = histories_of(run)
    assert len(histories) == USERS
    with one_thread():
        expected = Recommender(find_artifact(run)).recommend(histories, K)
    with Served(run) as served, Client(served.url, timeout=120) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda history: client.recommend(history, k=K), histories))
    for answer, offline in zip(found, expected, strict=True):
        assert [(item.item_id, item.score) for item in answer.items] == [
            (one.item_id, one.score) for one in offline.items
        ]
        assert answer.fallback == offline.fallback

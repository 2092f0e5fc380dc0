"""A taste that an attribute alone reveals is learnt; an attribute of shuffled rows teaches nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.data.batching import TrainingBatches, history_batch
from components.model import Catalog, Ranker
from components.students import STUDENTS
from tests.worlds import sequences

TASTES, SEEN, COLD, USERS = 4, 40, 40, 60  # items that training shows, items and as many users that it does not
COLORS = ("red", "green", "blue", "black")
KINDS = ["fm", "deepfm"]


def colors(count: int, *, shuffled: bool) -> list[str]:
    texts = [COLORS[number % TASTES] for number in range(count)]
    return list(np.random.default_rng(1).permutation(texts)) if shuffled else texts


def world(item_texts: list[str], user_texts: list[str]) -> Catalog:
    """Users take seen items of their taste in random order; user u has the taste u mod 4, item i likewise."""
    generator = np.random.default_rng(0)
    lists = []
    for user in range(USERS):
        own = np.arange(user % TASTES, SEEN, TASTES) + 1
        lists.append(generator.permutation(own)[:8].tolist())
    log = sequences(lists)
    counts = np.bincount(log.items, minlength=SEEN + COLD + 1)
    attributes, user_attributes = {"color": item_texts}, {"favorite": user_texts}
    return Catalog(SEEN + COLD, 2 * USERS, counts, log, {}, attributes, user_attributes)


def trained(kind: str, catalog: Catalog, **arguments: Any) -> Ranker:
    torch.manual_seed(0)
    model = STUDENTS[kind].make(catalog, {"dim": 8, "max_length": 8, **arguments})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    assert catalog.sequences is not None
    batches = TrainingBatches(catalog.sequences, 8, 16)
    for epoch in range(25):
        for windows in batches.epoch(epoch):
            optimizer.zero_grad()
            model.train().loss(batches.batch(windows)).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def agreement(model: Ranker, histories: list[list[int]], users: list[int], first: int, stop: int) -> float:
    """How often an item of the row's taste stands before one of another taste, among items first .. stop - 1."""
    scores = model.all_scores(history_batch(histories, 8, users))[:, first:stop].numpy()
    found = []
    for row, user in zip(scores, users, strict=True):
        own = (np.arange(first, stop) - 1) % TASTES == (user - 1) % TASTES
        found.append((row[own][:, None] > row[~own][None]).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_training_never_saw_are_ranked_by_their_attribute(kind: str) -> None:
    def cold(*, shuffled: bool) -> float:
        texts = [*colors(SEEN, shuffled=False), *colors(COLD, shuffled=shuffled)]
        catalog = world(texts, colors(2 * USERS, shuffled=True))
        model = trained(kind, catalog, item_fields=["color"])
        known = catalog.sequences
        assert known is not None
        histories = [known.training_items(user).tolist() for user in range(USERS)]
        return agreement(model, histories, list(range(1, USERS + 1)), SEEN + 1, SEEN + COLD + 1)

    assert cold(shuffled=False) > 0.9
    assert 0.3 < cold(shuffled=True) < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_users_that_training_never_saw_are_served_by_their_attribute(kind: str) -> None:
    def cold(*, shuffled: bool) -> float:
        favorites = [*colors(USERS, shuffled=False), *colors(USERS, shuffled=shuffled)]
        catalog = world(colors(SEEN + COLD, shuffled=True), favorites)
        model = trained(kind, catalog, user_fields=["favorite"], use_history=False)
        users = list(range(USERS + 1, 2 * USERS + 1))
        return agreement(model, [[] for _ in users], users, 1, SEEN + 1)

    assert cold(shuffled=False) > 0.9
    assert 0.3 < cold(shuffled=True) < 0.7

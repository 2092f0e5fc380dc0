from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from components.data.batching import history_batch
from components.data.flat_sequences import Sequences
from components.data.interactions import training_matrix
from components.inference import Scorer
from components.model import Catalog, Ranker
from components.students import STUDENTS, itemknn
from components.students.mostpop import smoothed_shares
from tests.components.teachers.worlds import planted
from tests.worlds import random_sequences, sequences

LISTS = [[1, 2, 3, 9, 9], [1, 2, 1, 9, 9], [2, 4, 2, 9, 9], [5, 5, 5, 9, 9]]  # the last two of each are held out


def catalog(data: Sequences, num_items: int) -> Catalog:
    training = np.concatenate([data.training_items(row) for row in range(len(data))])
    return Catalog(num_items, len(data), np.bincount(training, minlength=num_items + 1), data)


def make(data: Sequences | None = None, num_items: int = 9, **arguments: Any) -> Ranker:
    known = catalog(sequences(LISTS) if data is None else data, num_items)
    return STUDENTS["itemknn"].make(known, {"max_length": 5, **arguments})


def dense_similarities(owned: NDArray[np.float64], neighbors: int, shrinkage: float) -> NDArray[np.float64]:
    """Item by item and pair by pair."""
    size = owned.shape[1]
    found = np.zeros((size, size))
    for i in range(size):
        row = np.zeros(size)
        for j in range(size):
            shared = float(owned[:, i] @ owned[:, j])
            if i != j and shared:
                row[j] = np.float32(shared / (np.sqrt(owned[:, i].sum() * owned[:, j].sum()) + shrinkage))
        kept = np.argsort(-row, kind="stable")[:neighbors]
        found[i, kept] = row[kept]
    return found


def test_similarities_worked_out_by_hand() -> None:
    """Users of 1: {1, 2}, of 2: {1, 2, 3}, of 3: {1}, of 4: {3}."""
    found = itemknn.similar_items(training_matrix(sequences(LISTS), 4, 9), 10, 2.0).toarray()
    assert found[1, 2] == found[2, 1] == pytest.approx(2 / (np.sqrt(6) + 2))
    assert found[2, 4] == pytest.approx(1 / (np.sqrt(3) + 2))
    assert found[1, 3] == pytest.approx(1 / (np.sqrt(2) + 2))
    assert np.count_nonzero(found) == 2 * 4
    assert not found[:, 5].any(), "item 5 shares its user with nothing, not even with itself"
    assert not found[:, 9].any(), "held out"


@pytest.mark.parametrize("pairs", [1, 50, 2**22])
@pytest.mark.parametrize(("neighbors", "shrinkage"), [(3, 0.0), (3, 5.0), (100, 1.0)])
def test_similarities_are_those_of_a_dense_reference_in_any_number_of_blocks(
    neighbors: int, shrinkage: float, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(itemknn, "PAIRS_AT_ONCE", pairs)
    owned = training_matrix(random_sequences(40, 25, 12), 40, 30)
    found = itemknn.similar_items(owned, neighbors, shrinkage)
    np.testing.assert_allclose(found.toarray(), dense_similarities(owned.toarray(), neighbors, shrinkage), rtol=1e-6)
    assert found.has_sorted_indices
    assert np.diff(found.indptr).max() <= neighbors


def test_blocks_cover_all_items_and_hold_what_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itemknn, "PAIRS_AT_ONCE", 60)
    owned = training_matrix(random_sequences(40, 25, 12), 40, 30)
    owners = owned.T.tocsr()
    blocks = list(itemknn._blocks(owners, owned))
    assert [block.start for block in blocks] == [0, *[block.stop for block in blocks[:-1]]]
    assert blocks[-1].stop == 31
    assert len(blocks) > 3
    assert all((owners[block] @ owned).nnz <= 60 for block in blocks if block.stop - block.start > 1)


def test_of_equally_similar_items_the_lower_numbers_are_kept() -> None:
    everyone = csr_array(np.ones((3, 400), np.float32))
    found = itemknn.similar_items(everyone, 2, 0.0)
    assert found.indices.reshape(400, 2).tolist() == [[1, 2], [0, 2], *[[0, 1]] * 398]


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_scores_are_sums_over_the_last_items_of_the_history(decay: float) -> None:
    data = random_sequences(40, 25, 12)
    model = make(data, 30, neighbors=4, shrinkage=1.0, decay=decay)
    known = catalog(data, 30)
    similar = dense_similarities(training_matrix(data, 40, 30).toarray(), 4, 1.0)
    prior = np.log(smoothed_shares(known.counts))
    histories = [[3, 7, 7, 1], [25], [30], [9, 8, 1, 2, 3, 4, 5], []]
    expected = []
    for history in histories:
        total = sum((decay**age * similar[item] for age, item in enumerate(history[:-6:-1])), np.zeros(31))[1:]
        expected.append(np.where(total > 0, total, prior))
    found = model.all_scores(history_batch(histories, 5))[:, 1:]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_items_without_similarity_stand_in_the_order_of_their_popularity() -> None:
    model = make()
    histories = [np.array(history, dtype=np.int32) for history in ([3], [5], [])]
    items, scores = Scorer(model).top_k(histories, 9, exclude_seen=False)  # ties keep the lower number
    counts = catalog(sequences(LISTS), 9).counts
    popular = (np.argsort(-counts[1:], kind="stable") + 1).tolist()
    assert items[0].tolist() == [1, 2, *[item for item in popular if item not in (1, 2)]]
    assert items[1].tolist() == items[2].tolist() == popular
    assert (scores[0, :2] > 0).all()
    assert (scores[0, 2:] < 0).all()


@pytest.mark.parametrize("width", [1, 4, 30])
def test_a_block_of_the_catalog_has_the_columns_of_the_whole(width: int) -> None:
    model = make(random_sequences(40, 25, 12), 30)
    states = model.states(history_batch([[3, 7, 1], [25], []], 5))
    whole = model.head.block(states, 1, 31)
    blocks = [model.head.block(states, start, min(start + width, 31)) for start in range(1, 31, width)]
    assert torch.equal(torch.cat(blocks, dim=1), whole)
    candidates = torch.tensor([30, 2, 2, 17, 1])
    assert torch.equal(model.head.scores(states, candidates), whole[:, candidates - 1])


def test_a_rebuilt_model_without_sequences_ranks_by_its_counts() -> None:
    known = Catalog(3, 2, np.array([0, 1, 5, 2]))
    items, _ = STUDENTS["itemknn"].make(known, {}).top_k(history_batch([[1]], 5), 3)
    assert items.tolist() == [[2, 3, 1]]


def test_planted_tastes_are_found_and_a_shuffled_control_has_none() -> None:
    data, _ = planted(num_items=40, num_users=120)
    shuffled = np.random.default_rng(0).permutation(data.items)

    def hits(items: NDArray[np.int32]) -> float:
        world = Sequences(data.users, data.offsets, items, data.train_end, data.valid_end)
        positions = Scorer(make(world, 40)).positions(world.cases("test"), mask_history=True)
        return float((positions <= 10).mean())

    assert hits(data.items) > 0.9
    assert hits(shuffled) < 0.5

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from components.data.batching import history_batch
from components.data.flat_sequences import Sequences
from components.inference import Scorer
from components.model import Catalog, ModelSpec, Ranker
from components.students import counted, markov, mostpop

SPEC = ModelSpec(markov.MarkovConfig, markov.build)
HISTORIES = [[1, 2, 1, 2, 3, 4], [2, 1, 2, 3, 3], [4, 1, 2, 1]]  # the last two of each are held out


def sequences(histories: list[list[int]], held_out: int = 2) -> Sequences:
    lengths = np.array([len(history) for history in histories])
    return Sequences(
        users=np.arange(1, len(histories) + 1, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.concatenate(histories).astype(np.int32),
        train_end=(lengths - held_out).astype(np.int32),
        valid_end=(lengths - held_out + held_out // 2).astype(np.int32),
    )


def catalog(histories: list[list[int]], num_items: int) -> Catalog:
    data = sequences(histories)
    counts = np.bincount(
        np.concatenate([data.training_items(row) for row in range(len(data))]), minlength=num_items + 1
    )
    return Catalog(num_items, len(data), counts, data)


def model(**arguments: Any) -> Ranker:
    return SPEC.make(catalog(HISTORIES, 5), arguments)


def test_transitions_are_counted_in_the_training_part_alone() -> None:
    counts = markov.count_transitions(sequences(HISTORIES), 5).toarray()
    expected = np.zeros((6, 6))
    for before, after in [(1, 2), (2, 1), (1, 2), (2, 1), (1, 2), (4, 1)]:
        expected[before, after] += 1
    assert (counts == expected).all()


def test_a_wider_window_adds_decayed_successors_within_the_user() -> None:
    counts = markov.count_transitions(sequences([[1, 2, 3, 9, 9], [4, 5, 9, 9]]), 9, window=2, decay=0.25).toarray()
    assert counts[1, 3] == 0.25
    assert counts[1, 2] == 1
    assert counts[3, 4] == counts[2, 4] == 0, "no transition from one user to the next"
    assert counts.sum() == 3.25


def test_scores_are_the_smoothed_transition_probabilities() -> None:
    ranker = model(alpha=2.0)
    scores = ranker.all_scores(history_batch([[3, 1]], 10))[0, 1:]
    shares = mostpop.smoothed_shares(catalog(HISTORIES, 5).counts)
    expected = np.array([0, 3, 0, 0, 0]) + 2.0 * shares
    assert torch.allclose(scores.softmax(0).double(), torch.from_numpy(expected / expected.sum()), atol=1e-6)


def test_unseen_successors_stand_in_the_order_of_their_popularity() -> None:
    ranker = model()
    histories = [np.array(history, dtype=np.int32) for history in ([1], [5], [])]
    items, _ = Scorer(ranker).top_k(histories, 5, exclude_seen=False)  # ties keep the lower number
    by_popularity = np.argsort(-catalog(HISTORIES, 5).counts[1:], kind="stable") + 1
    assert items[0].tolist() == [2, *[item for item in by_popularity if item != 2]]
    assert items[1].tolist() == items[2].tolist() == by_popularity.tolist()


def test_loss_is_the_mean_negative_log_probability_in_any_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = model()
    states, targets = torch.tensor([[1], [2], [0]]), torch.tensor([2, 5, 1])
    every = ranker.head.block(states, 1, 6).log_softmax(1)
    expected = -every[torch.arange(3), targets - 1].mean()
    assert torch.allclose(ranker.head.loss(states, targets), expected)
    monkeypatch.setattr(counted, "LOGITS_AT_ONCE", 5)
    assert torch.allclose(ranker.head.loss(states, targets), expected)
    assert ranker.head.loss(states[:0], targets[:0]).item() == 0.0


def test_candidates_may_repeat_and_come_in_any_order() -> None:
    ranker = model()
    batch = history_batch([[1], [4]], 10)
    candidates = torch.tensor([5, 2, 2, 1])
    assert torch.equal(ranker.scores(batch, candidates), ranker.all_scores(batch)[:, candidates])


def test_planted_transitions_are_found_and_a_shuffled_control_has_none() -> None:
    generator = np.random.default_rng(0)
    follows = generator.permutation(60) + 1

    def walk() -> list[int]:
        path = [int(generator.integers(1, 61))]
        for _ in range(11):
            path.append(int(follows[path[-1] - 1]) if generator.random() < 0.7 else int(generator.integers(1, 61)))
        return path

    def hits(paths: list[list[int]]) -> float:
        data = catalog(paths, 60)
        assert data.sequences is not None
        positions: NDArray[np.int64] = Scorer(SPEC.make(data, {})).positions(data.sequences.cases("test"))
        return float((positions == 1).mean())

    planted = [walk() for _ in range(300)]
    shuffled = [generator.permutation(path).tolist() for path in planted]
    assert hits(planted) > 0.6
    assert hits(shuffled) < 0.2


@pytest.mark.parametrize(("dataset", "floor"), [("ml1m-multimodal", 0.125), ("amazon-scientific", 0.067)])
def test_real_data_reaches_the_known_quality(real_data: Path, dataset: str, floor: float) -> None:
    log = pl.read_parquet(real_data / dataset / "interactions.parquet").sort("user_id", "position")
    numbers = log["item_id"].rank("dense").to_numpy().astype(np.int32)
    lengths = log.group_by("user_id", maintain_order=True).len()["len"].to_numpy()
    data = catalog([part.tolist() for part in np.split(numbers, np.cumsum(lengths)[:-1])], int(numbers.max()))
    assert data.sequences is not None
    positions = Scorer(SPEC.make(data, {})).positions(data.sequences.cases("test"), mask_history=True)
    ndcg = np.where(positions <= 10, 1 / np.log2(positions + 1), 0).mean()
    assert ndcg > floor

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.data.batching import history_batch
from components.model import Catalog, ModelSpec
from components.students import mostpop

SPEC = ModelSpec(mostpop.MostPopConfig, mostpop.build)


def catalog(counts: list[int]) -> Catalog:
    return Catalog(num_items=len(counts), num_users=3, counts=np.array([0, *counts]))


def test_everyone_gets_the_most_frequent_items() -> None:
    model = SPEC.make(catalog([5, 9, 2]), {})
    items, scores = model.top_k(history_batch([[1], [2, 3], []], 10), 3)
    assert items.tolist() == [[2, 1, 3]] * 3
    assert torch.allclose(scores[0].exp(), torch.tensor([10, 6, 3]) / 19)


def test_an_item_that_training_never_saw_is_last_but_has_a_score() -> None:
    scores = SPEC.make(catalog([4, 0, 1]), {}).all_scores(history_batch([[1]], 10))[0]
    assert scores[1:].argmin() == 1
    assert scores[1:].isfinite().all()


def test_loss_is_the_mean_negative_log_share() -> None:
    model = SPEC.make(catalog([2, 0]), {})
    states = torch.zeros(2, 1)
    assert model.head.loss(states, torch.tensor([1, 2])).item() == pytest.approx(-np.log([0.75, 0.25]).mean())
    assert model.head.loss(states[:0], torch.tensor([], dtype=torch.int64)).item() == 0.0


def test_it_has_no_arguments_and_no_parameters() -> None:
    assert SPEC.make(catalog([1]), {}).parameter_parts()["total"] == 0
    with pytest.raises(ValidationError, match="dim"):
        SPEC.make(catalog([1]), {"dim": 3})

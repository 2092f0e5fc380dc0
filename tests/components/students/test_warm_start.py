"""A student that begins with another's weights: how close it is, what it takes, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.data.batching import history_batch
from components.errors import ConfigError
from components.model import Catalog, Ranker
from components.students import STUDENTS
from components.students.warm_start import truncated, warm_start
from components.training.seeds import seed_everything

ITEMS, DIM = 40, 16
CATALOG = Catalog(ITEMS, 4, np.arange(ITEMS + 1)[::-1].copy())
SAME = np.arange(1, ITEMS + 1)


def make(kind: str, seed: int, compression: dict[str, Any] | None = None, **more: Any) -> Ranker:
    seed_everything(seed)
    model = STUDENTS[kind].make(CATALOG, {"dim": DIM, "max_length": 8, "compression": compression, **more}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # as if it were trained
    return model


@torch.no_grad()
def scores(model: Ranker) -> torch.Tensor:
    return model.all_scores(history_batch([[3, 8, 20], [1], [24, 23, 22, 21, 2]], 8))[:, 1:]


@pytest.mark.parametrize("rank", [1, 3, 7, 16])
def test_the_factors_are_the_best_of_their_rank(rank: int) -> None:
    matrix = torch.randn(30, 16, generator=torch.Generator().manual_seed(rank))
    first, second = truncated(matrix, rank)
    values = torch.linalg.svdvals(matrix)
    error = (matrix - first @ second).square().sum()
    assert float(error) == pytest.approx(float(values[rank:].square().sum()), abs=1e-3)
    assert torch.allclose(second @ second.t(), torch.eye(rank), atol=1e-5)


WHOLE = [
    {"output": "tied", "factor": 1},
    {"output": "flat", "factor": 1},
    {"input": "full", "output": "flat", "factor": 1},
    {"input": "full", "output": "full", "item_precision": "int8"},
    None,
]


@pytest.mark.parametrize("kind", ["sasrec", "gru4rec", "nextitnet"])
@pytest.mark.parametrize("compression", WHOLE)
def test_a_student_without_loss_of_rank_ranks_as_the_other(kind: str, compression: dict[str, Any] | None) -> None:
    source, model = make(kind, 0), make(kind, 1, compression)
    assert not torch.allclose(scores(model), scores(source), atol=1e-2)
    taken = warm_start(model, source, SAME)
    assert taken.items == ITEMS
    assert taken.tensors > 0
    assert torch.allclose(scores(model), scores(source), atol=1e-4)


def test_lower_ranks_lose_the_less_the_higher_they_are() -> None:
    source = make("sasrec", 0)
    errors = []
    for factor in (8, 4, 2, 1):
        model = make("sasrec", 1, {"output": "tied", "num_blocks": 2, "factor": factor})
        warm_start(model, source, SAME)
        errors.append(float((scores(model) - scores(source)).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8 < errors[-2]


def test_within_a_block_a_tree_ranks_as_the_other() -> None:
    source, model = make("sasrec", 0), make("sasrec", 1, {"num_blocks": 2, "factor": 1})
    warm_start(model, source, SAME)
    first = model.head.blocks.sizes[0]  # type: ignore[union-attr]
    for block in (slice(0, first), slice(first, ITEMS)):
        apart = scores(model)[:, block] - scores(source)[:, block]
        assert torch.allclose(apart, apart[:, :1].expand_as(apart), atol=1e-4)  # the same but for a constant
    again = make("sasrec", 2, {"num_blocks": 2, "factor": 1})
    warm_start(again, model, SAME)
    assert torch.equal(scores(again), scores(model))


def test_items_that_are_new_keep_their_own_vectors() -> None:
    source, model = make("sasrec", 0), make("sasrec", 1)
    before = model.item_embedding.weight.clone()
    rows = np.zeros(ITEMS, np.int64)
    rows[[4, 9]] = [7, 2]
    assert warm_start(model, source, rows).items == 2
    after = model.item_embedding.weight
    assert torch.equal(after[5], source.item_embedding.weight[7])
    assert torch.equal(after[10], source.item_embedding.weight[2])
    others = [number for number in range(ITEMS + 1) if number not in (5, 10)]
    assert torch.equal(after[others], before[others])


@pytest.mark.parametrize("compression", [None, {"output": "flat"}, {}])
def test_of_another_catalog_the_network_alone_is_taken(compression: Any) -> None:
    source, model = make("nextitnet", 0, {}), make("nextitnet", 1, compression)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert warm_start(model, source, np.zeros(ITEMS, np.int64)).items == 0
    network = {f"network.{name}": tensor for name, tensor in source.network.state_dict().items()}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, network[name] if name in network else own[name]), name


@pytest.mark.parametrize(
    ("kind", "compression", "more", "message"),
    [
        ("caser", None, {}, "only sasrec, gru4rec and nextitnet"),
        ("sasrec", None, {"dim": 32}, r"of shape .* in the other student, expected"),
        ("sasrec", None, {"num_layers": 3}, "is missing in the other student"),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, compression: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        warm_start(make(kind, 1, compression, **more), make("sasrec", 0), SAME)


def test_a_tree_has_no_vectors_for_another_output() -> None:
    with pytest.raises(ConfigError, match="a tree has no item vectors"):
        warm_start(make("sasrec", 1, {"output": "flat"}), make("sasrec", 0, {}), SAME)

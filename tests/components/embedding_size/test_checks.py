"""Worked values of ESAPN: rewards, gradients, memory, sizes, and what each stage may touch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from components.embedding_size.config import METHODS, Method, NormMode
from components.embedding_size.esapn import EsapnSide, policy_loss
from components.embedding_size.labels import binary_labels, class_labels
from components.embedding_size.learner import StreamLearner
from components.embedding_size.networks import Head, SizeChain, SizeHeads, StateNetwork, num_parameters
from components.embedding_size.sizes import ALL_WIDTH, LARGEST, SIZES, WIDTH, memory_ratio, total_dim
from components.embedding_size.visits import Frequencies, LossQueues, rewards, visits_of
from tests.components.embedding_size.worlds import losses, make_learner, make_world, run

MODES: tuple[NormMode, ...] = ("branches", "group", "selected")
TABLE_2 = {  # counts by size, total, FIXED, ratio in percent, entities
    "user20m": ([1041, 10854, 18146, 30836, 22830, 54786], 9_157_770, 17_727_104, 51.66, 138_493),
    "movie20m": ([17032, 216, 380, 623, 2237, 6790], 1_060_224, 3_491_584, 30.37, 27_278),
    "user-latest": ([62808, 83190, 31450, 22778, 31613, 51389], 9_675_448, 36_253_184, 26.69, 283_228),
    "movie-latest": ([45430, 2089, 2006, 1678, 1545, 5350], 925_792, 7_436_544, 12.45, 58_098),
}


def pushed(*values: float, entity: int = 4) -> LossQueues:
    queues = LossQueues(5)
    rows = torch.full((len(values),), entity)
    queues.push(visits_of(rows, torch.ones_like(rows)), torch.tensor(values))
    return queues


@pytest.mark.parametrize(
    ("queue", "loss", "reward"),
    [((0.20, 0.30, 0.25, 0.15, 0.10), 0.16, 0.04), ((0.3, 0.1), 0.25, -0.05)],
)
def test_e1_the_reward_is_the_mean_of_the_last_losses_minus_the_loss(
    queue: tuple[float, ...], loss: float, reward: float
) -> None:
    found = rewards(pushed(*queue), torch.tensor([4]), torch.tensor([loss]))
    assert found.item() == pytest.approx(reward, abs=1e-7)


def test_e1_without_a_loss_there_is_no_reward() -> None:
    assert rewards(pushed(0.3), torch.tensor([2]), torch.tensor([0.9])).item() == 0


@pytest.mark.parametrize(("reward", "gradient"), [(0.04, 0.02), (-0.04, -0.02)])
def test_e2_the_gradient_raises_what_was_rewarded(reward: float, gradient: float) -> None:
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = policy_loss(logits, torch.tensor([1]), torch.tensor([reward]))
    loss.backward()
    assert loss.item() == pytest.approx(np.sign(reward) * 0.0277259, abs=1e-7)
    assert logits.grad is not None
    assert logits.grad.tolist()[0] == pytest.approx([gradient, -gradient])


@pytest.mark.parametrize("name", TABLE_2)
def test_e3_the_published_memory(name: str) -> None:
    counts, total, fixed, ratio, entities = TABLE_2[name]
    assert total_dim(counts) == total
    assert sum(counts) * WIDTH == fixed
    assert round(100 * memory_ratio(counts), 2) == ratio
    assert sum(counts) == entities


def test_e4_all_sizes_take_more_than_the_largest() -> None:
    assert ALL_WIDTH / WIDTH == 1.734375


@pytest.mark.parametrize("mode", MODES)
def test_e5_an_enlarged_embedding_is_what_the_map_makes_of_the_old_one(mode: NormMode) -> None:
    side = EsapnSide(make_learner(bn_mode=mode).config, torch.Generator().manual_seed(0))
    side.ensure(6)
    chosen, left = torch.tensor([1, 4]), torch.tensor([0, 2, 3, 5])
    everybody = torch.arange(6)

    def own() -> list[Tensor]:
        found = []
        for entity in everybody:
            size = int(side.sizes[entity])
            parts = side.store.branches(entity.reshape(1), 0, learn=False)
            found.append(parts[size][0])
        return found

    for size in range(LARGEST):
        before = own()
        wide = [chain(side.network, before[entity], size) for entity in chosen]
        side.store.enlarge(chosen, side.network.transforms, 0)
        after = own()
        for entity, vector in zip(chosen.tolist(), wide, strict=True):
            expected = side.network.transforms[size](before[entity])
            torch.testing.assert_close(after[entity], expected, rtol=0, atol=1e-6)
            torch.testing.assert_close(chain(side.network, after[entity], size + 1), vector, rtol=0, atol=1e-5)
        for entity in left.tolist():
            assert torch.equal(before[entity], after[entity])


def chain(network: SizeChain, row: Tensor, size: int) -> Tensor:
    for widen in list(network.transforms)[size:]:
        row = widen(row)
    return row


@pytest.mark.parametrize("mode", MODES)
def test_e6_sizes_rise_by_at_most_one_and_stay_at_the_largest(mode: NormMode) -> None:
    learner, world = make_learner(bn_mode=mode), make_world(1500)
    before: dict[str, Tensor] = {}
    largest = 0
    for batch in range(30):
        run(learner, world, start=batch, stop=batch + 1)
        for name, side in (("users", learner.users), ("items", learner.items)):
            assert side.sizes is not None
            now = side.sizes.clone().long()
            if name in before:
                rise = now[: len(before[name])] - before[name]
                assert ((rise == 0) | (rise == 1)).all()
                assert (now[len(before[name]) :] <= 1).all()
            before[name] = now
            largest = max(largest, int(now.max()))
    assert largest == LARGEST, "the test saw nobody at the largest size"


def copies(learner: StreamLearner) -> dict[str, Tensor]:
    return learner.tensors()


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, one in after.items() if not torch.equal(before[name], one)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_e7_each_stage_leaves_the_other_ones_parameters_alone(method: Method, mode: NormMode) -> None:
    learner, world = make_learner(method, bn_mode=mode), make_world(1000)
    run(learner, world, stop=19)
    before = copies(learner)
    learner._search(*learner._validation(50))
    searched = copies(learner)
    own = ("policy.", "controller.", "logits.", "searched", "users.adam.", "items.adam.", "generator")
    assert all(any(part in name for part in own) for name in changed(before, searched))
    assert bool(changed(before, searched)) == (method != "fixed")
    learner.before = None  # no search: the model alone
    part = slice(950, 1000)
    learner.step(world.users[part], world.items[part], world.labels[part])
    learned = copies(learner)
    parameters = ("policy.", "controller.", "users.adam.", "items.adam.")
    assert not any(part in name for name in changed(searched, learned) for part in parameters)
    assert any(name.startswith("network.head") for name in changed(searched, learned))


def test_e8_labels() -> None:
    ratings = np.arange(0.5, 5.5, 0.5, dtype=np.float32)
    assert class_labels(ratings).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert binary_labels(ratings).tolist() == [0] * 7 + [1, 1, 1]


@pytest.mark.parametrize("method", METHODS)
def test_e9_what_comes_later_changes_nothing(method: Method) -> None:
    world = make_world(300)
    other = make_world(300, seed=9)
    mixed = copy.deepcopy(world)
    mixed.users[150:], mixed.items[150:] = other.users[150:], other.items[150:]
    mixed.labels[100:] = 1 - mixed.labels[100:]
    first, second = run(make_learner(method), world), run(make_learner(method), mixed)
    assert torch.equal(losses(first[:2]), losses(second[:2]))
    logits = [row_logits(one.losses, labels) for one, labels in ((first[2], world.labels), (second[2], mixed.labels))]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=2e-6)  # the labels of a batch are not known to it


def row_logits(losses: Tensor, labels: Tensor) -> Tensor:
    """Probabilities that gave these squared errors in the third batch."""
    return (labels[100:150] - losses.sqrt() * (2 * labels[100:150] - 1)).float()


def test_e11_the_queue_forgets_the_oldest() -> None:
    queues = pushed(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    assert sorted(queues.losses[4].tolist()) == [3, 4, 5, 6, 7]
    assert queues.means(torch.tensor([4]))[0].item() == 5
    one_by_one = LossQueues(5)
    for value in range(1, 8):
        rows = torch.tensor([4])
        one_by_one.push(visits_of(rows, torch.tensor([1])), torch.tensor([float(value)]))
    assert torch.equal(queues.losses, one_by_one.losses)


def test_visits_equal_a_plain_count() -> None:
    frequencies = Frequencies()
    generator = torch.Generator().manual_seed(1)
    counts: dict[int, int] = {}
    for _ in range(5):
        rows = torch.randint(12, (40,), generator=generator)
        visits = frequencies.visit(rows)
        for place, row in enumerate(rows.tolist()):
            counts[row] = counts.get(row, 0) + 1
            assert visits.frequency[place] == counts[row]
            assert visits.unique[visits.inverse[place]] == row
            assert visits.rank[place] == (rows[:place] == row).sum()
            assert visits.last[visits.inverse[place]] == int(torch.nonzero(rows == row).max())


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    chain = SizeChain()
    assert num_parameters(chain.transforms) == 9_604
    assert 2 * num_parameters(chain) + num_parameters(Head(1)) == 153_353
    assert 2 * num_parameters(chain) + num_parameters(Head(5)) == 155_405
    policy = StateNetwork(10, 2)
    assert num_parameters(policy) - policy.frequencies.weight.numel() == 22_082
    assert 2 * num_parameters(SizeHeads().maps) == 58_368


def test_widening_equals_the_chain_row_by_row() -> None:
    network = SizeChain()
    parts = [torch.randn(count, size) for count, size in zip((3, 0, 2, 1, 4, 2), SIZES, strict=True)]
    wide = network.widen(parts)
    expected = [chain(network, row, size) for size, part in enumerate(parts) for row in part]
    torch.testing.assert_close(wide, torch.stack(expected), rtol=0, atol=1e-6)

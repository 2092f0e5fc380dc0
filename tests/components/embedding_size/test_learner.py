"""The loop: it learns, goes on exactly where it stopped, and takes whatever a stream brings."""

from __future__ import annotations

import pytest
import torch

from components.embedding_size.config import METHODS, Method
from components.embedding_size.learner import StreamLearner
from components.errors import ArtifactError, DataError, UnknownNameError
from tests.components.embedding_size.worlds import World, losses, make_learner, make_world, run


@pytest.mark.parametrize("options", [{}, {"bn_mode": "group"}, {"validation": "random", "reservoir": 120}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_stream_goes_on_to_the_same_numbers(method: Method, options: dict[str, object]) -> None:
    world = make_world(500)
    whole = run(make_learner(method, **options), world)
    for stop in (1, 6):
        first = make_learner(method, **options)
        run(first, world, stop=stop)
        second = make_learner(method, **options)
        second.restore(first.tensors(), first.state())
        del first
        rest = run(second, world, start=stop)
        assert torch.equal(losses(whole)[stop * 50 :], losses(rest))
        assert [one.user_sizes.tolist() for one in whole[stop:]] == [one.user_sizes.tolist() for one in rest]


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_a_planted_taste_and_no_noise(method: Method) -> None:
    world = make_world(12_000, users=20, items=20)
    noise = World(world.users, world.items, world.labels[torch.randperm(12_000)])
    right, wrong = (
        torch.cat([one.correct for one in run(make_learner(method, bn_mode="group"), each)])[-4000:].float().mean()
        for each in (world, noise)
    )
    assert right > 0.75
    assert wrong < 0.6


def test_a_seed_gives_the_same_numbers_whatever_else_is_random() -> None:
    world = make_world(150)
    first = losses(run(make_learner(), world))
    torch.manual_seed(77)
    assert torch.equal(first, losses(run(make_learner(), world)))
    assert not torch.equal(first, losses(run(make_learner(seed=4), world)))


@pytest.mark.parametrize("method", METHODS)
def test_one_user_alone_and_a_stream_shorter_than_a_batch(method: Method) -> None:
    world = World(torch.zeros(9, dtype=torch.int64), torch.arange(9), torch.ones(9, dtype=torch.int64))
    learner = make_learner(method)
    assert torch.isfinite(losses(run(learner, world, batch=500))).all()
    assert torch.isfinite(losses(run(learner, world, batch=500))).all()  # the same user again: a second batch


@pytest.mark.parametrize("mode", ["branches", "group", "selected"])
@pytest.mark.parametrize("method", METHODS)
def test_a_last_batch_of_one_row_uses_running_statistics(method: Method, mode: str) -> None:
    world = make_world(101)
    learner = make_learner(method, bn_mode=mode)
    run(learner, world, stop=2)
    before = learner.tensors()
    (last,) = run(learner, world, start=2)
    assert torch.isfinite(last.losses).all()
    after = learner.tensors()
    changed = [name for name in after if "running" in name and not torch.equal(before[name], after[name])]
    assert not [name for name in changed if name.startswith("network.")]


@pytest.mark.parametrize("method", METHODS)
def test_new_users_in_the_middle_begin_and_the_others_stay(method: Method) -> None:
    learner, world = make_learner(method), make_world(300)
    run(learner, world, stop=3)
    held = learner.memory()["users"]["entities"]
    users = world.users[150:200].clone()
    users[::5] += 1000  # ids far beyond those that were seen
    predicted = learner.step(users, world.items[150:200], world.labels[150:200])
    assert torch.isfinite(predicted.losses).all()
    assert learner.memory()["users"]["entities"] > held


def test_endless_new_ids_are_refused_and_nothing_is_lost() -> None:
    learner, world = make_learner(max_entities=40), make_world(100)
    run(learner, world)
    before = learner.tensors()
    with pytest.raises(DataError, match=r"more than 40 items \(number 40 came\); raise max_entities"):
        learner.step(torch.tensor([1]), torch.tensor([40]), torch.tensor([1]))
    assert all(torch.equal(before[name], one) for name, one in learner.tensors().items())


def test_a_state_of_another_configuration_is_refused() -> None:
    learner, world = make_learner(bn_mode="group"), make_world(100)
    run(learner, world)
    other = make_learner(bn_mode="branches")
    fresh = other.tensors()
    with pytest.raises(ArtifactError, match="another config: bn_mode was 'group', is 'branches'"):
        other.restore(learner.tensors(), learner.state())
    assert all(torch.equal(fresh[name], one) for name, one in other.tensors().items())
    with pytest.raises(ArtifactError, match="another method: it was 'esapn', is 'fixed'"):
        make_learner("fixed", bn_mode="group").restore(learner.tensors(), learner.state())
    with pytest.raises(ArtifactError, match="another seed: it was 3, is 8"):
        make_learner(bn_mode="group", seed=8).restore(learner.tensors(), learner.state())


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown streaming method 'esapm'; known: autoemb, darts, esapn, fixed"):
        StreamLearner("esapm", make_learner().config, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"bn_mode": "group"}, {"bn_mode": "selected"}], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_what_serves_predicts_row_by_row(method: Method, options: dict[str, object]) -> None:
    learner, world = make_learner(method, **options), make_world(600)
    run(learner, world)
    together = learner.logits(world.users[:20], world.items[:20])
    alone = torch.cat([learner.logits(world.users[n : n + 1], world.items[n : n + 1]) for n in range(20)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert together.std() > 0


def test_memory_counts_as_table_2() -> None:
    world = make_world(600)
    for method, width in (("fixed", 128), ("darts", 222), ("autoemb", 222)):
        learner = make_learner(method)  # type: ignore[arg-type]
        run(learner, world)
        users = learner.memory()["users"]
        assert users["total_dim"] == users["entities"] * width
        assert users["ratio"] == pytest.approx(width / 128)
    learner = make_learner("esapn", bn_mode="group")
    run(learner, world)
    users = learner.memory()["users"]
    assert sum(users["sizes"]) == users["entities"] == 30
    assert users["bytes"] == learner.users.store.used_bytes  # type: ignore[attr-defined]


def test_frequencies_can_begin_anew() -> None:
    learner, world = make_learner(), make_world(200)
    run(learner, world, stop=3)
    learner.restart_frequencies()
    (predicted,) = run(learner, world, start=3)
    assert int(predicted.users.frequency.max()) == int(predicted.users.counts.max())

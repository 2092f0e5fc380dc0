from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.batching import Batch, TrainingBatches, history_batch
from components.data.flat_sequences import Sequences
from components.distillation.annotation import case_states, overlapping_windows, training_states
from components.distillation.config import DistillationConfig
from components.distillation.distiller import Distiller
from components.distillation.geometry import geometry_loss, similarity_logits
from components.distillation.losses import seen_candidates
from components.distillation.teacher_scores import TeacherCache
from components.errors import ConfigError
from components.model import Catalog, Ranker
from components.students import STUDENTS
from components.students.heads import learnt_items
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.seeds import seed_everything
from tests.worlds import random_sequences, sequences

ITEMS = 15


def student(seed: int = 0, **arguments: object) -> Ranker:
    seed_everything(seed)
    catalog = Catalog(ITEMS, 30, np.zeros(ITEMS + 1, np.int64))
    return STUDENTS["sasrec"].make(catalog, {"dim": 8, "inner_dim": 16, "max_length": 10, **arguments})


def distiller(model: Ranker, data: Sequences, teachers: int = 2, **config: object) -> Distiller:
    generator = torch.Generator().manual_seed(5)
    states = [torch.randn(data.num_instances, 4 + k, generator=generator).half() for k in range(teachers)]
    items = [torch.randn(ITEMS + 1, 4 + k, generator=generator).half() for k in range(teachers)]
    settings = DistillationConfig.model_validate(config)
    cache = TeacherCache(states, items, [settings.temperature] * teachers)
    names, strengths = [f"t{k}" for k in range(teachers)], [0.1 + k for k in range(teachers)]
    return Distiller(model, cache, names, strengths, settings, learnt_items(model))


def trained(folder: Path, **config: object) -> dict[str, torch.Tensor]:
    data = random_sequences(30, ITEMS, 10)
    model = student()
    objective = distiller(model, data, **config) if config else model.loss
    batches = TrainingBatches(data, 10, 8)
    Trainer(model, batches, TrainingConfig(epochs=2), objective=objective, validate=None, folder=folder).fit()
    return model.state_dict()


def test_c7_lambda_zero_trains_the_plain_student_bit_for_bit(tmp_path: Path) -> None:
    plain, zero = trained(tmp_path / "a"), trained(tmp_path / "b", weight=0.0)
    assert all(torch.equal(plain[name], zero[name]) for name in plain)
    followed = trained(tmp_path / "c", weight=1.0)
    assert any(not torch.equal(plain[name], followed[name]) for name in plain)


def test_what_is_off_by_default_changes_no_bit(tmp_path: Path) -> None:
    default = trained(tmp_path / "a", weight=1.0)
    off = trained(tmp_path / "b", weight=1.0, item_geometry=0.0, item_temperature=0.7)
    assert all(torch.equal(default[name], off[name]) for name in default)
    moved = trained(tmp_path / "c", weight=1.0, item_geometry=1.0)
    assert not torch.equal(default["item_embedding.weight"], moved["item_embedding.weight"])


def first_batch(data: Sequences) -> Batch:
    batches = TrainingBatches(data, 10, 8)
    return batches.batch(batches.epoch(0)[0])


@pytest.mark.parametrize("weights", [(2.5, 0.0), (0.0, 3.0), (2.5, 3.0)])
def test_the_loss_is_the_sum_of_its_parts(weights: tuple[float, float]) -> None:
    data = random_sequences(20, ITEMS, 10)
    model = student().eval()
    objective = distiller(model, data, weight=weights[0], item_geometry=weights[1])
    batch = first_batch(data)
    distance, geometry = objective.distillation_loss(model.states(batch), batch), objective.geometry_loss(batch)
    assert min(distance.item(), geometry.item()) > 0
    torch.testing.assert_close(objective(batch), model.loss(batch) + weights[0] * distance + weights[1] * geometry)


def test_item_geometry_compares_the_batchs_items_with_the_fused_teachers() -> None:
    data = random_sequences(20, ITEMS, 10)
    model = student().eval()
    objective = distiller(model, data, item_geometry=1.0, item_temperature=0.3, direction="q||p", dedup=False)
    batch = first_batch(data)
    items = torch.unique(batch.targets)
    likeness = [similarity_logits(own[items].float(), 0.3).softmax(1) for own in objective.cache.items]
    fused = objective.weights[0] * likeness[0] + objective.weights[1] * likeness[1]
    own = model.state_dict()["item_embedding.weight"][items]
    torch.testing.assert_close(objective.geometry_loss(batch), geometry_loss(own, fused, 0.3, "q||p"))


def test_item_geometry_moves_the_items_of_the_batch_alone() -> None:
    data = random_sequences(20, ITEMS, 10)
    model = student()
    batch = first_batch(data)
    distiller(model, data, item_geometry=1.0).geometry_loss(batch).backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert list(gradients) == ["item_embedding.weight"]
    moved = gradients["item_embedding.weight"].abs().sum(1).nonzero()[:, 0]
    assert moved.tolist() == torch.unique(batch.targets).tolist()


def test_item_geometry_is_not_even_looked_at_where_its_weight_is_zero() -> None:
    data = random_sequences(20, ITEMS, 10)
    objective = distiller(student().eval(), data)
    batch = first_batch(data)
    expected = objective(batch)
    objective.item_embedding = None
    assert torch.equal(objective(batch), expected)


def test_item_geometry_of_a_student_without_item_table_is_refused() -> None:
    cache = TeacherCache([torch.randn(4, 2)], [torch.randn(ITEMS + 1, 2)], [1.0])
    config = DistillationConfig(item_geometry=0.5)
    with pytest.raises(ConfigError, match=r"distillation\.item_geometry: SequentialStudent has no item table"):
        Distiller(student(), cache, ["t"], [1.0], config)


@pytest.mark.parametrize("candidates", ["batch", "all"])
def test_candidates_hold_every_target(candidates: str) -> None:
    data = random_sequences(20, ITEMS, 10)
    objective = distiller(student(), data, candidates=candidates)
    found = objective.candidates(torch.tensor([3, 9, 3]))
    assert {3, 9} <= set(found.tolist())
    assert 0 not in found.tolist()
    assert len(found) == (ITEMS if candidates == "all" else 2)


@pytest.mark.parametrize("step", [1, 3])
def test_seen_candidates_are_those_of_the_history_so_far(step: int) -> None:
    data = random_sequences(20, ITEMS, 10)
    batches = TrainingBatches(data, 10, 20)
    batch = batches.batch(batches.epoch(0)[0])
    candidates = torch.unique(batch.targets[::step])
    found = seen_candidates(batch, step, candidates)
    for row, position in enumerate(batch.positions[::step].tolist()):
        line, column = divmod(position, batch.items.shape[1])
        history = set(batch.items[line, : column + 1].tolist()) - {int(batch.targets[::step][row])}
        assert found[row].tolist() == [item in history for item in candidates.tolist()]


def test_dropping_seen_items_leaves_distributions_without_them() -> None:
    data = random_sequences(20, ITEMS, 10)
    objective = distiller(student(), data, seen="drop", candidates="all")
    batches = TrainingBatches(data, 10, 20)
    batch = batches.batch(batches.epoch(0)[0])
    scores, candidates, step = objective.teacher_scores(batch)
    torch.testing.assert_close(scores.sum(-1), torch.ones(scores.shape[:2]))
    assert not scores[:, seen_candidates(batch, step, candidates)].any()


def test_at_most_max_instances_are_distilled() -> None:
    data = random_sequences(20, ITEMS, 10)
    model = student().eval()
    objective = distiller(model, data, max_instances=7)
    batches = TrainingBatches(data, 10, 20)
    batch = batches.batch(batches.epoch(0)[0])
    objective(batch)
    assert 0 < objective.tally.instances <= 7 < len(batch.targets)


def test_report_counts_the_dropped_teacher() -> None:
    data = random_sequences(40, ITEMS, 10)
    model = student().eval()
    objective = distiller(model, data, teachers=3, epsilon=0.0)
    objective.cache.states[2].mul_(30)  # one teacher alone is sure of everything
    batches = TrainingBatches(data, 10, 40)
    objective(batches.batch(batches.epoch(0)[0]))
    report = objective.report()
    dropped = report["dropped"]
    assert isinstance(dropped, dict)
    assert sum(dropped.values()) == pytest.approx(1.0)
    assert dropped["t2"] > 0.8
    assert report["base_weights"] == pytest.approx({"t0": 0.1 / 3.3, "t1": 1.1 / 3.3, "t2": 2.1 / 3.3})


def test_automatic_epsilon_keeps_about_four_fifths() -> None:
    data = random_sequences(200, ITEMS, 10)
    objective = distiller(student().eval(), data, teachers=3)
    batches = TrainingBatches(data, 10, 64)
    every = [batches.batch(windows) for windows in batches.epoch(0)]
    objective.calibrate(every)
    for batch in every:
        objective(batch)
    assert objective.tally.dropped.sum().item() / objective.tally.instances == pytest.approx(0.2, abs=0.03)


def test_windows_cover_every_instance_once() -> None:
    inputs = np.array([0, 1, 4, 5, 9, 30])
    for length in (1, 2, 4, 7):
        windows, skip = overlapping_windows(inputs, length)
        fresh = [
            (int(row), int(t))
            for (row, first, size), ignored in zip(windows, skip, strict=True)
            for t in range(first + ignored, first + size)
        ]
        assert sorted(fresh) == [(row, t) for row, n in enumerate(inputs) for t in range(n)], length
        assert (windows[:, 2] <= length).all()


def test_states_of_cases_are_those_of_their_histories() -> None:
    data = sequences([[1, 2, 3, 4, 5, 6], [7, 8], [5, 5, 6, 2], list(range(1, 15))])  # one case less than users
    model, cases = student().eval(), data.cases("valid")
    states = case_states(model, cases)
    assert (states.shape, states.dtype) == ((3, 8), np.float16)
    for case in range(3):
        expected = model.states(history_batch([cases.history(case)], 10))[0].detach().numpy()
        np.testing.assert_allclose(states[case], expected, atol=2e-3)
    assert case_states(model, sequences([[1, 2]]).cases("valid")).shape == (0, 0)


def test_states_are_those_of_single_histories() -> None:
    data = sequences([[1, 2, 3, 4, 5, 6], [7, 8, 9], [5, 5, 6, 2]])
    model = student().eval()
    states = training_states(model, data)
    assert states.shape == (data.num_instances, 8)
    for row in range(len(data)):
        for t in range(int(data.train_end[row]) - 1):
            history = data.training_items(row)[: t + 1]
            expected = model.states(history_batch([history], 10))[0].detach().numpy()
            np.testing.assert_allclose(states[data.instance_offsets[row] + t], expected, atol=2e-3)

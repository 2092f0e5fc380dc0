from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from components.data.batching import Batch, TrainingBatches, history_batch
from components.teachers import TEACHERS
from components.teachers.heads import unit
from components.teachers.pretraining import (
    ContrastiveConfig,
    ContrastiveObjective,
    Domain,
    contrastive_loss,
    drop_items,
    grouped_contrast,
    merge_domains,
    random_groups,
    same_targets,
)
from components.teachers.unisrec import UniSRec
from tests.components.teachers.worlds import TEXT_DIM, planted


def none(size: int) -> torch.Tensor:
    return torch.zeros(size, size, dtype=torch.bool)


def test_t3_two_orthonormal_pairs() -> None:
    loss = contrastive_loss(torch.eye(2), torch.eye(2), none(2), temperature=1.0)
    assert loss.item() == pytest.approx(0.313262, abs=1e-6)
    assert loss.item() == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)


def test_t4_equal_targets_are_no_negatives() -> None:
    """Targets 7, 7, 3 and cosines that are all known: row 0 competes with column 2 only."""
    states = torch.eye(3)
    positives = torch.tensor([[0.8, 0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.6, 0.8]])
    masked = same_targets(torch.tensor([7, 7, 3]))
    logits = (states @ positives.t()).exp()  # row 0: exp(.8), exp(.6), exp(0)
    removed = [logits[0, 0] + logits[0, 2], logits[1, 1] + logits[1, 2], logits[2].sum()]
    counted = [removed[0] + 1.0, removed[1] + 1.0, removed[2]]
    for compat, denominators in ((False, removed), (True, counted)):
        expected = -sum((logits[i, i] / d).log() for i, d in enumerate(denominators)) / 3
        loss = contrastive_loss(states, positives, masked, temperature=1.0, compat=compat)
        torch.testing.assert_close(loss, torch.as_tensor(expected))


def test_a_batch_of_one_target_is_no_loss_and_an_empty_one_is_0() -> None:
    states = unit(torch.randn(4, 3))
    masked = same_targets(torch.tensor([5, 5, 5, 5]))
    assert contrastive_loss(states, states, masked, temperature=0.07).item() == 0.0
    empty = contrastive_loss(states[:0], states[:0], none(0), temperature=0.07)
    assert empty.item() == 0.0


def test_temperature_divides_the_cosines() -> None:
    states, positives = unit(torch.randn(5, 4)), unit(torch.randn(5, 4))
    sharp = contrastive_loss(states, positives, none(5), temperature=0.1)
    torch.testing.assert_close(sharp, contrastive_loss(states * 10, positives, none(5), temperature=1.0))


def training_batch(histories: list[list[int]]) -> Batch:
    """Every position is predicted; targets are the next item."""
    batch = history_batch([history[:-1] for history in histories], 50)
    mask = torch.arange(batch.items.shape[1]) < batch.lengths[:, None]
    positions = mask.flatten().nonzero()[:, 0]
    targets = torch.tensor([item for history in histories for item in history[1:]])
    return Batch(batch.items, batch.lengths, batch.users, positions, targets, torch.arange(len(targets)))


def test_dropped_items_leave_order_and_the_first_item() -> None:
    torch.manual_seed(0)
    rows = [list(range(1, n)) for n in (3, 4, 9, 30)]
    batch = training_batch(rows)
    view = drop_items(batch, 0.5)
    assert view.items.shape[1] == int(view.lengths.max()) < batch.items.shape[1]
    for row in range(4):
        kept = view.items[row][: view.lengths[row]].tolist()
        assert kept[0] == 1
        assert kept == sorted(set(kept) & set(rows[row][:-1]))
        assert not view.items[row][view.lengths[row] :].any()
    # The position of a history points at its last kept item.
    for before, after in zip(batch.positions.tolist(), view.positions.tolist(), strict=True):
        row, last = divmod(before, batch.items.shape[1])
        kept = set(view.items[row].tolist())
        expected = max(item for item in batch.items[row][: last + 1].tolist() if item in kept)
        assert divmod(after, view.items.shape[1])[0] == row
        assert view.items.flatten()[after] == expected


def test_items_are_dropped_at_the_given_rate() -> None:
    torch.manual_seed(0)
    batch = training_batch([list(range(1, 52))] * 400)
    lost = 1 - (drop_items(batch, 0.2).lengths.float() - 1) / 49
    assert lost.mean().item() == pytest.approx(0.2, abs=0.01)
    unchanged = drop_items(batch, 0.0)
    assert torch.equal(unchanged.items, batch.items)
    assert torch.equal(unchanged.positions, batch.positions)


def model(seed: int = 0) -> UniSRec:
    torch.manual_seed(seed)
    arguments = {"dim": 16, "num_layers": 1, "inner_dim": 32, "num_experts": 3, "max_length": 10, "mode": "inductive"}
    made = TEACHERS["unisrec"].make(planted()[1], arguments)
    assert isinstance(made, UniSRec)
    return made


def test_the_loss_adds_both_parts_as_written() -> None:
    unisrec, config = model().eval(), ContrastiveConfig(seq_seq_weight=0.25, item_drop=0.0)
    batch = training_batch([[1, 5, 9], [2, 6], [3, 9]])
    states = unisrec.states(batch)
    positives = unit(unisrec.items())[batch.targets - 1]
    same = same_targets(batch.targets)
    assert same.sum() == 2
    item_part = contrastive_loss(states, positives, same, temperature=0.07)
    rows = batch.rows
    masked = same | (rows[:, None] == rows[None, :]).fill_diagonal_(False)
    sequence_part = contrastive_loss(states, states, masked, temperature=0.07)  # nothing dropped: the view is equal
    torch.testing.assert_close(ContrastiveObjective(unisrec, config)(batch), item_part + 0.25 * sequence_part)
    without = ContrastiveObjective(unisrec, config.model_copy(update={"seq_seq_weight": 0.0}))(batch)
    torch.testing.assert_close(without, item_part)


def test_one_coin_per_batch_chooses_the_augmentation() -> None:
    unisrec, batch = model().eval(), training_batch([[1, 5, 9], [2, 6], [3, 9]])
    dropped = torch.randn(25, TEXT_DIM)
    plain = unisrec.states(batch)
    words = ContrastiveConfig(item_drop_share=0.0, word_drop=1.0)
    view = ContrastiveObjective(unisrec, words, dropped)._augmented(batch)
    unisrec.items.text = dropped
    torch.testing.assert_close(view, unisrec.states(batch))
    assert not torch.allclose(view, plain)
    never = ContrastiveConfig(item_drop_share=0.0, word_drop=0.0)
    torch.testing.assert_close(ContrastiveObjective(unisrec, never, dropped)._augmented(batch), unisrec.states(batch))


def test_pretraining_learns_to_find_the_next_item_of_two_domains() -> None:
    parts = [planted(seed=1), planted(num_items=16, seed=2)]
    merged = merge_domains([Domain(f"d{i}", s, c.features["text"]) for i, (s, c) in enumerate(parts)])
    unisrec = model()
    unisrec.set_text(torch.from_numpy(merged.text))
    objective = ContrastiveObjective(unisrec, ContrastiveConfig(), torch.from_numpy(merged.text))
    optimizer = torch.optim.Adam(unisrec.parameters(), lr=3e-3)
    batches = TrainingBatches(merged.sequences, 10, 32)
    losses = []
    for epoch in range(25):
        for windows in batches.epoch(epoch):
            loss = objective(batches.batch(windows))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.7 * losses[0]
    # A third domain was never seen: the transferred weights alone prefer the items of the user's taste.
    sequences, catalog = planted(num_items=32, num_users=60, seed=7)
    unisrec.eval().set_text(torch.from_numpy(catalog.features["text"]))
    cases = sequences.cases("test")
    best = unisrec.top_k(history_batch([cases.history(i) for i in range(len(cases))], 10), 1)[0][:, 0].numpy()
    assert ((best - 1) % 4 == (cases.targets - 1) % 4).mean() > 0.8  # chance is a quarter


def test_merged_domains_keep_their_texts_and_their_order() -> None:
    (one, first), (two, second) = planted(seed=1), planted(num_items=16, num_users=9, seed=2)
    merged = merge_domains(
        [Domain("a", one, first.features["text"], first.features["text"]), Domain("b", two, second.features["text"])]
    )
    assert merged.name == "a+b"
    assert merged.dropped_text is None  # only where every domain has one
    assert merged.text.shape == (24 + 16 + 1, TEXT_DIM)
    assert len(merged.sequences) == 49
    assert len(set(merged.sequences.users.tolist())) == 49
    for row in (0, 8):
        old, new = two.training_items(row), merged.sequences.training_items(40 + row)
        np.testing.assert_array_equal(new, old + 24)
        np.testing.assert_array_equal(merged.text[new], second.features["text"][old])
    np.testing.assert_array_equal(merged.sequences.training_items(3), one.training_items(3))
    assert merged.sequences.num_instances == one.num_instances + two.num_instances
    mixed = TrainingBatches(merged.sequences, 10, 16).epoch(0)
    assert any((windows[:, 0] < 40).any() and (windows[:, 0] >= 40).any() for windows in mixed)


def test_config_names_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="item_drop"):
        ContrastiveConfig(item_drop=1.0)
    with pytest.raises(ValidationError, match="item_dorp"):
        ContrastiveConfig.model_validate({"item_dorp": 0.1})


def test_groups_hold_every_instance_once_and_bound_the_memory() -> None:
    torch.manual_seed(0)
    groups = random_groups(1000, 64)
    assert max(map(len, groups)) <= 64
    assert torch.equal(torch.cat(list(groups)).sort().values, torch.arange(1000))
    kept: list[int] = []
    states = F.normalize(torch.randn(1000, 4), dim=1).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        grouped_contrast(states, states.detach(), torch.arange(1000), ContrastiveConfig(max_negatives=64))
    assert max(kept) <= 64 * 64 + states.numel()


def test_grouped_contrast_is_the_mean_over_instances_of_their_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    states, views = (F.normalize(torch.randn(7, 4), dim=1) for _ in range(2))
    targets, rows = torch.tensor([1, 2, 1, 3, 3, 1, 4]), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    order = torch.tensor([6, 0, 3, 5, 1, 2, 4])
    monkeypatch.setattr(torch, "randperm", lambda count: order)
    total = torch.zeros(())
    for group in ([6, 0, 3], [5, 1], [2, 4]):
        for i in group:
            rivals = [j for j in group if j == i or (targets[j] != targets[i] and rows[j] != rows[i])]
            logits = torch.stack([states[i] @ views[j] for j in rivals]) / 0.07
            total += torch.logsumexp(logits, 0) - states[i] @ views[i] / 0.07
    found = grouped_contrast(states, views, targets, ContrastiveConfig(max_negatives=3), rows)
    torch.testing.assert_close(found, total / 7)

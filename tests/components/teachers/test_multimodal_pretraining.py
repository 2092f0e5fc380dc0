from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from components.data.batching import TrainingBatches
from components.data.flat_sequences import Sequences
from components.errors import ConfigError
from components.model import Catalog
from components.teachers.heads import unit
from components.teachers.multimodal_pretraining import MultimodalObjective, add_merged_users
from components.teachers.pretraining import ContrastiveConfig, Domain, contrastive_loss, merge_domains, same_targets
from components.teachers.unim2rec import alignment_loss
from tests.components.teachers.test_unim2rec import SMALL, catalog, make, pictures
from tests.components.teachers.worlds import planted


def domain(name: str, rows: list[list[int]], times: list[list[int]] | None, train: list[int], items: int = 4) -> Domain:
    lengths = [len(row) for row in rows]
    sequences = Sequences(
        users=np.arange(1, len(rows) + 1, dtype=np.int32),
        offsets=np.cumsum([0, *lengths]),
        items=np.concatenate(rows).astype(np.int32),
        train_end=np.array(train, np.int32),
        valid_end=np.array(train, np.int32) + 1,
        timestamps=None if times is None else np.concatenate(times).astype(np.int64),
    )
    return Domain(name, sequences, np.zeros((items + 1, 2), np.float32))


FOOD = domain("food", [[1, 2, 3], [4, 1]], [[10, 30, 99], [5, 6]], [2, 1])
BOOKS = domain("books", [[2, 1, 3], [3, 4, 1]], [[20, 30, 98], [1, 2, 3]], [2, 2])


def test_users_of_several_domains_get_one_sequence_in_the_order_of_time() -> None:
    merged = merge_domains([FOOD, BOOKS])
    found, added = add_merged_users(merged, [FOOD, BOOKS], [["ann", "bob"], ["ann", "eve"]])
    assert added == 1
    sequences = found.sequences
    assert len(sequences) == 5
    assert sequences.training_items(4).tolist() == [1, 6, 2, 5]  # a tie in time: food, then books
    assert sequences.valid_end[4] == sequences.train_end[4] == 4
    assert sequences.users.tolist() == [1, 2, 3, 4, 5]
    assert len(sequences.cases("valid")) == len(merged.sequences.cases("valid"))
    for row in range(4):
        assert sequences.training_items(row).tolist() == merged.sequences.training_items(row).tolist()


def test_only_training_parts_are_merged() -> None:
    found, _ = add_merged_users(merge_domains([FOOD, BOOKS]), [FOOD, BOOKS], [["ann", "bob"], ["ann", "eve"]])
    assert not {3, 7} & set(found.sequences.training_items(4).tolist())


@pytest.mark.parametrize("names", [[["a", "b"], ["c", "d"]], [["1", "2"], ["01", "02"]]])
def test_domains_that_share_no_users_stay_as_they_are(names: list[list[str]]) -> None:
    merged = merge_domains([FOOD, BOOKS])
    assert add_merged_users(merged, [FOOD, BOOKS], names) == (merged, 0)


def test_a_domain_without_times_is_left_out() -> None:
    timeless = replace(FOOD, sequences=replace(FOOD.sequences, timestamps=None))
    domains, names = [timeless, BOOKS], [["ann", "bob"], ["ann", "bob"]]
    assert add_merged_users(merge_domains(domains), domains, names)[1] == 0
    third = [timeless, BOOKS, FOOD]
    found, added = add_merged_users(merge_domains(third), third, [*names, ["ann", "bob"]])
    assert added == 2
    assert set(found.sequences.training_items(6).tolist()) == {6, 5, 9, 10}


def test_several_sequences_in_one_domain_are_not_merged() -> None:
    assert add_merged_users(merge_domains([FOOD]), [FOOD], [["ann", "ann"]])[1] == 0


def test_users_of_many_domains_are_all_merged() -> None:
    generator = np.random.default_rng(0)
    domains, names = [], []
    for place in range(3):
        rows = [generator.integers(1, 5, size=4).tolist() for _ in range(20)]
        times = [np.sort(generator.integers(0, 1000, size=4)).tolist() for _ in range(20)]
        domains.append(domain(f"d{place}", rows, times, [3] * 20))
        names.append([f"u{n}" for n in generator.permutation(30)[:20]])
    merged = merge_domains(domains)
    found, added = add_merged_users(merged, domains, names)
    expected: dict[str, list[tuple[int, int]]] = {}
    for place, (part, ids) in enumerate(zip(domains, names, strict=True)):
        for row, name in enumerate(ids):
            at = part.sequences.offsets[row]
            assert part.sequences.timestamps is not None
            for step in range(3):
                item = int(part.sequences.items[at + step]) + 4 * place
                expected.setdefault(name, []).append((int(part.sequences.timestamps[at + step]), item))
    several = [sorted(rows, key=lambda pair: pair[0]) for _, rows in sorted(expected.items()) if len(rows) > 3]
    assert added == len(several)
    for row, wanted in enumerate(several):
        assert found.sequences.training_items(60 + row).tolist() == [item for _, item in wanted]


def test_pictures_of_domains_are_stacked_and_zero_where_there_are_none() -> None:
    pictured = replace(FOOD, image=np.full((5, 3), 2.0, np.float32))
    merged = merge_domains([BOOKS, pictured])
    assert merged.image is not None
    assert merged.image.shape == (9, 3)
    assert not merged.image[:5].any()
    assert (merged.image[5:] == 2.0).all()
    assert merge_domains([FOOD, BOOKS]).image is None
    other = replace(BOOKS, image=np.ones((5, 7), np.float32))
    with pytest.raises(ConfigError, match=r"image vectors of different width \(food 3, books 7\)"):
        merge_domains([pictured, other])


def test_the_loss_is_contrast_plus_a_little_alignment() -> None:
    known = catalog()
    model = make(known, mode="inductive").eval()
    batches = TrainingBatches(planted()[0], 10, 6)
    batch = batches.batch(batches.epoch(0)[0])
    states, positives = model.states(batch), unit(model.items())[batch.targets - 1]
    contrast = contrastive_loss(states, positives, same_targets(batch.targets), temperature=0.07)
    used = torch.unique(torch.cat([batch.items.flatten(), batch.targets]))
    both = used[model.items.has_text[used] & model.items.has_image[used]]
    aligned = alignment_loss(*model.items.adapt(both), 0.07)
    found = MultimodalObjective(model, ContrastiveConfig(alignment_weight=0.25))(batch)
    torch.testing.assert_close(found, contrast + 0.25 * aligned)
    without = MultimodalObjective(model, ContrastiveConfig(alignment_weight=0.0))(batch)
    torch.testing.assert_close(without, contrast)


def test_pre_training_learns_both_and_brings_texts_and_pictures_together() -> None:
    sequences, known = planted()
    taste = np.random.default_rng(1).normal(size=(4, 6))[np.arange(24) % 4]
    image = np.concatenate([np.zeros((1, 6)), taste + pictures(24)[1:] * 0.3]).astype(np.float32)
    model = make(Catalog(24, 40, known.counts, sequences, {**known.features, "image": image}), mode="inductive")

    def near() -> float:
        """How often an item's text is nearest to a picture of its own taste."""
        with torch.no_grad():
            texts, images = (F.normalize(x, dim=1) for x in model.eval().items.adapt(torch.arange(1, 25)))
        found = (texts @ images.t()).argmax(dim=1)
        return (found % 4 == torch.arange(24) % 4).float().mean().item()

    objective = MultimodalObjective(model, ContrastiveConfig())
    batches = TrainingBatches(sequences, SMALL["max_length"], 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    losses = []
    for epoch in range(40):
        for windows in batches.epoch(epoch):
            loss = objective(batches.batch(windows)) if model.train() else None
            assert loss is not None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert near() > 0.9

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.artifacts.models import load_model, save_model
from components.data.batching import history_batch
from components.errors import ArtifactError, ConfigError
from components.evaluation.validation import validation_metric
from components.model import Catalog
from components.teachers import TEACHERS
from components.teachers.unim2rec import UniM2Rec, alignment_loss
from tests.components.teachers.worlds import SMALL, planted, train

IMAGE_DIM = 6
HISTORIES = [[1, 5, 9], [2], [3, 7, 11, 15, 19]]


def pictures(num_items: int, seed: int = 3) -> NDArray[np.float32]:
    """Image vectors; items 3, 6, 9, … have none."""
    vectors = np.random.default_rng(seed).normal(size=(num_items + 1, IMAGE_DIM)).astype(np.float32)
    vectors[::3] = 0.0
    return vectors


def catalog(**features: NDArray[np.float32]) -> Catalog:
    known = planted()[1]
    return replace(known, features={**known.features, "image": pictures(known.num_items), **features})


def make(known: Catalog, seed: int = 0, **arguments: Any) -> UniM2Rec:
    torch.manual_seed(seed)
    model = TEACHERS["unim2rec"].make(known, {**SMALL, **arguments})
    assert isinstance(model, UniM2Rec)
    return model


def all_items(known: Catalog) -> torch.Tensor:
    return torch.arange(1, known.num_items + 1)


# Gates


def test_t9_what_an_absent_picture_holds_does_not_matter(mode: str) -> None:
    known = catalog(image=np.zeros((25, IMAGE_DIM), np.float32))
    model = make(known, mode=mode).eval()
    batch = history_batch(HISTORIES, 10)
    before = model.all_scores(batch)
    assert model.items.image is not None
    for values in (
        torch.randn(25, IMAGE_DIM),
        torch.full((25, IMAGE_DIM), torch.nan),
        torch.full((25, IMAGE_DIM), 1e30),
    ):
        model.items.image = values
        assert torch.equal(model.all_scores(batch), before)


def test_t9_gates_sum_to_1_and_an_absent_modality_has_none() -> None:
    known = catalog()
    known.features["text"][[2, 3]] = 0.0  # item 3 has neither
    model = make(known)
    train(model, known, 30)  # so that the gates are not those of the beginning
    items, numbers = model.eval().items, all_items(known)
    weights = items.gates(*items.adapt(numbers), items.has_text[numbers], items.has_image[numbers])
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(24))
    pictured, worded = items.has_image[1:], items.has_text[1:]
    assert (weights[~pictured, 1] == 0).all()
    assert (weights[pictured & ~worded, 0] == 0).all()
    assert ((weights[pictured & worded] > 0) & (weights[pictured & worded] < 1)).all()
    assert weights[pictured & worded, 0].std() > 0.001


def test_gates_are_equal_at_the_beginning() -> None:
    items, numbers = make(catalog()).eval().items, torch.tensor([1, 2])
    texts, images = items.adapt(numbers)
    weights = items.gates(texts, images, items.has_text[numbers], items.has_image[numbers])
    torch.testing.assert_close(weights, torch.full((2, 2), 0.5))
    torch.testing.assert_close(items.represent(numbers), (texts + images) / 2)


def test_gates_follow_their_formula() -> None:
    items, numbers = make(catalog()).eval().items, torch.tensor([1])
    with torch.no_grad():
        for tower in (items.text_tower, items.image_tower):
            assert tower is not None
            tower.wish.normal_()
    assert items.image_tower is not None
    texts, images = items.adapt(numbers)
    wishes = [
        (tower.wish * torch.tanh(tower.gate.weight @ h[0])).sum()
        for tower, h in ((items.text_tower, texts), (items.image_tower, images))
    ]
    expected = torch.stack(wishes).softmax(0)
    yes = torch.tensor([True])
    torch.testing.assert_close(items.gates(texts, images, yes, yes)[0], expected)
    torch.testing.assert_close(items.represent(numbers)[0], expected[0] * texts[0] + expected[1] * images[0])


def test_an_item_without_text_and_picture_is_zero_and_harmless(mode: str) -> None:
    known = catalog()
    known.features["text"][3] = 0.0
    model = make(known, mode=mode)
    assert not model.items.represent(torch.tensor([3])).any()
    losses = train(model, known, 20)
    assert np.isfinite(losses).all()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    model.eval()
    assert model.all_scores(history_batch([[3], [3, 1]], 10))[:, 1:].isfinite().all()
    if mode == "inductive":
        assert not model.items.represent(torch.tensor([3])).any()


def test_modality_dropout_hides_pictures_but_never_all_of_an_item() -> None:
    known = catalog()
    known.features["text"][4] = 0.0  # item 4 has a picture alone
    model = make(known, modality_dropout=0.5).train()
    items, numbers = model.items, all_items(known).repeat(200)
    shown = items.shown(numbers)
    assert not (shown & ~items.has_image[numbers]).any()
    both = items.has_text[numbers] & items.has_image[numbers]
    assert 0.45 < shown[both].float().mean() < 0.55
    assert shown[numbers == 4].all()
    texts, images = items.adapt(numbers)
    weights = items.gates(texts, images, items.has_text[numbers], shown)
    assert (weights[items.has_text[numbers], 0] > 0).all()  # texts are always there
    assert torch.equal(model.eval().items.shown(numbers), items.has_image[numbers])


def test_without_pictures_there_is_no_tower_and_scores_are_those_of_texts() -> None:
    known = planted()[1]
    model = make(known).eval()
    assert model.items.image_tower is None
    assert not any("image_tower" in name for name in model.state_dict())
    vectors, texts = model.items.represent(all_items(known)), model.items.adapt(all_items(known))[0]
    torch.testing.assert_close(vectors, texts)


def test_pictures_may_be_left_unread() -> None:
    assert make(catalog()).items.image_tower is not None
    blind = make(catalog(), images=False)
    assert blind.items.image_tower is None
    assert torch.equal(blind.item_vectors(), make(planted()[1]).item_vectors())


# The model


@pytest.mark.parametrize("whitening", [False, True])
def test_it_learns_a_tiny_set(mode: str, whitening: bool) -> None:
    known = catalog()
    model = make(known, mode=mode, whitening=whitening, dropout=0.0, adaptor_dropout=0.0, modality_dropout=0.0)
    losses = train(model, known, 120)
    assert losses[-1] < 0.5 * losses[0]


def test_t10_stored_vectors_give_the_models_own_scores(mode: str) -> None:
    known = catalog()
    model = make(known, mode=mode).eval()
    generator = np.random.default_rng(0)
    histories = [list(generator.integers(1, 25, size=generator.integers(1, 11))) for _ in range(100)]
    batch = history_batch(histories, 10)
    with torch.no_grad():
        cached = model.states(batch) @ model.item_vectors().t()
        torch.testing.assert_close(cached[:, 1:] / model.temperature, model.all_scores(batch)[:, 1:])
    assert (model.all_scores(batch)[:, 0] == -torch.inf).all()


def taste_in_pictures(reveal: bool, shuffled: bool = False) -> Catalog:
    """Texts are noise; pictures tell the taste, unless they are dealt to the wrong items."""
    sequences, known = planted(num_items=40, num_users=120, seed=4)
    generator = np.random.default_rng(6)
    text = generator.normal(size=known.features["text"].shape).astype(np.float32)
    features = {"text": text}
    if reveal:
        taste = np.random.default_rng(7).normal(size=(4, IMAGE_DIM))[np.arange(40) % 4]
        image = taste + 0.3 * generator.normal(size=taste.shape)
        if shuffled:
            image = image[generator.permutation(40)]
        features["image"] = np.concatenate([np.zeros((1, IMAGE_DIM)), image]).astype(np.float32)
    return replace(known, sequences=sequences, features=features)


def quality(known: Catalog) -> float:
    """NDCG@10 on users whose training said nothing of them: the second half."""
    whole = known.sequences
    assert whole is not None
    train_end = np.where(np.arange(len(whole)) < 60, whole.train_end, 1).astype(np.int32)
    model = make(known, mode="inductive", dropout=0.0)
    train(model, replace(known, sequences=replace(whole, train_end=train_end)), 60)
    return validation_metric(model.eval(), whole.cases("test"), "ndcg@10", max_users=None, mask_history=True)


def test_pictures_help_where_they_tell_what_texts_hide() -> None:
    with_pictures, without = quality(taste_in_pictures(True)), quality(taste_in_pictures(False))
    shuffled = quality(taste_in_pictures(True, shuffled=True))
    assert with_pictures > 1.2 * without
    assert with_pictures > 1.2 * shuffled


# Kept and handed over


def test_save_and_load_keep_scores(mode: str, tmp_path: Path) -> None:
    known = catalog()
    model = make(known, mode=mode)
    train(model, known, 5)
    arguments = TEACHERS["unim2rec"].config(**{**SMALL, "mode": mode}).model_dump()
    save_model(model.eval(), tmp_path, kind="unim2rec", family="teacher", arguments=arguments, catalog=known)
    loaded = load_model(tmp_path)
    batch = history_batch(HISTORIES, 10)
    assert torch.equal(loaded.all_scores(batch), model.all_scores(batch))
    for name in ("text", "image", "has_text", "has_image"):
        assert torch.equal(getattr(loaded.items, name), getattr(model.items, name))


def test_a_saved_model_of_another_catalog_is_taken_inductively() -> None:
    big, small = make(catalog(), mode="inductive"), planted(num_items=16)[1]
    small = replace(small, features={**small.features, "image": pictures(16)})
    model = make(small, mode="inductive", seed=1)
    model.load_tensors(big.state_dict())
    assert model.num_items == 24
    batch = history_batch(HISTORIES, 10)
    assert torch.equal(model.eval().all_scores(batch), big.eval().all_scores(batch))


def test_pretrained_weights_hand_over_towers_gates_and_encoder() -> None:
    source = make(catalog(), mode="inductive", seed=8)
    target = make(catalog(image=pictures(24, seed=9)), mode="transductive")
    own = copy.deepcopy(target.state_dict())
    target.load_pretrained(source.state_dict())
    found = target.state_dict()
    for name, tensor in source.state_dict().items():
        handed = name.startswith(("items.text_tower.", "items.image_tower.", "encoder."))
        assert torch.equal(found[name], tensor if handed else own[name]), name


def test_texts_alone_may_follow_pre_training_with_pictures_but_not_the_other_way() -> None:
    with_pictures, without = make(catalog()), make(planted()[1])
    without.load_pretrained(with_pictures.state_dict())
    with pytest.raises(ArtifactError, match=r"lack 'items\.image_tower\..*pre-train a UniM2Rec"):
        with_pictures.load_pretrained(make(planted()[1]).state_dict())


def test_parameter_efficient_tuning_leaves_the_encoder(mode: str) -> None:
    known = catalog()
    model = make(known, mode=mode, tune="adaptor")
    before = copy.deepcopy(model.state_dict())
    train(model, known, 3)
    for name, tensor in model.state_dict().items():
        if name.startswith(("encoder.blocks", "encoder.position_embedding")):
            assert torch.equal(tensor, before[name]), name
    assert not torch.equal(model.items.text_tower.wish, before["items.text_tower.wish"])


def test_texts_are_needed() -> None:
    with pytest.raises(ConfigError, match="needs item text vectors"):
        make(replace(planted()[1], features={"image": pictures(24)}))


# Alignment


def test_the_alignment_loss_is_that_of_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    texts, images = torch.randn(5, 4, generator=generator), torch.randn(5, 4, generator=generator)
    t, v = (x / x.norm(dim=1, keepdim=True) for x in (texts, images))
    total = 0.0
    for i in range(5):
        scores = [float(t[i] @ v[j]) / 0.07 for j in range(5)]
        back = [float(v[i] @ t[j]) / 0.07 for j in range(5)]
        total -= 0.5 * (scores[i] - np.log(np.sum(np.exp(scores))) + back[i] - np.log(np.sum(np.exp(back))))
    assert alignment_loss(texts, images, 0.07).item() == pytest.approx(total / 5, rel=1e-5)


def test_the_alignment_loss_by_hand() -> None:
    same = torch.eye(2)
    assert alignment_loss(same, same, 1.0).item() == pytest.approx(0.313262, abs=1e-6)  # -log(e / (e + 1))


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_tell_apart_is_no_loss(count: int) -> None:
    x = torch.randn(count, 4, requires_grad=True)
    loss = alignment_loss(x, x, 0.07)
    loss.backward()
    assert loss.item() == 0.0

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.artifacts.models import load_model, save_model
from components.data.batching import TrainingBatches, history_batch
from components.data.flat_sequences import Sequences
from components.distillation.annotation import training_states
from components.errors import ArtifactError, ConfigError
from components.inference import Scorer
from components.model import Catalog
from components.teachers import TEACHERS
from components.teachers.recformer.model import Recformer
from components.training.seeds import seed_everything
from tests.components.teachers.worlds import planted

SEQUENCES, CATALOG = planted()
HISTORIES = [[1, 5, 9, 13], [2], [3, 7, 11, 15, 19, 23], []]


def make(bert: str, catalog: Catalog = CATALOG, seed: int = 0, **arguments: Any) -> Recformer:
    seed_everything(seed)
    model = TEACHERS["recformer"].make(catalog, {"backbone": bert, "max_length": 8, "precision": "fp32", **arguments})
    assert isinstance(model, Recformer)
    return model.eval()


@torch.no_grad()
def states(model: Recformer, histories: list[list[int]]) -> torch.Tensor:
    return model.states(history_batch(histories, model.max_length))


def save(model: Recformer, folder: Path, **arguments: Any) -> bytes:
    folder.mkdir()
    kept = {"max_length": 8, "precision": "fp32", **arguments}
    save_model(model, folder, kind="recformer", family="teacher", arguments=kept, catalog=CATALOG)
    return (folder / "model.safetensors").read_bytes()


def test_a_single_item_is_a_history_of_one(bert: str) -> None:
    model = make(bert)
    items = model.item_vectors()
    assert items.shape == (25, 16)
    assert not items[0].any()
    torch.testing.assert_close(states(model, [[item] for item in range(1, 25)]), items[1:])


def test_half_precision_changes_states_and_gradients_little(bert: str) -> None:
    batch = history_batch(HISTORIES[:3], 8)
    batch = replace(batch, targets=torch.tensor([17, 3, 9])[: len(batch.positions)])
    for changes in ({}, {"attention": "longformer", "window": 16}, {"gradient_checkpointing": True}):
        gradients, found = {}, {}
        for precision in ("fp32", "bf16"):
            model = make(bert, dropout=0.0, attention_dropout=0.0, precision=precision, **changes).train()
            model.loss(batch).backward()
            weight = model.backbone.layers[0].inner.weight.grad  # type: ignore[union-attr]
            gradients[precision], found[precision] = weight.flatten(), states(model.eval(), HISTORIES)
        assert found["bf16"].dtype == torch.float32
        assert not torch.equal(found["bf16"], found["fp32"])  # the option does something
        assert torch.cosine_similarity(found["bf16"], found["fp32"], dim=1).min() > 0.999
        assert torch.cosine_similarity(gradients["bf16"], gradients["fp32"], dim=0) > 0.99


def test_scores_are_cosines_over_the_temperature(bert: str) -> None:
    model = make(bert)
    scores = model.all_scores(history_batch([[4]], 8))[0]
    assert scores[4].item() == pytest.approx(1 / 0.05, rel=1e-4)
    assert scores.argmax() == 4


def test_each_history_is_encoded_newest_item_first(bert: str) -> None:
    model = make(bert)
    assert (states(model, [[1, 2]]) - states(model, [[2, 1]])).abs().max() > 1e-3
    torch.testing.assert_close(states(model, [[9] * 3 + [1, 2, 3, 4, 5, 6, 7, 8]]), states(model, [[*range(1, 9)]]))


def test_budgets_of_tokens_do_not_change_states(bert: str) -> None:
    whole = states(make(bert), HISTORIES)
    torch.testing.assert_close(states(make(bert, batch_tokens=1), HISTORIES), whole)
    torch.testing.assert_close(states(make(bert, batch_tokens=30), HISTORIES), whole)


def test_states_of_prefixes_are_those_computed_alone(bert: str) -> None:
    """What annotation stores is what serving computes."""
    model = make(bert)
    found = training_states(model, SEQUENCES)
    assert found.dtype == np.float16
    assert found.shape == (SEQUENCES.num_instances, 16)
    for row in (0, 1, 17, 39):
        items = SEQUENCES.training_items(row)
        for place in range(len(items) - 1):
            alone = states(model, [items[: place + 1].tolist()])[0].numpy()
            np.testing.assert_allclose(found[SEQUENCES.instance_offsets[row] + place], alone, atol=1e-3)


def test_annotation_reads_equal_histories_once(bert: str) -> None:
    model, read = make(bert, max_length=1), []
    encode = model.encode
    model.encode = lambda histories: read.append(len(histories)) or encode(histories)  # type: ignore[method-assign,func-returns-value]
    found = training_states(model, SEQUENCES)
    ends = np.concatenate([SEQUENCES.training_items(row)[:-1] for row in range(len(SEQUENCES))])
    assert sum(read) == len(np.unique(ends)) < len(ends) == len(found)
    np.testing.assert_allclose(found, model.item_vectors()[ends].numpy(), atol=1e-3)


def test_annotation_gives_long_users_their_whole_last_items(bert: str) -> None:
    """A causal model's windows overlap by half; here every state has seen the last `max_length` items."""
    items = np.random.default_rng(0).integers(1, 25, size=40).astype(np.int32)
    one = np.array([40], np.int32)
    long = Sequences(np.array([1], np.int32), np.array([0, 40]), items, one - 2, one - 1)
    model = make(bert)
    found = training_states(model, long)
    for place in (7, 8, 20, 36):
        alone = states(model, [items[max(0, place - 7) : place + 1].tolist()])[0].numpy()
        np.testing.assert_allclose(found[place], alone, atol=1e-3)


def test_cached_vectors_rank_like_the_model(bert: str) -> None:
    """Check T10: 100 random instances, states and item vectors as annotation stores them."""
    model = make(bert)
    cached = training_states(model, SEQUENCES).astype(np.float32)
    items = model.item_vectors().numpy().astype(np.float16).astype(np.float32)
    batches = TrainingBatches(SEQUENCES, 8, 40)
    batch = batches.batch(np.concatenate(batches.epoch(0)))
    with torch.no_grad():
        scores = model.all_scores(batch)[:, 1:].numpy()
    chosen = np.random.default_rng(1).choice(len(scores), 100, replace=False)
    logits = cached[batch.instances.numpy()[chosen]] @ items[1:].T / model.temperature
    np.testing.assert_allclose(logits, scores[chosen], atol=0.02)
    for one, other in zip(logits, scores[chosen], strict=True):  # the same order, but for ties within rounding
        assert (np.diff(other[np.argsort(-one)]) < 0.02).all()
    assert np.ptp(scores, axis=1).min() > 1


def test_evaluation_ranks_with_the_models_own_scores(bert: str) -> None:
    model, cases = make(bert), SEQUENCES.cases("test")
    positions = Scorer(model).positions(cases)
    for case, target in enumerate(cases.targets):
        with torch.no_grad():
            row = model.all_scores(history_batch([cases.history(case)], 8))[0, 1:]
        assert (row > row[target - 1] + 1e-3).sum() < positions[case] <= (row >= row[target - 1] - 1e-3).sum()


@pytest.mark.parametrize(
    "arguments", [{}, {"attention": "longformer", "window": 16}, {"lora_rank": 2}, {"num_layers": 1, "pooling": "avg"}]
)
def test_a_saved_model_needs_no_language_model(arguments: dict[str, Any], bert: str, tmp_path: Path) -> None:
    model = make(bert, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    model.refresh()
    written = save(model, tmp_path / "one", backbone="/gone", **arguments)
    loaded = load_model(tmp_path / "one")
    assert isinstance(loaded, Recformer)
    assert torch.equal(states(loaded, HISTORIES), states(model, HISTORIES))
    assert torch.equal(loaded.item_vectors(), model.item_vectors())
    assert save(loaded, tmp_path / "two", backbone="/gone", **arguments) == written


def test_a_saved_model_of_another_kind_is_an_error(bert: str, tmp_path: Path) -> None:
    save(make(bert), tmp_path / "one", lora_rank=2)
    with pytest.raises(ArtifactError, match="cannot be built"):
        load_model(tmp_path / "one")


def test_loss_takes_all_items_or_a_sample(bert: str) -> None:
    batch = replace(history_batch(HISTORIES, 8), targets=torch.tensor([17, 6, 3, 1]))
    model = make(bert)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model.all_scores(batch)[:, 1:], batch.targets - 1)
        assert model.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
        torch.manual_seed(0)
        sampled = make(bert, num_negatives=4).loss(batch)
        crowded = make(bert, num_negatives=5000).loss(batch)
    assert 0 < sampled < expected
    assert crowded.item() == pytest.approx(expected.item() + np.log(5001 / 24), abs=0.2)


def test_the_item_matrix_gets_no_gradient(bert: str) -> None:
    model = make(bert)
    batch = replace(history_batch([[1, 2]], 8), targets=torch.tensor([3]))
    model.loss(batch).backward()  # type: ignore[no-untyped-call]
    assert not model.matrix.requires_grad
    assert model.backbone.embeddings.words.weight.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_workers_encode_shares_of_the_items(bert: str) -> None:
    model = make(bert)
    items, rows = model.tokens.distinct()
    whole = model.item_vectors()[1:]
    parts = torch.zeros(len(items), 16)
    with torch.no_grad():
        for rank in range(3):
            parts[rank::3] = model.encode(items[rank::3, None])
    torch.testing.assert_close(parts[rows], whole)


def test_items_without_text_survive_and_share_a_vector(bert: str) -> None:
    titles = [*CATALOG.attributes["title"][:-2], "", "\x00"]  # type: ignore[index]
    model = make(bert, replace(CATALOG, attributes={"title": titles}))
    vectors = model.item_vectors()
    assert torch.equal(vectors[-1], vectors[-2])
    assert vectors.isfinite().all()
    assert states(model, [[23, 24], [24], []]).isfinite().all()
    torch.testing.assert_close(states(model, [[24], []])[0], vectors[24])


@pytest.mark.parametrize("attributes", [None, {}, {"title": [""] * 24}])
def test_a_catalog_without_text_is_refused(attributes: dict[str, list[str]] | None, bert: str) -> None:
    with pytest.raises(ConfigError, match="recformer needs item texts"):
        make(bert, replace(CATALOG, attributes=attributes))


def test_pretrained_weights_come_without_items(bert: str) -> None:
    _, other = planted(num_items=10)
    source = make(bert, other, seed=1)
    for target in (make(bert), make(bert, lora_rank=2)):
        before = target.item_vectors().clone()
        target.load_pretrained(source.state_dict())
        ours = {name.replace(".base_layer.", "."): value for name, value in target.backbone.state_dict().items()}
        assert all(torch.equal(value, ours[name]) for name, value in source.backbone.state_dict().items())
        assert target.num_items == 24
        assert not torch.equal(target.item_vectors(), before)


def test_pretrained_weights_of_another_shape_are_refused(bert: str) -> None:
    with pytest.raises(ArtifactError, match=r"'backbone\.layers\.1\.[a-z._]+'; pre-train a recformer"):
        make(bert).load_pretrained(make(bert, num_layers=1).state_dict())
    with pytest.raises(ArtifactError, match=r"has shape \(9, 16\), the teacher needs \(6, 16\); use the same backbone"):
        make(bert, max_length=5).load_pretrained(make(bert).state_dict())


def test_another_catalog_can_be_ranked(bert: str) -> None:
    from transformers import AutoTokenizer

    from components.teachers.recformer.tokens import tokenize_items

    model = make(bert)
    _, other = planted(num_items=10)
    model.set_items(tokenize_items(other.attributes or {}, AutoTokenizer.from_pretrained(bert)))
    assert model.num_items == 10
    torch.testing.assert_close(model.item_vectors(), make(bert, other).item_vectors())

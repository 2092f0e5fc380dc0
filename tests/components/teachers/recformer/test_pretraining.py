from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from components.data.batching import Batch, PrefixBatches, history_batch
from components.errors import ConfigError
from components.teachers.recformer.model import Recformer, RecformerConfig, build
from components.teachers.recformer.pretraining import Pretraining, choose_words, hide_tokens
from components.teachers.recformer.tokens import TokenBatch
from components.training.config import TrainingConfig
from components.training.loop import Trainer
from components.training.seeds import seed_everything
from tests.components.teachers.worlds import planted

SEQUENCES, CATALOG = planted()


def make(bert: str, **arguments: Any) -> Recformer:
    seed_everything(0)
    return build(CATALOG, RecformerConfig(backbone=bert, max_length=8, **arguments))


def batch() -> Batch:
    return replace(history_batch([[1, 5], [2], [], [3, 7, 11]], 8), targets=torch.tensor([9, 6, 4, 6]))


def worded(lengths: list[int], rows: int = 1) -> TokenBatch:
    """Rows of CLS, words of the given numbers of tokens, and three tokens of padding."""
    words = [-1, *(number for number, length in enumerate(lengths) for _ in range(length)), -1, -1, -1]
    numbers = torch.tensor([words] * rows)
    ids = torch.arange(len(words)).expand(rows, -1)
    mask = torch.arange(len(words)).expand(rows, -1) < len(words) - 3
    return TokenBatch(ids, torch.ones_like(ids), torch.ones_like(ids), numbers, mask)


def test_whole_words_are_chosen_and_never_cls_or_padding() -> None:
    torch.manual_seed(0)
    tokens = worded([1, 3, 2, 4, 1, 2] * 5, rows=500)
    chosen = choose_words(tokens, 0.15)
    assert not chosen[tokens.words < 0].any()
    for word in range(30):
        inside = chosen[:, tokens.words[0] == word]
        assert torch.equal(inside.any(dim=1), inside.all(dim=1))
    share = chosen.sum() / (tokens.words >= 0).sum()
    assert 0.15 <= share < 0.18  # the last word may reach over
    by_word = torch.stack([chosen[:, tokens.words[0] == word][:, 0].float().mean() for word in range(30)])
    assert by_word.min() > 0.08
    assert by_word.max() < 0.25


@pytest.mark.parametrize(("lengths", "expected"), [([], 0), ([1], 1), ([4], 4), ([1, 1, 1], 1), ([1] * 5000, 512)])
def test_at_least_one_word_and_at_most_512_tokens(lengths: list[int], expected: int) -> None:
    assert int(choose_words(worded(lengths), 0.15).sum()) == expected


def test_chosen_tokens_are_hidden_replaced_or_left() -> None:
    torch.manual_seed(0)
    tokens = worded([1] * 2000, rows=20)
    chosen = torch.rand(tokens.ids.shape) < 0.5
    changed = hide_tokens(tokens, chosen, mask_id=7777, vocabulary=5000).ids
    assert torch.equal(changed[~chosen], tokens.ids[~chosen])
    hidden, kept = (changed[chosen] == 7777).float().mean(), (changed == tokens.ids)[chosen].float().mean()
    assert hidden.item() == pytest.approx(0.8, abs=0.01)
    assert kept.item() == pytest.approx(0.1, abs=0.01)


def test_the_contrast_is_a_softmax_over_the_items_of_the_batch(bert: str) -> None:
    model = make(bert).eval()
    states, vectors = model.states(batch()), model.item_vectors()[batch().targets]
    expected = F.cross_entropy(states @ vectors.t() / 0.05, torch.arange(4))
    assert Pretraining(model, mlm_weight=0)(batch()).item() == pytest.approx(expected.item(), rel=1e-4)


def test_masked_words_add_their_weight(bert: str) -> None:
    model = make(bert).eval()
    both = Pretraining(model, mlm_weight=0.1)
    contrast = Pretraining(model, mlm_weight=0)(batch())
    torch.manual_seed(1)
    whole = both(batch())
    torch.manual_seed(1)
    parts = both.masked_loss(torch.tensor([[5, 1, 0], [2, 0, 0], [0, 0, 0], [11, 7, 3]]))
    parts = parts + both.masked_loss(batch().targets[:, None])
    assert whole.item() == pytest.approx((contrast + 0.1 * parts).item(), rel=1e-4)
    assert parts > 1


def test_budgets_of_tokens_do_not_change_the_number_of_masked_words(bert: str) -> None:
    histories = torch.tensor([[5, 1, 0], [2, 0, 0], [11, 7, 3]])
    torch.manual_seed(0)
    whole = Pretraining(make(bert).eval()).masked_loss(histories)
    torch.manual_seed(0)
    cut = Pretraining(make(bert, batch_tokens=1).eval()).masked_loss(histories)
    assert cut.isfinite()
    assert cut.item() == pytest.approx(whole.item(), rel=0.5)
    assert Pretraining(make(bert)).masked_loss(torch.zeros(2, 1, dtype=torch.int64)).item() == 0


def test_word_embeddings_stay_and_the_head_learns(bert: str) -> None:
    pretraining = Pretraining(make(bert))
    pretraining(batch()).backward()
    assert pretraining.head is not None
    assert pretraining.head.dense.weight.grad is not None
    assert pretraining.model.backbone.embeddings.words.weight.grad is None


def test_a_tokenizer_without_mask_is_refused(bert: str) -> None:
    model = make(bert)
    model.backbone.shape = replace(model.backbone.shape, mask_id=-1)
    with pytest.raises(ConfigError, match=r"no MASK token; set pretrain\.contrastive\.mlm_weight to 0"):
        Pretraining(model)
    Pretraining(model, mlm_weight=0)


def test_it_learns_both_tasks(bert: str, tmp_path: Path) -> None:
    pretraining = Pretraining(make(bert, dropout=0.0, attention_dropout=0.0), mlm_weight=0.1)
    model = pretraining.model

    def losses() -> tuple[float, float]:
        pretraining.eval()
        torch.manual_seed(9)
        with torch.no_grad():
            given = PrefixBatches(SEQUENCES, 8, 40, seed=3, second_half=True)
            whole = given.batch(given.epoch(0)[0])
            contrast = Pretraining(model, mlm_weight=0).eval()(whole)
            return contrast.item(), pretraining.masked_loss(torch.arange(1, 25)[:, None]).item()

    before = losses()
    trainer = Trainer(
        pretraining,
        PrefixBatches(SEQUENCES, 8, 16, second_half=True),
        TrainingConfig(epochs=40, optimizer="adamw", learning_rate=5e-3, patience=None),
        objective=pretraining,
        validate=None,
        folder=tmp_path,
    )
    trainer.fit()
    after = losses()
    assert after[0] < 0.7 * before[0]
    assert after[1] < 0.7 * before[1]

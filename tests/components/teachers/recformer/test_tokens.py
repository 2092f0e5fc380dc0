from __future__ import annotations

from typing import Any

import pytest
import torch

from components.data.batching import history_batch
from components.errors import ConfigError
from components.teachers.recformer.model import prefixes
from components.teachers.recformer.tokens import ItemTokens, TokenBatch, tokenize_items

CLS, PAD = 2, 0


@pytest.fixture(scope="module")
def tokenizer(bert: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(bert)


def words(tokenizer: Any, ids: torch.Tensor) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids.tolist())  # type: ignore[no-any-return]


def assemble(tokens: ItemTokens, histories: list[list[int]]) -> TokenBatch:
    return tokens(prefixes(history_batch(histories, 50), 50))


def test_two_items_as_worked_out_by_hand(tokenizer: Any) -> None:
    """Check T5: A is the older item, B the newer one; one token of a name, two of a value."""
    table = tokenize_items({"title": ["red shoe", "blue hat"]}, tokenizer)
    batch = assemble(ItemTokens(table, CLS, PAD, 64, 50), [[1, 2]])
    assert words(tokenizer, batch.ids[0]) == ["[CLS]", "title", "blue", "hat", "title", "red", "shoe"]
    assert batch.items[0].tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert batch.types[0].tolist() == [0, 1, 2, 2, 1, 2, 2]
    assert batch.is_global[0].int().tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_padding_has_its_own_type_and_the_last_item_position(tokenizer: Any) -> None:
    table = tokenize_items({"title": ["red shoe", "blue"]}, tokenizer)
    batch = assemble(ItemTokens(table, CLS, PAD, 64, 50), [[1], [2]])
    assert batch.ids[1].tolist()[3:] == [PAD]
    assert batch.types[1].tolist() == [0, 1, 2, 3]
    assert batch.items[1].tolist() == [0, 1, 1, 50]
    assert batch.mask.int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_attributes_keep_their_order_and_missing_ones_make_room(tokenizer: Any) -> None:
    attributes = {
        "title": ["red", "", "blue"],
        "brand": ["old", "new", ""],
        "old": ["hat", "hat", "hat"],
        "new": ["coat", "coat", "coat"],
    }
    table = tokenize_items(attributes, tokenizer, num_attributes=3)
    tokens = ItemTokens(table, CLS, PAD, 64, 50)
    shown = [" ".join(words(tokenizer, assemble(tokens, [[item]]).ids[0, 1:])) for item in (1, 2, 3)]
    assert shown == ["title red brand old old hat", "brand new old hat new coat", "title blue old hat new coat"]


def test_name_and_value_are_cut_together(tokenizer: Any) -> None:
    table = tokenize_items({"title": ["red " * 40], "brand": ["old"]}, tokenizer, attribute_tokens=32)
    assert table.types.tolist() == [1] + [2] * 31 + [1, 2]
    assert table.offsets.tolist() == [0, 0, 34]


def test_a_history_is_cut_at_the_oldest_end(tokenizer: Any) -> None:
    table = tokenize_items({"title": ["red shoe", "blue hat"]}, tokenizer)
    batch = assemble(ItemTokens(table, CLS, PAD, 6, 50), [[1, 2, 1]])
    assert words(tokenizer, batch.ids[0]) == ["[CLS]", "title", "red", "shoe", "title", "blue"]
    lengths = ItemTokens(table, CLS, PAD, 6, 50).lengths(torch.tensor([[1, 2, 1], [2, 0, 0], [0, 0, 0]]))
    assert lengths.tolist() == [6, 4, 1]


def test_pieces_of_a_word_share_its_number(tokenizer: Any) -> None:
    table = tokenize_items({"title": ["redshoe hat", "hat"], "brand": ["old", "old"]}, tokenizer)
    batch = assemble(ItemTokens(table, CLS, PAD, 64, 50), [[2, 1]])
    pieces = words(tokenizer, batch.ids[0])
    assert pieces[:3] == ["[CLS]", "title", "red"]
    inside = [place for place, piece in enumerate(pieces) if piece.startswith("##")]
    assert len(inside) == 4  # s h o e
    numbers = batch.words[0].tolist()
    assert numbers[0] == -1
    assert all(numbers[place] == numbers[place - 1] for place in inside)
    rest = [numbers[place] for place in range(len(pieces)) if place not in inside]
    assert len(set(rest)) == len(rest)
    assert rest == sorted(rest)


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "red " * 30_000, "\U0001f600\x00\x07\x1b hat", "[PAD] [CLS] [MASK]", "\u200b"]
)
def test_no_text_breaks_it_and_none_makes_special_tokens(text: str, tokenizer: Any) -> None:
    table = tokenize_items({"title": [text, "red"]}, tokenizer)
    assert table.offsets[2] <= 32
    assert not set(table.ids.tolist()) & {PAD, CLS, tokenizer.mask_token_id, tokenizer.sep_token_id}


def test_an_item_without_text_keeps_its_place_in_the_history(tokenizer: Any) -> None:
    table = tokenize_items({"title": ["red", " ", "hat"]}, tokenizer)
    batch = assemble(ItemTokens(table, CLS, PAD, 64, 50), [[1, 2, 3], [2]])
    assert batch.items[0].tolist() == [0, 1, 1, 3, 3]
    assert batch.mask[1].tolist() == [True] + [False] * 4


@pytest.mark.parametrize("attributes", [{}, {"title": ["", "\x00"]}, {"title": []}])
def test_a_catalog_without_any_text_is_refused(attributes: dict[str, list[str]], tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"needs item texts.*input\.text_columns"):
        tokenize_items(attributes, tokenizer)


def test_copies_of_an_item_are_found(tokenizer: Any) -> None:
    table = tokenize_items({"title": ["red", "hat", "red", "", ""], "brand": ["old", "old", "old", "", ""]}, tokenizer)
    items, rows = ItemTokens(table, CLS, PAD, 64, 50).distinct()
    assert items.tolist() == [1, 2, 4]
    assert rows.tolist() == [0, 1, 0, 2, 2]

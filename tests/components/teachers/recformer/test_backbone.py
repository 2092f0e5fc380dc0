from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.errors import ConfigError
from components.teachers.recformer.backbone import Architecture, AttentionKind, Backbone, add_lora, window_mask
from components.teachers.recformer.language_models import LanguageModel, load_language_model
from components.teachers.recformer.tokens import TokenBatch
from tests.components.teachers.recformer.language_models import tiny_bert


def architecture(model: LanguageModel, attention: AttentionKind = "dense", **changes: Any) -> Architecture:
    settings: dict[str, Any] = {"num_layers": None, "max_tokens": 256, "max_items": 50, "window": 64, **changes}
    return model.architecture(attention=attention, **settings)


def initialized(model: LanguageModel, attention: AttentionKind = "dense", **changes: Any) -> Backbone:
    backbone = Backbone(architecture(model, attention, **changes))
    torch.manual_seed(3)  # of the new tables
    model.initialize(backbone)
    return backbone.eval()


def token_batch(lengths: list[int], vocabulary: int, seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, vocabulary, mask.shape, generator=generator).masked_fill(~mask, 0)
    types = torch.randint(1, 3, mask.shape, generator=generator).masked_fill(~mask, 3)
    items = (torch.arange(max(lengths)) // 8 + 1).expand(mask.shape).masked_fill(~mask, 50).clamp_max(50)
    ids[:, 0], types[:, 0] = 2, 0
    items = torch.where(torch.arange(max(lengths)) == 0, 0, items)
    return TokenBatch(ids, types, items, torch.zeros_like(ids), mask)


def test_a_token_sees_its_window_and_cls_and_cls_sees_all() -> None:
    """Check T6."""
    mask = window_mask(200, 64)
    assert mask[100].nonzero().flatten().tolist() == [0, *range(68, 133)]
    assert int(mask[100].sum()) == 66
    assert int(mask[0].sum()) == 200
    assert bool(mask[:, 0].all())


@pytest.mark.parametrize("lengths", [[192], [128, 70, 1], [65, 64], [40, 3]])
def test_sliding_chunks_and_the_dense_mask_agree(lengths: list[int], bert: str) -> None:
    model = load_language_model(bert)
    tokens = token_batch(lengths, 60)
    dense, sliding = (initialized(model, attention)(tokens)[tokens.mask] for attention in ("dense", "longformer"))
    torch.testing.assert_close(sliding, dense, rtol=1e-4, atol=1e-4)


def test_the_window_matters(bert: str) -> None:
    model = load_language_model(bert)
    tokens = token_batch([128], 60)
    wide = initialized(model, window=256)(tokens)
    assert (initialized(model)(tokens) - wide).abs().max() > 1e-3


def test_the_sliding_variant_is_longformer_of_hugging_face(bert: str) -> None:
    """The whole model of Hugging Face with our weights gives our states; it knows no item positions, so ours are 0."""
    from transformers import LongformerConfig, LongformerModel

    ours = initialized(load_language_model(bert), "longformer")
    torch.nn.init.zeros_(ours.embeddings.items.weight)
    for layer in ours.layers:
        torch.nn.init.normal_(layer.attention.value_global.weight)  # type: ignore[union-attr,operator]
    shape = ours.shape
    theirs: Any = LongformerModel(
        LongformerConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            intermediate_size=shape.inner,
            max_position_embeddings=shape.num_positions,
            type_vocab_size=4,
            layer_norm_eps=shape.epsilon,
            pad_token_id=shape.pad_id,
            attention_window=[64] * shape.num_layers,
        ),
        add_pooling_layer=False,
    ).eval()
    theirs.load_state_dict(
        {their_name(name): value for name, value in ours.state_dict().items() if "items" not in name}
    )
    tokens = token_batch([128, 90], 60)
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens.ids,
            attention_mask=tokens.mask.long(),
            global_attention_mask=tokens.is_global.long(),
            token_type_ids=tokens.types,
        ).last_hidden_state
        torch.testing.assert_close(ours(tokens)[tokens.mask], expected[tokens.mask], rtol=1e-4, atol=1e-4)


def their_name(name: str) -> str:
    name = re.sub(r"^layers\.(\d+)\.", r"encoder.layer.\1.", name)
    for ours, theirs in {
        ".attention.": ".attention.self.",
        ".projection.": ".attention.output.dense.",
        ".attention_norm.": ".attention.output.LayerNorm.",
        ".inner.": ".intermediate.dense.",
        ".outer.": ".output.dense.",
        "embeddings.norm.": "embeddings.LayerNorm.",
        "embeddings.words.": "embeddings.word_embeddings.",
        "embeddings.positions.": "embeddings.position_embeddings.",
        "embeddings.types.": "embeddings.token_type_embeddings.",
    }.items():
        name = name.replace(ours, theirs)
    return re.sub(r"(encoder\.layer\.\d+)\.norm\.", r"\1.output.LayerNorm.", name)


def test_it_is_the_bert_that_it_came_from(bert: str) -> None:
    """With a window over all, type 0 everywhere and no item positions."""
    from transformers import AutoModel

    ours = initialized(load_language_model(bert), window=512)
    torch.nn.init.zeros_(ours.embeddings.items.weight)
    tokens = replace(token_batch([100, 30], 60), types=torch.zeros(2, 100, dtype=torch.int64))
    with torch.no_grad():
        expected = AutoModel.from_pretrained(bert).eval()(input_ids=tokens.ids, attention_mask=tokens.mask)
        found = ours(tokens)
    torch.testing.assert_close(found[tokens.mask], expected.last_hidden_state[tokens.mask], rtol=1e-4, atol=1e-4)


def test_position_rows_repeat() -> None:
    """Check T8, on the bundled model."""
    model = load_language_model("all-MiniLM-L6-v2")
    backbone = Backbone(architecture(model, num_layers=1, max_tokens=1024))
    model.initialize(backbone)
    rows, known = backbone.embeddings.positions.weight, model.tensors["embeddings.position_embeddings.weight"]
    assert len(rows) == 1025
    assert torch.equal(rows[0 + 1 + 513], known[1])
    assert torch.equal(rows[1:513], known)
    assert backbone.shape.hidden == 384
    assert (backbone.shape.pad_id, backbone.shape.cls_id, backbone.shape.mask_id) == (0, 101, 103)


def test_new_token_types_begin_close_to_the_known_one(bert: str) -> None:
    model = load_language_model(bert)
    types = initialized(model).embeddings.types.weight
    known = model.tensors["embeddings.token_type_embeddings.weight"][0]
    assert torch.equal(types[0], known)
    noise = types[1:] - known
    assert 0.01 < noise.std() < 0.03


def test_long_sequences_get_sliding_chunks_unless_asked(bert: str) -> None:
    model = load_language_model(bert)
    keys: dict[str, Any] = {"num_layers": 1, "max_items": 5, "window": 64}
    assert model.architecture(max_tokens=512, attention=None, **keys).attention == "dense"
    assert model.architecture(max_tokens=513, attention=None, **keys).attention == "longformer"
    assert model.architecture(max_tokens=513, attention="dense", **keys).attention == "dense"


def gradients(backbone: Backbone, tokens: TokenBatch) -> tuple[list[Tensor], int]:
    """Gradients, and the number of tensors kept for the backward pass."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 1
        return tensor

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = backbone.train()(tokens)[:, 0].square().sum()
    loss.backward()
    return [parameter.grad for parameter in backbone.parameters() if parameter.grad is not None], kept


@pytest.mark.parametrize("attention", ["dense", "longformer"])
def test_checkpointing_keeps_less_and_changes_no_gradient(attention: AttentionKind, bert: str) -> None:
    model, tokens = load_language_model(bert), token_batch([60, 20], 60)
    plain = initialized(model, attention)
    thrifty = initialized(model, attention)
    thrifty.gradient_checkpointing = True
    (expected, many), (found, few) = gradients(plain, tokens), gradients(thrifty, tokens)
    assert few < many / 2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("attention", ["dense", "longformer"])
def test_lora_begins_without_effect_and_trains_little(attention: AttentionKind, bert: str) -> None:
    model, tokens = load_language_model(bert), token_batch([60, 20], 60)
    backbone = initialized(model, attention)
    before = backbone(tokens).detach()
    all_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    add_lora(backbone, rank=2, alpha=16.0)
    torch.testing.assert_close(backbone(tokens), before)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name or name in ("embeddings.types.weight", "embeddings.items.weight") for name in trained)
    lora = sum(parameter.numel() for name, parameter in backbone.named_parameters() if "lora_" in name)
    assert 0 < lora < all_parameters / 10
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert (backbone(tokens) - before).abs().max() > 1e-3


def test_the_architecture_survives_as_a_tensor(bert: str) -> None:
    shape = architecture(load_language_model(bert), "longformer", max_tokens=700)
    assert Architecture.from_tensor(shape.to_tensor()) == shape


def test_a_model_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backbone: cannot load 'no/such-model'.*config\.json, tokenizer"):
        load_language_model("no/such-model")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="backbone: cannot load"):
        load_language_model(str(tmp_path))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="backbone: cannot load"):
        load_language_model(str(folder))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config

    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="architecture 'gpt2'; Recformer can start from: bert, roberta, longformer"):
        load_language_model(str(tmp_path))


@pytest.mark.parametrize(("changes", "message"), [({"num_layers": 3}, "has 2 layers, got 3"), ({"window": 7}, "even")])
def test_impossible_shapes_are_refused(changes: dict[str, Any], message: str, bert: str) -> None:
    with pytest.raises(ConfigError, match=message):
        architecture(load_language_model(bert), **changes)

"""The language model is real (it installs as a package); its vectors are compared with a plain implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from components.errors import ConfigError
from components.features.image import ImageConfig
from components.features.text import (
    TextConfig,
    TextEncoder,
    drop_words,
    pool,
    resolve_model,
    resolve_precision,
    settings_key,
    token_batches,
)
from components.teachers.recformer.model import RecformerConfig

TEXTS = [
    "A cordless drill with two batteries",
    "Drill",
    "Wooden toy train for children, " * 20,
    "",
    "Holzeisenbahn für Kinder 木製の汽車",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(TextConfig(precision="fp32", max_tokens=64))


def test_vectors_equal_sentence_transformers(encoder: TextEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(resolve_model("all-MiniLM-L6-v2"), device="cpu")
    reference.max_seq_length = 64
    np.testing.assert_allclose(encoder.encode(TEXTS), reference.encode(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_padding_and_order_do_not_change_a_vector(encoder: TextEncoder) -> None:
    together = encoder.encode(TEXTS)
    backwards = encoder.encode(TEXTS[::-1])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, backwards, atol=1e-5)


def test_similar_texts_are_near(encoder: TextEncoder) -> None:
    drill, short, train = encoder.encode(TEXTS)[:3]
    assert drill @ short > drill @ train + 0.2


def test_the_same_list_gives_the_same_bytes(encoder: TextEncoder) -> None:
    assert encoder.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_bf16_is_close_to_fp32(encoder: TextEncoder) -> None:
    low = TextEncoder(TextConfig(precision="bf16", max_tokens=64)).encode(TEXTS)
    assert low.dtype == np.float32
    cosines = (low * encoder.encode(TEXTS)).sum(axis=1)
    assert cosines.min() > 0.999


def test_no_text_gives_no_row(encoder: TextEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_an_unknown_model_is_a_user_error(tmp_path: object) -> None:
    with pytest.raises(ConfigError, match=r"features\.model: cannot load .*nowhere.*all-MiniLM-L6-v2"):
        TextEncoder(TextConfig(model=f"{tmp_path}/nowhere"))


def test_no_text_breaks_it(encoder: TextEncoder) -> None:
    texts = [
        "x" * 100_000,
        "red " * 25_000,
        "\U0001f600\U0001f9e6 hat",
        "a\x00\x07\x1b[31mb",
        "\u200b",
        "",
        " ",
        "[PAD] [CLS]",
    ]
    vectors = encoder.encode([*texts, "a hat"])
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(vectors[-1], encoder.encode(["a hat"])[0], atol=1e-5)  # company does not matter


def test_config_refuses_unknown_keys_and_impossible_rates() -> None:
    with pytest.raises(ValidationError, match="max_token\n"):
        TextConfig.model_validate({"max_token": 3})
    with pytest.raises(ValidationError, match="word_drop"):
        TextConfig(word_drop=1.0)


def test_mean_pooling_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [99.0, 99.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "mean", normalize=False).tolist() == [[2.0, 2.0]]
    assert pool(hidden, mask, "cls", normalize=False).tolist() == [[1.0, 0.0]]
    assert pool(hidden, mask, "mean", normalize=True)[0].norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize("budget", [1, 7, 64, 10_000])
def test_token_batches_cover_every_text_once_within_the_budget(budget: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 60, size=200)
    batches = list(token_batches(lengths, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    for batch in batches:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= budget
    assert (np.diff(lengths[np.concatenate(batches)]) >= 0).all()


def test_dropped_words_keep_their_order_and_repeat() -> None:
    text = " ".join(f"word{i}" for i in range(400))
    short = drop_words(text, 0.25)
    assert short == drop_words(text, 0.25)
    words = short.split()
    assert words == [word for word in text.split() if word in set(words)]
    assert 260 <= len(words) <= 340  # 300 expected, five standard deviations are 43


def test_dropping_never_empties_a_text() -> None:
    assert all(len(drop_words(f"only {i}", 0.99).split()) >= 1 for i in range(200))


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert resolve_precision(TextConfig()) == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert resolve_precision(TextConfig()) == "bf16"
    assert resolve_precision(TextConfig(precision="fp32")) == "fp32"


def test_the_settings_key_holds_what_changes_vectors_and_nothing_else() -> None:
    base = settings_key(TextConfig(precision="fp32"))
    same = [TextConfig(precision="fp32", batch_tokens=64), TextConfig(precision="fp32", word_drop=0.2)]
    other = [
        TextConfig(precision="bf16"),
        TextConfig(precision="fp32", max_tokens=64),
        TextConfig(precision="fp32", pooling="cls"),
        TextConfig(precision="fp32", normalize=False),
        TextConfig(precision="fp32", model="bert-base-uncased"),
    ]
    assert {settings_key(config) for config in same} == {base}
    assert len({base, *(settings_key(config) for config in other)}) == 6


def test_a_local_folder_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster have another current folder than the driver that read the configuration."""
    (tmp_path / "own-model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert TextConfig(model="own-model").model == str(tmp_path / "own-model")
    assert ImageConfig(encoder="own-model").encoder == str(tmp_path / "own-model")
    assert RecformerConfig(backbone="own-model").backbone == str(tmp_path / "own-model")
    assert TextConfig(model="some/model").model == "some/model"

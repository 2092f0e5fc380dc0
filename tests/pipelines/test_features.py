"""Stage ``features`` on Ray: what is encoded, what is taken from the cache, and what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.errors import ConfigError, DataError
from components.features.image import ImageConfig
from components.features.text import TextConfig, TextEncoder, drop_words
from components.schema import COUNT, ITEM, ITEM_ID, ITEMS_FILE, MANIFEST_FILE, TEXT
from pipelines import features
from pipelines.config import ClusterConfig
from pipelines.features import encode_texts
from tests.pipelines.recorder import Recorder

FAST = TextConfig(max_tokens=16, precision="fp32")


def prepared(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(json.dumps({"schema_version": 1}))
    numbers = list(range(1, len(texts) + 1))
    items = {ITEM: numbers, ITEM_ID: [f"i{n}" for n in numbers], COUNT: numbers, TEXT: texts}
    pl.DataFrame(items).write_parquet(folder / ITEMS_FILE)
    return folder


def context(folder: Path, config: TextConfig | None, name: str, source: Path, images: ImageConfig | None = None) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    cluster = ClusterConfig(use_gpu=False)
    node = f"prepare/{name}" if name else "prepare"
    return SimpleNamespace(
        config=SimpleNamespace(features=config, images=images, output=str(folder / "runs"), cluster=cluster),
        name=name,
        folder=folder,
        input={node: source}.__getitem__,
        progress=Recorder(),
        timing={},
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 16 texts, encoded in this process."""
    encoder = TextEncoder(FAST)

    def encode(
        blocks: list[list[str]], config: TextConfig, device: str, custom: object = None
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        return ((block, encoder.encode(block)) for block in blocks)

    monkeypatch.setattr(features, "BLOCK_ITEMS", 16)
    monkeypatch.setattr(features, "_encode_blocks", encode)


@pytest.mark.ray
def test_actors_encode_each_text_once_in_the_order_of_the_items(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK_ITEMS", 16)
    monkeypatch.setattr(features, "BLOCKS_PER_ACTOR", 3)
    texts = [f"item {i} " + "word " * (i % 7) for i in range(5 * 16 + 3)] + ["item 0 ", "a new one"]
    log, timing = Recorder(), dict[str, float]()
    vectors = encode_texts(texts, FAST, tmp_path, log, timing=timing)
    assert vectors.shape == (len(texts), 384)
    assert (vectors[0] == vectors[-2]).all()
    np.testing.assert_allclose(vectors, TextEncoder(FAST).encode(texts), atol=1e-5)
    assert log.total == sum(log.done) == len(texts) - 1
    assert log.shown["items_per_second"] > 0
    assert timing["encoded"] == len(texts) - 1
    assert timing["items_per_second"] > 0


def test_an_unchanged_item_is_not_encoded_again(here: None, tmp_path: Path) -> None:
    texts = [f"item {i}" for i in range(40)]
    vectors = encode_texts(texts, FAST, tmp_path, Recorder())
    again, timing = Recorder(), dict[str, float]()
    longer = encode_texts(["one more", *texts], FAST, tmp_path, again, timing=timing)
    assert again.done == [40, 1]
    assert timing["encoded"] == 1
    assert longer[1:].tobytes() == vectors.tobytes()


def test_a_killed_run_goes_on_with_the_same_bytes(here: None, tmp_path: Path) -> None:
    texts = [f"{'word ' * (i % 9)}number {i}" for i in range(2 * 16 + 5)]
    whole = encode_texts(texts, FAST, tmp_path, Recorder())
    (settings,) = tmp_path.iterdir()
    stored = sorted(settings.iterdir())
    assert len(stored) == 3
    for lost in stored:  # as if the kill came before this block was stored
        content = lost.read_bytes()
        lost.unlink()
        timing: dict[str, float] = {}
        assert encode_texts(texts, FAST, tmp_path, Recorder(), timing=timing).tobytes() == whole.tobytes()
        assert timing["encoded"] in (16, 5)
        assert lost.read_bytes() == content


@pytest.mark.ray
def test_the_stage_writes_a_zero_row_for_padding(ray_session: None, here: None, tmp_path: Path) -> None:
    source = prepared(tmp_path / "prepared", ["a drill", "", "a toy"])
    stage = context(tmp_path / "out", FAST.model_copy(update={"word_drop": 0.5}), "", source)
    features.run(stage)
    table = np.load(tmp_path / "out" / "text.npy", allow_pickle=False)
    assert table.shape == (4, 384)
    assert table.dtype == np.float32
    assert not table[0].any()
    np.testing.assert_allclose(np.linalg.norm(table[1:], axis=1), 1.0, atol=1e-5)
    assert stage.timing["encoded"] == 3
    assert not (tmp_path / "out" / "text_words.npy").exists()  # only pre-training reads it


@pytest.mark.ray
def test_a_domain_also_gets_the_word_dropped_copy(ray_session: None, tmp_path: Path) -> None:
    texts = ["one two three four five six seven eight", "nine ten eleven twelve thirteen"]
    config = FAST.model_copy(update={"word_drop": 0.5})
    stage = context(tmp_path / "out", config, "food", prepared(tmp_path / "prepared", texts))
    features.run(stage)
    dropped = np.load(tmp_path / "out" / "text_words.npy", allow_pickle=False)
    expected = TextEncoder(config).encode([drop_words(text, 0.5) for text in texts])
    np.testing.assert_allclose(dropped[1:], expected, atol=1e-5)
    assert not np.allclose(dropped[1:], np.load(tmp_path / "out" / "text.npy")[1:], atol=1e-2)


@pytest.mark.parametrize("name", ["", "food"])
def test_items_without_any_text_are_refused_before_a_model_is_loaded(tmp_path: Path, name: str) -> None:
    source = prepared(tmp_path / "prepare", ["", ""])
    (tmp_path / "out").mkdir()
    message = f"none of the 2 items of {name or 'the log'} has a text; check input.items and input.text_columns"
    with pytest.raises(DataError, match=message):
        features.run(context(tmp_path / "out", FAST, name, source))
    assert not list((tmp_path / "out").iterdir())


def test_a_run_without_features_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="features: not configured"):
        features.run(context(tmp_path, None, "", tmp_path))

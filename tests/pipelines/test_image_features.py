"""The pictures' part of stage ``features``."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from components.data.cleaning import PrepareConfig
from components.data.readers import InputConfig
from components.errors import ConfigError, DataError
from components.features.image import DESCRIPTOR_DIM, ImageConfig, make_encoder
from components.schema import IMAGE, ITEMS_FILE
from pipelines import features, image_features
from pipelines.fingerprint import data_fingerprint
from pipelines.image_features import Encoded, GroupEncoder, image_table
from pipelines.prepare import prepare
from tests.pipelines.recorder import Recorder
from tests.pipelines.test_features import FAST, context, prepared

COLORS = ("red", "green", "blue", "yellow", "black", "white")


def png(color: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 30), color).save(stream, format="PNG")
    return stream.getvalue()


def with_images(folder: Path, images: list[Any], group: int = 2, texts: list[str] | None = None) -> Path:
    """A prepared set whose items have these pictures."""
    prepared(folder, texts or [f"item {n}" for n in range(len(images))])
    items = pl.read_parquet(folder / ITEMS_FILE)
    items.with_columns(pl.Series(IMAGE, images)).write_parquet(folder / ITEMS_FILE, row_group_size=group)
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Row groups are encoded in this process; returns the list of those that were."""
    seen: list[int] = []

    def encode(
        file: Path, groups: dict[int, list[int]], config: ImageConfig, device: str, custom: object = None
    ) -> Iterator[Encoded]:
        if groups:
            actor = GroupEncoder(file, config.model_dump(), device)
        for group, places in groups.items():
            seen.append(group)
            yield image_features._unpack(actor(pa.table({"group": [group], "places": [places]})))

    monkeypatch.setattr(image_features, "_encode_groups", encode)
    return seen


def test_absent_and_broken_pictures_are_zero_rows_and_counted(here: list[int], tmp_path: Path) -> None:
    images = [png("red"), None, b"<html>", png("blue"), png("red"), png("green")[:50], b""]
    log = Recorder()
    table = image_table(with_images(tmp_path / "p", images), ImageConfig(), tmp_path / "cache", log)
    assert table is not None
    assert table.vectors.shape == (8, DESCRIPTOR_DIM)
    assert table.vectors.dtype == np.float32
    assert np.flatnonzero(table.vectors.any(axis=1)).tolist() == [1, 4, 5]
    assert (table.vectors[1] == table.vectors[5]).all()
    expected = make_encoder(ImageConfig()).encode([Image.new("RGB", (20, 30), "blue")])
    np.testing.assert_allclose(table.vectors[4], expected[0], atol=1e-6)
    absent = {"damaged": 1, "missing": 2, "not a picture": 1}
    assert table.counts == {"items": 7, "with_image": 3, "absent": absent}
    assert log.total == sum(log.done) == 4  # the same picture counts once
    assert log.shown["images_per_second"] > 0
    assert table.timing["images_encoded"] == 4


def test_an_unchanged_picture_is_not_encoded_again(here: list[int], tmp_path: Path) -> None:
    images = [png(color) for color in COLORS]
    first = image_table(with_images(tmp_path / "a", images), ImageConfig(), tmp_path / "cache", Recorder())
    assert here == [0, 1, 2]
    here.clear()
    again = image_table(with_images(tmp_path / "b", images[::-1]), ImageConfig(), tmp_path / "cache", Recorder())
    assert here == []
    assert first is not None
    assert again is not None
    assert again.vectors[1:].tobytes() == first.vectors[:0:-1].tobytes()
    more = with_images(tmp_path / "c", [*images, png("pink")])
    image_table(more, ImageConfig(), tmp_path / "cache", Recorder())
    assert here == [3]
    image_table(more, ImageConfig(normalize=False), tmp_path / "cache", Recorder())
    assert here == [3, 0, 1, 2, 3]  # other settings, other vectors


def test_what_was_encoded_before_a_kill_is_kept(here: list[int], tmp_path: Path, monkeypatch: Any) -> None:
    source = with_images(tmp_path / "p", [png(color) for color in COLORS])
    encode = image_features._encode_groups

    def killed(*arguments: Any, **more: Any) -> Iterator[Encoded]:
        yield next(encode(*arguments, **more))
        raise KeyboardInterrupt

    monkeypatch.setattr(image_features, "_encode_groups", killed)
    with pytest.raises(KeyboardInterrupt):
        image_table(source, ImageConfig(), tmp_path / "cache", Recorder())
    monkeypatch.setattr(image_features, "_encode_groups", encode)
    here.clear()
    image_table(source, ImageConfig(), tmp_path / "cache", Recorder())
    assert here == [1, 2]


def test_ready_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    images = pl.Series([[1.0, 2.0], None, [0.0, 0.0]], dtype=pl.List(pl.Float32))
    source = with_images(tmp_path / "p", images)  # type: ignore[arg-type]
    table = image_table(source, ImageConfig(encoder="ready"), tmp_path, Recorder())
    assert table is not None
    assert table.vectors.tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]
    assert table.counts["absent"] == {"missing": 1, "zero vector": 1}


@pytest.mark.parametrize(
    ("images", "encoder", "error", "message"),
    [
        ([[1.0, 2.0]], "descriptors", ConfigError, "the input holds vectors; set images.encoder: ready"),
        ([b"x"], "ready", ConfigError, "'ready' needs vectors in input.images, which holds pictures"),
        (["a.jpg"], "descriptors", ConfigError, r"items\.parquet: column 'image' holds text; set input\.item_columns"),
        ([7], "descriptors", DataError, r"items\.parquet: column 'image' is of type int64; expected bytes or lists"),
        ([[7]], "ready", DataError, r"items\.parquet: column 'image' is of type .*list<.*int64"),
        ([b"x"], "descriptors", DataError, r"none of the 1 items has a usable picture \(1 not a picture\)"),
    ],
)
def test_what_cannot_be_used_is_named(
    here: list[int], tmp_path: Path, images: list[Any], encoder: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        image_table(with_images(tmp_path / "p", images), ImageConfig(encoder=encoder), tmp_path, Recorder())


def local_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(texts: list[str], *_: Any, **__: Any) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    monkeypatch.setattr(features, "encode_texts", encode)
    monkeypatch.setattr(features, "available", lambda kind: 0.0)


def test_the_stage_writes_pictures_beside_texts(
    here: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_text(monkeypatch)
    source = with_images(tmp_path / "p", [png("red"), None, png("blue")], texts=["a", "", "b"])
    stage = context(tmp_path / "out", FAST, "", source, ImageConfig())
    features.run(stage)
    image, text = (np.load(tmp_path / "out" / name, allow_pickle=False) for name in ("image.npy", "text.npy"))
    assert image.any(axis=1).tolist() == [False, True, False, True]
    assert text.any(axis=1).tolist() == [False, True, False, True]  # beside pictures, no text is zero
    manifest = json.loads((tmp_path / "out" / "manifest_extra.json").read_text())
    assert manifest["images"] == {"items": 3, "with_image": 2, "absent": {"missing": 1}}
    assert stage.timing["images_encoded"] == 2


def test_only_domains_may_be_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_text(monkeypatch)
    source = prepared(tmp_path / "p", ["a", "b"])
    features.run(context(tmp_path / "food", FAST, "food", source, ImageConfig()))
    assert not (tmp_path / "food" / "image.npy").exists()
    assert "none" in (tmp_path / "food" / "manifest_extra.json").read_text()
    with pytest.raises(ConfigError, match=r"images: the input has no pictures; set input\.images"):
        features.run(context(tmp_path / "out", FAST, "", source, ImageConfig()))


def test_pictures_of_a_folder_reach_the_prepared_set_in_small_groups(here: list[int], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    names = [f"i{n}" for n in range(300)]
    for number, name in enumerate(names[:40]):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(png(COLORS[number % 6]))
    rows = [(f"u{user}", name, step) for user in range(2) for step, name in enumerate(names)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "log.csv")
    config = InputConfig(interactions="log.csv", images="pictures")
    (tmp_path / "out").mkdir()
    plain = PrepareConfig(min_interactions_per_user=1, min_interactions_per_item=1)
    counts = prepare(str(tmp_path), config, plain, tmp_path / "out", Recorder())
    assert counts["items"]["items_without_image"] == 260
    table = image_table(tmp_path / "out", ImageConfig(), tmp_path / "cache", Recorder())
    assert table is not None
    assert table.counts["with_image"] == 40
    before = data_fingerprint(str(tmp_path), ["log.csv"], "pictures")
    assert before == data_fingerprint(str(tmp_path), ["log.csv"], "pictures")
    (tmp_path / "pictures" / "i0.png").write_bytes(png("pink"))
    assert before != data_fingerprint(str(tmp_path), ["log.csv"], "pictures")


def test_few_pictures_are_described_without_actors(tmp_path: Path) -> None:
    source = with_images(tmp_path / "p", [png("red"), png("green")])
    table = image_table(source, ImageConfig(), tmp_path / "cache", Recorder())
    assert table is not None
    assert table.counts["with_image"] == 2


@pytest.mark.ray
def test_actors_encode_what_this_process_would(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_features, "LOCAL_PICTURES", 0)
    source = with_images(tmp_path / "p", [png("red"), b"broken", png("blue"), png("green"), None])
    table = image_table(source, ImageConfig(), tmp_path / "cache", Recorder())
    assert table is not None
    assert table.counts["absent"] == {"missing": 1, "not a picture": 1}
    expected = make_encoder(ImageConfig()).encode([Image.new("RGB", (20, 30), "green")])
    np.testing.assert_allclose(table.vectors[4], expected[0], atol=1e-6)

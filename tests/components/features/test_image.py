from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.data.synthetic_pictures import draw
from components.errors import ConfigError
from components.features.image import (
    DESCRIPTOR_DIM,
    DescriptorEncoder,
    ImageConfig,
    VisionEncoder,
    encode_contents,
    image_settings_key,
    make_encoder,
)


def picture(color: str = "red", size: tuple[int, int] = (50, 70)) -> Image.Image:
    return Image.new("RGB", size, color)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def write_vit(folder: Path, *, processor: bool = True) -> Path:
    """A tiny vision transformer with random weights."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ViTModel(ViTConfig(**shape, image_size=32, patch_size=8)).save_pretrained(folder)
    if processor:
        write_processor(folder, "ViTImageProcessor")
    return folder


def write_processor(folder: Path, kind: str) -> None:
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    settings = {"image_processor_type": kind, "size": {"height": 32, "width": 32}, "do_center_crop": False, **mean}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vit(tmp_path_factory.mktemp("vit"))


def test_descriptors_tell_colors_and_patterns_apart() -> None:
    generator = np.random.default_rng(0)
    kinds = [(theme, style) for theme in (0, 4) for style in (0, 1, 3)]
    images = [Image.fromarray(draw(*kind[:1], 8, kind[1], generator)) for kind in kinds for _ in range(6)]
    vectors = DescriptorEncoder().encode(images)
    assert vectors.shape == (36, DESCRIPTOR_DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    kind = np.arange(36) // 6
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)
    assert (kind[cosines.argmax(1)] == kind).mean() > 0.9


@pytest.mark.parametrize("color", ["black", "white", "gray", "red"])
def test_a_picture_without_contrast_is_not_absent(color: str) -> None:
    (vector,) = DescriptorEncoder().encode([picture(color)])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (2000, 2)])
def test_pictures_of_any_shape(size: tuple[int, int]) -> None:
    assert np.isfinite(DescriptorEncoder(normalize=False).encode([picture(size=size)])).all()


def test_broken_pictures_leave_the_others_alone() -> None:
    contents = [png(picture("red")), None, b"no picture", png(picture("blue")), png(picture("red"))[:60]]
    config = ImageConfig(batch_size=2)
    encoder = make_encoder(config)
    vectors, reasons = encode_contents(contents, encoder, config)
    assert reasons == {1: "missing", 2: "not a picture", 4: "damaged"}
    assert vectors.keys() == {0, 3}
    alone, _ = encode_contents([contents[3]], encoder, config)
    assert (alone[0] == vectors[3]).all()


def test_settings_that_change_vectors_change_the_key(vit: Path) -> None:
    base = ImageConfig()
    assert image_settings_key(base) == image_settings_key(ImageConfig(batch_size=7, max_pixels=10))
    others = [ImageConfig(normalize=False), ImageConfig(encoder=str(vit)), ImageConfig(encoder=str(vit.parent))]
    assert len({image_settings_key(config) for config in [base, *others]}) == 4


def test_a_vision_transformer_gives_its_first_token(vit: Path) -> None:
    from transformers import ViTModel

    encoder = VisionEncoder(ImageConfig(encoder=str(vit), normalize=False, precision="fp32"))
    found = encoder.encode([picture("red"), picture("blue", (9, 9))])
    assert found.shape == (2, 16)
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, 0], pixels[:, 1:] = 1.0, -1.0  # red, scaled to -1 .. 1
    with torch.no_grad():
        expected = ViTModel.from_pretrained(vit).eval()(pixel_values=pixels).last_hidden_state[0, 0]
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5)
    normalized = VisionEncoder(ImageConfig(encoder=str(vit), precision="fp32")).encode([picture("red")])
    np.testing.assert_allclose(normalized[0], found[0] / np.linalg.norm(found[0]), atol=1e-5)


def test_clip_gives_its_image_features(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision, text = {**shape, "image_size": 32, "patch_size": 8}, {**shape, "vocab_size": 50}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=12)).save_pretrained(tmp_path)
    write_processor(tmp_path, "ViTImageProcessor")
    encoder = VisionEncoder(ImageConfig(encoder=str(tmp_path), precision="fp32"))
    found = encoder.encode([picture("red"), picture("blue")])
    assert found.shape == (2, 12)  # the projection, not the hidden width
    assert encoder.side == 32


def test_a_name_that_cannot_be_reached_says_how_to_give_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"images\.encoder: cannot load 'no-one/no-model'.*the path of a folder"):
        make_encoder(ImageConfig(encoder="no-one/no-model"))


def test_a_folder_without_its_image_processor_is_named(tmp_path: Path) -> None:
    write_vit(tmp_path, processor=False)
    with pytest.raises(ConfigError, match="preprocessor_config"):
        make_encoder(ImageConfig(encoder=str(tmp_path)))


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**shape, vocab_size=50)).save_pretrained(tmp_path)
    write_processor(tmp_path, "ViTImageProcessor")
    with pytest.raises(ConfigError, match="does not read pictures"):
        make_encoder(ImageConfig(encoder=str(tmp_path)))

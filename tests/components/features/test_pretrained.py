"""Models that cannot be loaded whole are refused by everyone who loads one, with what was tried and what to give."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.errors import ConfigError
from components.features.image import ImageConfig, VisionEncoder
from components.features.pretrained import load_weights, missing_folder
from components.features.text import BUNDLED, TextConfig, TextEncoder
from components.teachers.recformer.language_models import load_language_model
from tests.components.features.test_image import write_vit
from tests.components.teachers.recformer.language_models import shared_bert

WEIGHTS, PROJECTION = "model.safetensors", "attention.output.dense.weight"
LOADERS: dict[str, Callable[[str], object]] = {
    "features.model": lambda name: TextEncoder(TextConfig(model=name)),
    "backbone": load_language_model,
    "images.encoder": lambda name: VisionEncoder(ImageConfig(encoder=name)),
}


def rewrite(change: Callable[[str, Tensor], tuple[str, Tensor] | None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        pairs = (change(name, value) for name, value in load_file(folder / WEIGHTS).items())
        save_file(dict(pair for pair in pairs if pair), folder / WEIGHTS, metadata={"format": "pt"})

    return write


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another architecture": (
        rewrite(lambda name, value: (f"transformer.h.{name}", value)),
        r"its weights lack \d+ tensors of a \w+Model, such as embeddings",
    ),
    "a layer less": (
        rewrite(lambda name, value: None if "layer.0" in name else (name, value)),
        r"its weights lack 16 tensors of a \w+Model, such as \S*layers?\.0",
    ),
    "other sizes": (
        rewrite(lambda name, value: (name, value.repeat(2, 1) if name.endswith(PROJECTION) else value)),
        r"its weights have in another shape \d tensors? of a \w+Model, such as \S*(output\.dense|o_proj)\.weight",
    ),
    "truncated weights": (lambda folder: (folder / WEIGHTS).write_bytes(b"xx"), "deserializing header"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "no file named model.safetensors"),
    "broken configuration": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON|double quotes"),
    "unknown kind": (
        lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "no-such"})),
        "no-such",
    ),
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vit(tmp_path_factory.mktemp("vit"))


@pytest.mark.parametrize("key", LOADERS)
@pytest.mark.parametrize(("damage", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_loaded_whole_is_refused(
    key: str, damage: Callable[[Path], object], reason: str, vit: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(vit if key == "images.encoder" else shared_bert(), folder)
    LOADERS[key](str(folder))
    damage(folder)
    with pytest.raises(ConfigError) as error:
        LOADERS[key](str(folder))
    message = str(error.value)
    assert message.startswith(f"{key}: cannot load '{folder}' (")
    assert "model.safetensors, or a Hugging Face name that this machine can reach" in message
    assert re.search(reason, message), message


@pytest.mark.parametrize("key", LOADERS)
def test_a_name_that_cannot_be_reached_says_what_was_tried_and_how_to_give_a_folder(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=rf"{key}: cannot load 'no-one/no-model' \(.*folder with config\.json"):
        LOADERS[key]("no-one/no-model")


def test_a_checkpoint_of_another_task_may_lack_the_pooler(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(shared_bert(), folder)
    whole = load_weights(str(folder)).state_dict()
    rewrite(lambda name, value: None if name.startswith("pooler.") else (name, value))(folder)
    found = load_weights(str(folder)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.items() if not name.startswith("pooler."))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (BUNDLED, ""),
        ("openai/clip-vit-base-patch32", ""),
        ("./nowhere", "no folder './nowhere'; give one with config.json"),
        ("/nowhere", "no folder '/nowhere'"),
        ("~/nowhere", "no folder '~/nowhere'"),
        ("models/small/bert", "no folder 'models/small/bert'"),
        (str(Path(__file__)), "no folder"),
        (str(Path(__file__).parent), ""),
    ],
)
def test_names_that_can_only_be_paths(name: str, problem: str) -> None:
    assert missing_folder(name).startswith(problem)
    assert bool(missing_folder(name)) == bool(problem)

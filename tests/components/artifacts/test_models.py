from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components.artifacts.format import read_json, write_json
from components.artifacts.models import load_model, read_model_config, registry_of, save_model
from components.data.batching import Batch, history_batch
from components.errors import ArtifactError
from components.model import Catalog, ModelSpec, OutputHead, Ranker
from components.students.sasrec import SASRecConfig
from tests.tiny_artifact import ARGUMENTS, make_model, write_artifact


class TiedHead(OutputHead):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def loss(self, states: Tensor, targets: Tensor) -> Tensor:
        return states.sum()

    def scores(self, states: Tensor, candidates: Tensor) -> Tensor:
        return states @ self.weight[candidates].t()

    def block(self, states: Tensor, start: int, stop: int) -> Tensor:
        return states @ self.weight[start:stop].t()


class Tied(Ranker):
    """The same matrix is a parameter of the model and of its head; text is a buffer of the catalogue's width."""

    def __init__(self, catalog: Catalog) -> None:
        super().__init__()
        self.num_items, self.max_length = catalog.num_items, 5
        self.item_embedding = nn.Embedding(catalog.num_items + 1, 4)
        self.head = TiedHead(self.item_embedding.weight)
        self.register_buffer("text", torch.from_numpy(catalog.features["text"].copy()))
        self.register_buffer("part", self.text[:2])  # a view: overlapping memory

    def states(self, batch: Batch) -> Tensor:
        return self.item_embedding(batch.items).sum(1) + self.text.sum()


@pytest.fixture
def tied(monkeypatch: pytest.MonkeyPatch) -> tuple[Ranker, Catalog]:
    students = registry_of("student")
    monkeypatch.setitem(students, "tied", ModelSpec(SASRecConfig, lambda catalog, config: Tied(catalog)))  # type: ignore[index]
    _, catalog = make_model(9)
    features = {"text": torch.randn(10, 3).numpy()}
    catalog = Catalog(9, 5, catalog.counts, features=features)
    return Tied(catalog), catalog


def test_save_and_load_keep_every_score(tmp_path: Path) -> None:
    model, catalog = make_model()
    save_model(model, tmp_path, kind="sasrec", family="student", arguments=ARGUMENTS, catalog=catalog)
    batch = history_batch([[1, 2, 3], [4], []], model.max_length)
    loaded = load_model(tmp_path)
    assert not loaded.training
    torch.testing.assert_close(loaded.all_scores(batch), model.all_scores(batch), rtol=0, atol=0)
    assert read_model_config(tmp_path).num_items == 60


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    one, two = write_artifact(tmp_path / "one"), write_artifact(tmp_path / "two")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_tied_weights_are_stored_once_and_features_are_not_needed(tied: tuple[Ranker, Catalog], tmp_path: Path) -> None:
    model, catalog = tied
    save_model(model, tmp_path, kind="tied", family="baseline", arguments={}, catalog=catalog)
    assert set(load_file(tmp_path / "model.safetensors")) == {"item_embedding.weight", "text", "part"}
    config = read_json(tmp_path / "config.json")
    assert config["feature_dims"] == {"text": 3}
    assert config["shared"] == {"head.weight": "item_embedding.weight"}
    batch = history_batch([[1, 2]], 5)
    torch.testing.assert_close(load_model(tmp_path).all_scores(batch), model.all_scores(batch))


def test_loading_runs_no_code(tmp_path: Path) -> None:
    """A pickle in the place of the tensors is refused, not executed."""
    folder = write_artifact(tmp_path / "artifact")
    (folder / "manifest.json").unlink()
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ArtifactError, match=r"model.safetensors: truncated or damaged"):
        load_model(folder)
    assert not marker.exists()


def test_a_damaged_artifact_does_not_load(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "artifact")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.safetensors: sha256 is"):
        load_model(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_tensors_without_a_manifest_are_named(tmp_path: Path, kept: int) -> None:
    folder = write_artifact(tmp_path / "artifact")
    (folder / "manifest.json").unlink()
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:kept])
    with pytest.raises(ArtifactError, match=r"model.safetensors: truncated or damaged"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sasrek"}, r"unknown student 'sasrek'.*did you mean 'sasrec'"),
        ({"family": "alien"}, r"no model configuration \(family"),
        ({"num_items": 61}, r"cannot be built"),
        ({"num_items": 0}, r"num_items"),
        ({"arguments": {"dimension": 3}}, r"dimension"),
        ({"shared": {"a": "nowhere"}}, r"cannot be built"),
        ({"surprise": 1}, r"surprise"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = write_artifact(tmp_path / "artifact")
    (folder / "manifest.json").unlink()
    write_json(folder / "config.json", {**read_json(folder / "config.json"), **change})
    with pytest.raises(ArtifactError, match=rf"config.json.*{message}"):
        load_model(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config.json: missing"):
        load_model(tmp_path)

"""Vectors that teachers read off content, of known and of new items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.errors import ConfigError
from components.model import Catalog, ReadsContent
from components.teachers import TEACHERS
from components.training.seeds import seed_everything
from tests.components.teachers.recformer.language_models import shared_bert
from tests.components.teachers.test_unim2rec import catalog as pictured
from tests.components.teachers.test_unisrec import SMALL
from tests.components.teachers.worlds import planted

KNOWN = planted()[1]
CHOSEN = [4, 9, 15]  # item numbers that a catalog of new items repeats


def make(kind: str, catalog: Catalog = KNOWN, **arguments: Any) -> Any:
    seed_everything(0)
    given = {"backbone": shared_bert(), "max_length": 8} if kind == "recformer" else SMALL
    model = TEACHERS[kind].make(catalog, {**given, **arguments})
    assert isinstance(model, ReadsContent)
    return model.train()


def part(catalog: Catalog, items: list[int] = CHOSEN) -> Catalog:
    """New items with the content of some known ones."""
    features: dict[str, NDArray[np.float32]] = {name: table[[0, *items]] for name, table in catalog.features.items()}
    texts = {name: [values[item - 1] for item in items] for name, values in (catalog.attributes or {}).items()}
    return Catalog(len(items), 0, np.zeros(len(items) + 1, np.int64), features=features, attributes=texts)


@pytest.mark.parametrize(
    ("kind", "catalog", "arguments"),
    [
        ("unisrec", KNOWN, {"mode": "inductive", "whitening": True}),
        ("unisrec", KNOWN, {"mode": "transductive"}),
        ("unim2rec", pictured(), {"mode": "transductive"}),
        ("unim2rec", KNOWN, {"mode": "inductive"}),
        ("recformer", KNOWN, {}),
    ],
)
def test_new_items_of_known_content_get_known_vectors(kind: str, catalog: Catalog, arguments: dict[str, Any]) -> None:
    model = make(kind, catalog, **arguments)
    own, new = model.content_vectors(), model.content_vectors(part(catalog))
    assert own.shape[0] == catalog.num_items
    torch.testing.assert_close(new, own[torch.tensor(CHOSEN) - 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.norm(dim=1), torch.ones(len(own)))
    assert not own.requires_grad
    assert model.training, "training goes on as before"
    assert model.num_items == catalog.num_items


def test_without_learnt_vectors_they_are_those_that_teach() -> None:
    model = make("unisrec", mode="inductive")
    torch.testing.assert_close(model.content_vectors(), model.item_vectors()[1:])


def test_learnt_vectors_have_no_part_in_them() -> None:
    model = make("unisrec", mode="transductive")
    before = model.content_vectors()
    with torch.no_grad():
        model.items.item_embedding.weight.add_(1.0)
    assert torch.equal(model.content_vectors(), before)
    assert not torch.allclose(model.item_vectors()[1:], before, atol=1e-2)


def test_a_recformer_reads_its_items_with_the_weights_of_today() -> None:
    model = make("recformer").eval()
    matrix = model.item_vectors()[1:].clone()
    torch.testing.assert_close(model.content_vectors(), matrix, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        model.backbone.embeddings.items.weight.add_(1.0)
        model.backbone.embeddings.positions.weight.mul_(3.0)
    assert not torch.allclose(model.content_vectors(), matrix, atol=1e-2)
    torch.testing.assert_close(model.item_vectors()[1:], matrix)


def test_pictures_that_new_items_lack_are_absent() -> None:
    known = pictured()
    model = make("unim2rec", known, mode="inductive")
    bare = part(known, [3, 6])  # which have none
    without = replace(bare, features={"text": bare.features["text"]})
    torch.testing.assert_close(model.content_vectors(without), model.content_vectors()[[2, 5]], rtol=1e-4, atol=1e-5)


def test_content_of_another_width_is_refused() -> None:
    model = make("unisrec", mode="inductive")
    wrong = Catalog(2, 0, np.zeros(3, np.int64), features={"text": np.zeros((3, 7), np.float32)})
    with pytest.raises(ConfigError, match=r"item text vectors: the teacher reads \(3, 16\), got \(3, 7\)"):
        model.content_vectors(wrong)
    with pytest.raises(ConfigError, match="needs item text vectors"):
        model.content_vectors(Catalog(2, 0, np.zeros(3, np.int64)))

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.artifacts.growth import grow_model
from components.artifacts.models import load_model, read_model_config, save_model
from components.data.batching import history_batch
from components.errors import ArtifactError
from components.inference import Scorer
from components.model import Ranker
from components.students import STUDENTS
from components.training.seeds import seed_everything
from tests.components.teachers.worlds import planted
from tests.tiny_artifact import write_artifact

SEQUENCES, CATALOG = planted()
NEW = 5
KINDS: dict[str, dict[str, Any]] = {
    "sasrec": {"dim": 16},
    "gru4rec": {"dim": 10},
    "nextitnet": {"dim": 16},
    "caser": {"dim": 12},
    "bert4rec": {"dim": 16},
    "recguru": {"dim": 16, "num_layers": 1},
    "fm": {"dim": 8, "item_fields": ["title"], "min_count": 1, "max_values": 7},
    "deepfm": {"dim": 8, "item_fields": ["title"], "hidden": [16, 8]},
    "lightgcn": {"dim": 16},
}


def saved(kind: str, folder: Path, **arguments: Any) -> Ranker:
    folder.mkdir()
    seed_everything(0)
    users = {"taste": ["a"] * CATALOG.num_users}
    catalog = replace(CATALOG, user_attributes=users)
    model = STUDENTS[kind].make(catalog, arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # far from its gentle start, so that scores spread
    save_model(model, folder, kind=kind, family="student", arguments=arguments, catalog=catalog)
    return load_model(folder)


@torch.no_grad()
def new_rows(model: Ranker) -> dict[str, torch.Tensor]:
    """Random rows for every table; values that exist where the table holds values."""
    rows = {}
    for table in model.item_tensors():
        shape = (NEW, *table.fitted.shape[1:])
        drawn = torch.randn(shape) if not table.attribute else torch.randint(0, int(table.fitted.max()) + 1, shape)
        rows[table.name] = drawn
    return rows


def scores(model: Ranker) -> NDArray[np.float32]:
    """(B, N) scores of all items as they are served."""
    histories = [np.array(history, np.int32) for history in ([3, 8, 20], [1], [24, 23, 22, 21, 2])]
    scorer = Scorer(model, reproducible=True)
    items, found = scorer.top_k(histories, model.num_items, exclude_seen=False, users=[7, 0, 1])
    return np.take_along_axis(found, items.argsort(axis=1), axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_known_items_score_as_before_and_new_ones_are_ranked(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "old", **KINDS[kind])
    (tmp_path / "new").mkdir()
    grow_model(tmp_path / "old", tmp_path / "new", new_rows(model))
    grown = load_model(tmp_path / "new")
    assert grown.num_items == read_model_config(tmp_path / "new").num_items == CATALOG.num_items + NEW
    before, after = scores(model), scores(grown)
    np.testing.assert_array_equal(before, after[:, : CATALOG.num_items])
    assert np.isfinite(after).all()
    assert (after[:, -NEW:].std(axis=1) > 0).all()
    with torch.no_grad():  # a new item may stand in a history, and says something there
        states = [grown.states(history_batch([[3, item]], grown.max_length)) for item in (8, CATALOG.num_items + 2)]
    assert not torch.equal(*states)


@pytest.mark.parametrize("kind", sorted(STUDENTS))
def test_every_student_says_which_tables_grow(kind: str, tmp_path: Path) -> None:
    if kind in KINDS:
        names = {table.name for table in saved(kind, tmp_path / "model", **KINDS[kind]).item_tensors()}
        grow = {
            name
            for name, tensor in saved(kind, tmp_path / "same", **KINDS[kind]).state_dict().items()
            if tensor.shape[:1] == (CATALOG.num_items + 1,)
        }
        assert names == grow
    else:
        assert saved(kind, tmp_path / "model").item_tensors() == [], (
            "a model that counts has counted nothing of new items"
        )


def test_a_new_item_of_a_graph_keeps_its_row_through_the_layers(tmp_path: Path) -> None:
    model = saved("lightgcn", tmp_path / "old", dim=16, num_layers=3)
    (table,) = model.item_tensors()
    wanted = torch.randn(NEW, 16)
    (tmp_path / "new").mkdir()
    grow_model(tmp_path / "old", tmp_path / "new", {table.name: wanted * table.scale})
    with torch.no_grad():
        found = load_model(tmp_path / "new").item_tensors()[0].fitted[-NEW:]
    torch.testing.assert_close(found, wanted)


def test_what_cannot_grow_is_said(tmp_path: Path) -> None:
    source = write_artifact(tmp_path / "old")
    (tmp_path / "new").mkdir()
    with pytest.raises(ValueError, match=r"no tensor 'item_table'; it has: head|no tensor 'item_table'; it has: item_"):
        grow_model(source, tmp_path / "new", {"item_table": torch.zeros(2, 16)})
    with pytest.raises(ValueError, match=r"rows of shape \(16,\) expected, got \(3,\)"):
        grow_model(source, tmp_path / "new", {"item_embedding.weight": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="as many rows for every tensor, got"):
        grow_model(source, tmp_path / "new", {})


def test_a_table_without_new_rows_is_an_error(tmp_path: Path) -> None:
    model = saved("bert4rec", tmp_path / "old", **KINDS["bert4rec"])
    rows = new_rows(model)
    del rows["head.bias"]
    (tmp_path / "new").mkdir()
    with pytest.raises(ArtifactError, match="cannot be built"):
        grow_model(tmp_path / "old", tmp_path / "new", rows)

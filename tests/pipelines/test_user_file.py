"""The user file from the input to a model's fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.data.cleaning import PrepareConfig
from components.data.prepared import PreparedSet
from components.data.readers import InputConfig
from components.errors import ConfigError, DataError
from components.training.config import TrainingConfig
from pipelines.annotate import copy_tables
from pipelines.prepare import prepare, write_standalone_manifest
from pipelines.training_job import Built, TrainingJob, build
from tests.pipelines.recorder import Recorder

CITIES = {"ann": "Bern", "bob": "Rome", "eve": "Bern"}  # nothing is known of dan


def prepared(folder: Path, cities: dict[str, str] = CITIES, name: str = "set", **source: Any) -> PreparedSet:
    rows = [(user, f"i{item}", 100 * item) for user in ("ann", "bob", "dan", "eve") for item in range(4)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")
    users = {"user_id": list(cities), "city": list(cities.values()), "age": range(20, 20 + len(cities))}
    pl.DataFrame(users).write_csv(folder / "users.csv")
    given = InputConfig(interactions="log.csv", **{"users": "users.csv", **source})
    (folder / name).mkdir()
    lowest = PrepareConfig(min_interactions_per_user=1, min_interactions_per_item=1)
    counts = prepare(str(folder), given, lowest, folder / name, Recorder())
    write_standalone_manifest(folder / name, counts)
    return PreparedSet(folder / name)


def built(prepared: PreparedSet, **arguments: Any) -> Built:
    return build(
        TrainingJob(
            kind="fm",
            family="student",
            arguments={"dim": 4, "min_count": 1, **arguments},
            training=TrainingConfig(),
            seed=0,
            folder=prepared.path,
            work=prepared.path,
            prepared=prepared.path,
        )
    )


def test_attributes_stand_in_the_order_of_user_numbers(tmp_path: Path) -> None:
    known = prepared(tmp_path)
    assert known.user_attributes["city"] == [CITIES.get(user, "") for user in known.user_ids]
    assert sorted(known.user_attributes["age"]) == ["", "20", "21", "22"]
    manifest = json.loads((known.path / "manifest.json").read_text())
    assert manifest["user_file"]["users_missing_from_user_file"] == 1
    assert manifest["users"] == 4


def test_without_a_user_file_there_are_none(tmp_path: Path) -> None:
    known = prepared(tmp_path, users=None)
    assert known.user_attributes == {}
    assert not (known.path / "users.parquet").exists()


def test_the_fingerprint_of_the_data_follows_the_user_file(tmp_path: Path) -> None:
    first, again = prepared(tmp_path), prepared(tmp_path, name="again")
    changed, without = (
        prepared(tmp_path, CITIES | {"eve": "Rome"}, "changed"),
        prepared(tmp_path, name="no", users=None),
    )
    assert again.manifest["fingerprint"] == first.manifest["fingerprint"]
    assert len({known.manifest["fingerprint"] for known in (first, changed, without)}) == 3


def test_a_model_gets_the_values_of_its_users(tmp_path: Path) -> None:
    known = prepared(tmp_path)
    model = built(known, user_fields=["city"]).model
    values = model.get_buffer("user_rows.fields.fields.fields.1.values").tolist()
    ids = {"Bern": 1, "Rome": 2, "": 0}
    assert values == [0, *(ids[CITIES.get(user, "")] for user in known.user_ids)]


def test_an_annotated_set_keeps_the_users(tmp_path: Path) -> None:
    known = prepared(tmp_path)
    (tmp_path / "annotated").mkdir()
    copy_tables(known.path, tmp_path / "annotated")
    write_standalone_manifest(tmp_path / "annotated", {})
    assert PreparedSet(tmp_path / "annotated").user_attributes == known.user_attributes
    assert PreparedSet(tmp_path / "annotated").item_ids == known.item_ids


def test_a_field_that_the_user_file_lacks(tmp_path: Path) -> None:
    message = r"user_fields: no user attribute 'town'; expected one of the file input\.users: city, age"
    with pytest.raises(ConfigError, match=message):
        built(prepared(tmp_path), user_fields=["town"])


def test_a_wrong_column_fails_before_the_log_is_read(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no column 'uid' for input\.user_columns\.user_id; it has: user_id, city, age"
    ):
        prepared(tmp_path, user_columns={"user_id": "uid"})
    assert not list((tmp_path / "set").iterdir())

"""The texts of a prepared set, and of one that was annotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from components.artifacts.format import seal
from components.data.prepared import PreparedSet


def prepared(folder: Path, manifest: dict[str, Any], **texts: list[str]) -> PreparedSet:
    columns = {"item": [1, 2], "item_id": ["a", "b"], "count": [3, 1], "year": [1999, 2001], **texts}
    pl.DataFrame(columns).write_parquet(folder / "items.parquet")
    seal(folder, manifest)
    return PreparedSet(folder)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"items": {"text_columns": ["title", "brand"]}}, ["title", "brand"]),  # in the user's order
        ({"items": {"text_columns": ["brand", "gone"]}}, ["brand"]),
        ({"items": {"text_columns": []}}, ["text"]),
        ({}, ["brand", "title"]),  # annotated by an early version
    ],
)
def test_attributes_are_the_text_columns(tmp_path: Path, manifest: dict[str, Any], expected: list[str]) -> None:
    found = prepared(tmp_path, manifest, text=["A x", "B y"], brand=["x", "y"], title=["A", "B"])
    assert list(found.attributes) == found.text_columns == expected
    if "title" in expected:
        assert found.attributes["title"] == ["A", "B"]


def test_a_set_without_texts_has_no_attributes(tmp_path: Path) -> None:
    assert prepared(tmp_path, {}).attributes == {}

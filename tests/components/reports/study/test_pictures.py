"""Pictures of a study: what they draw of what is there."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from components.reports.study.pictures import study_picture
from components.reports.study.rows import Model, compare
from components.reports.svg import VARIABLES, standalone
from tests.components.reports.study.documents import cost_rows, document, positions, quality_rows


def sweep_rows() -> list[dict[str, Any]]:
    models = [Model("plain", "student", "sasrec", {0: positions(5)})]
    for value in (0.1, 1.0):
        found = {0: positions(2)}
        models.append(Model(f"weight {value}", "student", "prm-kd", found, {}, "plain", "weight", value))
    return compare(models)


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (document("main", quality_rows()), ["prm-kd", "text", "NDCG@10"]),
        (document("teachers", quality_rows()), ["prm-kd", "plain"]),
        (document("cost", cost_rows()), ["fm", "time of inference", "not measured", "2.00"]),
        (document("students", quality_rows()), ["plain", "after the teachers"]),
        (document("sweeps", [], weight=sweep_rows()), ["weight", "alone", "after the teachers"]),
    ],
)
def test_every_table_has_a_picture(made: dict[str, Any], shown: list[str]) -> None:
    drawn = study_picture(made)
    assert drawn is not None
    for text in shown:
        assert text in drawn.svg


def test_rows_without_numbers_are_not_drawn() -> None:
    drawn = study_picture(document("main", quality_rows()))
    assert drawn is not None
    assert "gru4rec" not in drawn.svg
    assert study_picture(document("main", quality_rows()[2:3])) is None


def test_a_picture_alone_is_valid_svg_with_all_its_colors() -> None:
    drawn = study_picture(document("main", quality_rows()))
    assert drawn is not None
    text = standalone(drawn)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for variable in VARIABLES.values():
        name = variable[4:-1]
        assert len(re.findall(rf"{name}: #[0-9a-f]{{6}};", text)) == 2  # light and dark

"""What the command ``params`` counts, and that building without memory counts the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.errors import UnknownNameError
from components.model import Catalog
from components.students import STUDENTS
from pipelines.params import footprint_table, measure_student, published

CATALOG = Catalog(300, 4, np.arange(301)[::-1].copy())
SETTINGS: list[dict[str, Any]] = [{}, {"compression": {"output": "tied", "rule": "frequency"}}]


@pytest.mark.parametrize("arguments", SETTINGS)
@pytest.mark.parametrize("kind", ["sasrec", "gru4rec", "nextitnet", "caser", "bert4rec", "recguru"])
def test_a_student_without_memory_has_as_many_parameters(kind: str, arguments: dict[str, Any]) -> None:
    counted, stored = measure_student(CATALOG, kind, arguments)
    assert counted == STUDENTS[kind].make(CATALOG, arguments).parameter_parts()
    assert stored == {part: 4 * count for part, count in counted.items()}
    with torch.device("meta"):
        model = STUDENTS[kind].make(CATALOG, arguments)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_published_settings_have_names() -> None:
    whole, small = published("nextitnet-ml20"), published("cprec-ab-ml20")
    assert whole.uncompressed is None
    assert small.uncompressed == 4 * whole.parameters["total"]
    assert [round(row.parameters["total"] / 1e6) for row in (whole, small)] == [62, 15]
    assert small.as_json()["bytes"]["total"] == 4 * small.parameters["total"]
    assert footprint_table([whole, small]).row_count == 2
    with pytest.raises(UnknownNameError, match="did you mean 'cprec-ab-ml20'"):
        published("cprec-ab-ml2")

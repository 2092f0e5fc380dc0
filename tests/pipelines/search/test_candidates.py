"""From drawn values to students: what they become, what they weigh, and which budgets nothing meets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import ConfigError
from components.model import Catalog
from components.students import STUDENTS
from pipelines.config import RunConfig
from pipelines.search.candidates import (
    Scale,
    Weight,
    check_budget,
    decoded,
    encoded,
    setting_key,
    setting_of,
    smallest,
)
from pipelines.search.config import SearchConfig
from tests.pipelines.run_configs import FULL, PLAIN_RUN, make_config
from tune_spaces.domain import space

CATALOG = Catalog(300, 4, np.arange(301)[::-1].copy())


@pytest.fixture
def plain(tmp_path: Path) -> RunConfig:
    return make_config(tmp_path, {**PLAIN_RUN, "student": {"kind": "sasrec", "dim": 16, "max_length": 10}})


def test_values_take_the_place_of_the_runs_own(tmp_path: Path) -> None:
    config = make_config(tmp_path, FULL)
    values = {"student.dim": 32, "student.compression.factor": 2, "training.learning_rate": 0.01}
    setting = setting_of(config, {**values, "distillation.weight": 7.0})
    assert setting.arguments["dim"] == 32
    assert setting.arguments["compression"]["factor"] == 2
    assert setting.arguments["compression"]["num_blocks"] == 3
    assert setting.training.learning_rate == 0.01
    assert setting.training.batch_size == config.training.batch_size
    assert setting.distillation is not None
    assert setting.distillation.weight == 7.0
    assert config.student.arguments["compression"] is None  # the run's own stays


def test_keys_below_one_that_is_null_have_no_effect(plain: RunConfig) -> None:
    below = {"student.compression.factor": 2, "student.compression.num_blocks": 2}
    assert setting_of(plain, {"student.compression": None, **below}).arguments["compression"] is None
    chosen = setting_of(plain, {"student.compression": {"output": "tied"}, **below}).arguments["compression"]
    assert (chosen["output"], chosen["factor"], chosen["num_blocks"]) == ("tied", 2, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"student.compression.num_blocks": 1}, "a tree needs at least 2 blocks"),
        ({"student.compression.sharing": "al"}, "this student knows none, cb, ab, not al"),
        ({"student.dim": 0}, "dim: "),
    ],
)
def test_contradictions_have_a_reason(plain: RunConfig, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        setting_of(plain, values)


def test_a_key_changes_with_all_that_changes_the_result(plain: RunConfig) -> None:
    base = setting_of(plain, {"student.dim": 16})
    keys = {
        setting_key(base, 0, {}),
        setting_key(base, 1, {}),
        setting_key(base, 0, {"mask_history": True}),
        setting_key(setting_of(plain, {"student.dim": 32}), 0, {}),
        setting_key(setting_of(plain, {"training.epochs": 3}), 0, {}),
    }
    assert len(keys) == 5
    assert setting_key(setting_of(plain, {}), 0, {}) == setting_key(base, 0, {})


def test_values_of_another_space_are_not_drawn_again() -> None:
    searched = space({"student.dim": [8, 16], "student.dropout": {"uniform": [0.0, 0.5]}})
    values = {"student.dim": 16, "student.dropout": 0.25}
    assert encoded(searched, values) == {"student.dim": 1, "student.dropout": 0.25}
    assert decoded(searched, {"student.dim": 1, "student.dropout": 0.25}) == values
    assert encoded(searched, {**values, "student.dim": 24}) is None
    assert encoded(searched, {"student.dim": 16}) is None


def test_a_student_weighs_what_it_would_have(plain: RunConfig) -> None:
    setting = setting_of(plain, {"student.compression.item_precision": "int8"})
    weight = Scale(CATALOG).weigh(setting)
    model = STUDENTS["sasrec"].make(CATALOG, setting.arguments)
    assert weight.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert weight.bytes < 4 * weight.parameters


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 1000))
def test_a_budget_is_exceeded_by_its_worst_part(parameters: int, size: int, most: int, largest: int) -> None:
    excess = Weight(parameters, size).excess(SearchConfig(max_parameters=most, max_bytes=largest))
    assert (excess <= 0) == (parameters <= most and size <= largest)
    assert Weight(parameters, size).excess(SearchConfig()) == 0


@pytest.mark.parametrize("choices", [3, 12])  # all at once; key after key
def test_the_smallest_is_found(choices: int) -> None:
    widths = list(range(1, choices + 1))
    searched = space({"student.a": widths, "student.b": widths, "student.c": widths, "training.epochs": [1, 2]})

    def weigh(values: dict[str, Any]) -> Weight | None:
        sizes = [values[f"student.{name}"] for name in "abc"]
        return None if sizes[0] == 1 else Weight(sum(sizes), 10 * sum(sizes))  # contradicts itself at 1

    found = smallest(searched, weigh, lambda weight: weight.bytes)
    assert found is not None
    assert found[1] == Weight(4, 40)
    assert smallest(searched, lambda values: None, lambda weight: weight.bytes) is None


def test_each_budget_has_a_smallest_of_its_own(plain: RunConfig) -> None:
    """Fewest bytes and fewest parameters need not be the same student."""
    rounded = {"item_precision": "int8", "network_precision": "int8"}
    ways = [{"input": "full", "output": "tied", **rounded}, {"output": "tied", "factor": 8}]
    search = SearchConfig(spaces=[], space=space({"student.compression": ways}))
    scale = Scale(CATALOG)
    whole, blocks = (scale.weigh(setting_of(plain, {"student.compression": way})) for way in ways)
    assert whole.parameters > blocks.parameters
    assert whole.bytes < blocks.bytes
    check_budget(plain, search.model_copy(update={"max_parameters": blocks.parameters}), CATALOG)
    check_budget(plain, search.model_copy(update={"max_bytes": whole.bytes}), CATALOG)


def test_a_possible_student_is_found_among_many_impossible_ones(plain: RunConfig) -> None:
    values = {"student.dim": [30, 32], "student.num_heads": [4, 8], "student.compression.num_blocks": [1, 2, 3]}
    more = {"student.compression.output": ["tree", "flat"], "student.inner_dim": list(range(8, 40))}
    check_budget(plain, SearchConfig(spaces=[], space=space({**values, **more})), CATALOG)


def test_precision_alone_leaves_a_student_whole(plain: RunConfig) -> None:
    items, network = "student.compression.item_precision", "student.compression.network_precision"
    rounded = setting_of(plain, {items: "int8", network: "fp32"}).arguments["compression"]
    assert (rounded["input"], rounded["output"], rounded["item_precision"]) == ("full", "tied", "int8")
    assert setting_of(plain, {items: "fp32", network: "fp32"}).arguments["compression"] is None
    blocks = setting_of(plain, {items: "int8", "student.compression.factor": 2}).arguments["compression"]
    assert blocks["input"] == "blocks"


def test_a_budget_that_nothing_meets_is_refused_with_the_least(plain: RunConfig) -> None:
    search = SearchConfig(spaces=[], space=space({"student.dim": [8, 16]}), max_bytes=5_000)
    least = Scale(CATALOG).weigh(setting_of(plain, {"student.dim": 8}))
    with pytest.raises(ConfigError, match=rf"search.max_bytes: 5,000 cannot be met: .*takes {least.bytes:,} \(student"):
        check_budget(plain, search, CATALOG)
    check_budget(plain, search.model_copy(update={"max_bytes": least.bytes}), CATALOG)
    few = search.model_copy(update={"max_bytes": None, "max_parameters": least.parameters - 1})
    with pytest.raises(ConfigError, match=r"search.max_parameters: .* cannot be met"):
        check_budget(plain, few, CATALOG)


def test_a_space_without_a_possible_student_is_refused(plain: RunConfig) -> None:
    search = SearchConfig(spaces=[], space=space({"student.compression.num_blocks": [400, 500]}))
    with pytest.raises(ConfigError, match=r"no student of the space can be built for this catalog: .*400 blocks need"):
        check_budget(plain, search, CATALOG)

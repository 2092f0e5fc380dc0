"""Domains read what a person writes, and give back every value that they drew."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.search.check import key_problem
from tune_spaces import SPACES
from tune_spaces.domain import Domain, space


@pytest.mark.parametrize(
    ("written", "corners"),
    [
        ([8, 16, None], [8, 16, None]),
        ({"choice": [{"output": "tied"}]}, [{"output": "tied"}]),
        ({"uniform": [0.1, 0.5]}, [0.1, 0.5]),
        ({"log_uniform": [1, 30]}, [1.0, 30.0]),
        ({"integers": [2, 4]}, [2, 4]),
    ],
)
def test_corners_come_back_as_they_were_drawn(written: Any, corners: list[Any]) -> None:
    domain = Domain.model_validate(written)
    assert domain.corners() == corners
    assert [domain.value(domain.drawn(value)) for value in corners] == corners


@pytest.mark.parametrize(
    "written", [[8, 16, 24], {"uniform": [0.1, 0.5]}, {"log_uniform": [1, 30]}, {"integers": [2, 4]}]
)
def test_what_tune_draws_is_a_value_of_the_domain(written: Any) -> None:
    domain = Domain.model_validate(written)
    primitive = domain.primitive()
    values = [domain.value(primitive.sample()) for _ in range(200)]
    low, high = min(domain.corners()), max(domain.corners())
    assert min(values) >= low
    assert max(values) <= high
    assert [domain.value(domain.drawn(value)) for value in values] == values
    if domain.uniform is None and domain.log_uniform is None:
        assert {low, high} <= set(values)  # both ends are drawn


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "expected a list, or one of choice, uniform, log_uniform, integers"),
        ({"uniform": [0, 1], "integers": [0, 1]}, "got uniform and integers"),
        ({"uniform": [1, 1]}, r"uniform: expected \[lowest, highest\], got \[1, 1\]"),
        ({"log_uniform": [0, 1]}, "log_uniform: expected numbers above 0"),
        ({"choise": [1]}, "Extra inputs are not permitted"),
        ([], "at least 1 item"),
    ],
)
def test_mistakes_are_told(written: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Domain.model_validate(written)


@pytest.mark.parametrize(("written", "value"), [([8, 16], 9), ({"uniform": [0, 1]}, 2), ({"integers": [1, 3]}, True)])
def test_a_value_of_another_space_is_refused(written: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Domain.model_validate(written).drawn(value)


def test_every_space_fits_the_main_student() -> None:
    for name, keys in SPACES.items():
        assert keys, name
        for key in keys:
            assert key_problem(key, "sasrec", taught=True) == "", key
    assert space({"student.dim": [8]})["student.dim"].choice == [8]

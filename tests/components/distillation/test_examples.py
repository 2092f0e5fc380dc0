"""The worked examples in the docstrings are true."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from components.distillation import annotation, consistency, geometry, losses, teacher_scores


@pytest.mark.parametrize("module", [annotation, consistency, geometry, losses, teacher_scores])
def test_examples(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.failed == 0
    assert results.attempted > 0

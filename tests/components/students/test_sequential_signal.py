"""Every sequential student finds transitions that were planted, and nothing where the order was shuffled."""

from __future__ import annotations

from typing import Any

import pytest

from tests.components.students.walks import hits, shuffled, walks

SMALL: dict[str, dict[str, Any]] = {
    "gru4rec": {"dim": 32, "hidden_dim": 48, "dropout": 0.1},
    "nextitnet": {"dim": 32, "dilations": [1], "num_repeats": 2, "dropout": 0.1},
    "caser": {"dim": 32, "window": 3, "dropout": 0.1},
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", SMALL)
def test_planted_transitions_are_found_and_a_shuffled_control_has_none(kind: str, order: int) -> None:
    paths = walks(order)
    popular = hits("mostpop", paths)
    assert popular < 0.2
    assert hits(kind, paths, **SMALL[kind]) > 0.5
    assert hits(kind, shuffled(paths), **SMALL[kind]) < 0.2


def test_the_second_order_cannot_be_learnt_from_one_item() -> None:
    """So that the floor above shows that a student reads more than the last item."""
    assert hits("markov", walks(1)) > 0.6
    assert hits("markov", walks(2)) < 0.2
    assert hits("caser", walks(2), **(SMALL["caser"] | {"window": 1, "use_users": False})) < 0.2

from __future__ import annotations

import pytest


@pytest.fixture(params=["inductive", "transductive"])
def mode(request: pytest.FixtureRequest) -> str:
    """Item vectors from content alone, or with a learnt one each."""
    return str(request.param)

from __future__ import annotations

import pytest

from tests.components.teachers.recformer.language_models import shared_bert


@pytest.fixture(scope="session")
def bert() -> str:
    """Folder of a random BERT: width 16, 2 layers."""
    return shared_bert()

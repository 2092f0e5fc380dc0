from __future__ import annotations

import pytest

from tests.components.teachers.recformer.language_models import tiny_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random BERT: width 16, 2 layers."""
    return str(tiny_bert(tmp_path_factory.mktemp("bert")))

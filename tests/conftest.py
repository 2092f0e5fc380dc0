"""Environment of every test process: one thread, no spinning, one Ray session started on first use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.update(
    RAY_AUTH_MODE="disabled",
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.1",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
)

import pytest

DATA = Path(os.environ.get("DISTILREC_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One small Ray session for the whole test process."""
    import ray

    folder = tempfile.mkdtemp(prefix="r")
    ray.init(
        num_cpus=4, include_dashboard=False, object_store_memory=512 * 2**20, _temp_dir=folder, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"real data sets are not at {DATA}; set DISTILREC_DATA")
    return DATA

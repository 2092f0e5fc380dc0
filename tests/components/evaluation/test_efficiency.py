from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from components.evaluation.efficiency import artifact_bytes, measure, request_latency
from tests.components.evaluation.tiny import TableRanker, random_sequences


def test_bytes_are_those_that_scoring_needs(tmp_path: Path) -> None:
    for name, size in {"model.safetensors": 100, "config.json": 20, "history.json": 999, "manifest.json": 999}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "teachers").mkdir()
    (tmp_path / "teachers" / "items.npy").write_bytes(b"x" * 3)
    assert artifact_bytes(tmp_path) == 123


def test_times_are_positive_and_ordered() -> None:
    model = TableRanker(np.random.default_rng(0).random((31, 30)))
    times = measure(model, random_sequences(40, 30).cases("test"), requests=20)
    assert set(times) == {"latency_p50_ms", "latency_p99_ms", "users_per_second"}
    assert 0 < times["latency_p50_ms"] <= times["latency_p99_ms"]
    assert times["users_per_second"] > 0


def test_requests_are_scored_one_by_one_on_one_thread() -> None:
    seen: list[tuple[int, int]] = []

    class Watched(TableRanker):
        def states(self, batch):  # type: ignore[no-untyped-def]
            seen.append((len(batch), torch.get_num_threads()))
            return super().states(batch)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        request_latency(
            Watched(np.random.default_rng(0).random((9, 8))), random_sequences(9, 8).cases("test"), requests=4
        )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(seen) >= 4
    assert set(seen) == {(1, 1)}

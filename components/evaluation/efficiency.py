"""What a model costs: parameters, bytes, and the time of one request.

Times differ from run to run, so nothing here may enter a manifest.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np

from components.data.flat_sequences import EvaluationCases
from components.evaluation.ranking import sample_cases, target_positions
from components.inference import Scorer, one_thread
from components.model import Ranker
from components.schema import CONFIG_FILE

WEIGHT_SUFFIXES: Final = (".safetensors", ".npy")
WARM_UP = 5  # requests that are not counted


def artifact_bytes(folder: Path) -> int:
    """Bytes that must be shipped so that the model can score: its tensors and its config, not its training history."""
    files = [file for file in folder.rglob("*") if file.suffix in WEIGHT_SUFFIXES or file.name == CONFIG_FILE]
    return sum(file.stat().st_size for file in files)


def request_latency(
    model: Ranker, cases: EvaluationCases, *, k: int = 10, requests: int = 100, seed: int = 0, device: str = "cpu"
) -> dict[str, float]:
    """Median and 99th percentile, in ms, of one request: batch 1, the best `k` unseen items, one thread.

    Args:
        model: what scores.
        cases: histories to draw the requests from.
        k: items per answer.
        requests: how many are measured.
        seed: draws the histories.
        device: where the model runs.
    """
    scorer = Scorer(model, batch_size=1, device=device)
    drawn = np.random.default_rng(seed).integers(len(cases), size=WARM_UP + requests)
    elapsed = []
    with one_thread():
        for case in drawn:
            history, user = cases.history(int(case)), int(cases.users[case])
            start = time.perf_counter()
            scorer.top_k([history], k, exclude_seen=True, users=[user])
            elapsed.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(elapsed[WARM_UP:], [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


def users_per_second(model: Ranker, cases: EvaluationCases, *, max_users: int = 2000, device: str = "cpu") -> float:
    """Users whose targets are ranked among all items per CPU-second, one thread."""
    chosen = sample_cases(cases, max_users)
    with one_thread():
        start = time.process_time()
        target_positions(model, chosen, device=device)
        return len(chosen) / max(time.process_time() - start, 1e-9)


def measure(model: Ranker, cases: EvaluationCases, *, requests: int = 100) -> dict[str, float]:
    """Every time of one model, flat: ``latency_p50_ms``, ``latency_p99_ms``, ``users_per_second``."""
    latency = request_latency(model, cases, requests=requests)
    return {
        "latency_p50_ms": latency["p50"],
        "latency_p99_ms": latency["p99"],
        "users_per_second": users_per_second(model, cases),
    }

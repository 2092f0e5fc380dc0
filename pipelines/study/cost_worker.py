"""A process that loads one model, ranks users, says what that cost, and ends; started by `pipelines.study.cost`.

python -m pipelines.study.cost_worker ARTIFACT PREPARED USERS
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Final

REQUESTED: Final = 5  # items per request


def main() -> None:
    """Print one JSON object: users per CPU-second on one thread, median time of a request for the five best items, peak
    memory with and without what all share.
    """
    artifact, prepared, users = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import torch

    from components.artifacts.models import load_model
    from components.data.prepared import PreparedSet
    from components.evaluation.efficiency import request_latency, users_per_second

    torch.set_num_threads(1)
    cases = PreparedSet(prepared).sequences.cases("test")
    before = peak_mb()
    model = load_model(artifact)
    users_per_second(model, cases, max_users=max(1, users // 8))  # warm-up
    rate = users_per_second(model, cases, max_users=users)
    figures = {
        "users_per_second": rate,
        "latency_ms": request_latency(model, cases, k=REQUESTED)["p50"],
        "peak_mb": peak_mb(),
        "model_mb": peak_mb() - before,
        "parameters": model.parameter_parts()["total"],
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def peak_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; its getrusage counts what the process was before it became this program, too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()

"""A leaderboard and the other facts of a run, made of a seeded random generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.evaluation.leaderboard import ModelResult, Protocol, add_timing, build_leaderboard

MODELS = {
    "prm-kd": ("student", 9.0, 4_000_000),
    "average": ("student", 10.5, 4_000_000),
    "plain": ("student", 12.0, 4_000_000),
    "unisrec-text": ("teacher", 9.5, 21_000_000),
    "unisrec-trans": ("teacher", 8.5, 24_000_000),
    "markov": ("baseline", 16.0, 9_000_000),
    "mostpop": ("baseline", 60.0, 20_000),
}
SLICE_NAMES = ("cold_items", "popular_items", "short_histories", "long_histories")


def sample_leaderboard(users: int = 2000, **replaced: Any) -> dict[str, Any]:
    """What the run folder's ``leaderboard.json`` holds."""
    results = []
    for number, (name, (kind, scale, size)) in enumerate(MODELS.items()):
        for seed in (0, 1, 2) if kind == "student" else (0,):
            positions = np.random.default_rng([number, seed]).geometric(1 / scale, size=users)
            parts = {"total": size // 4, "embedding": size // 5, "network": size // 4 - size // 5, "head": 0}
            beyond = {"coverage": 0.1 + 0.05 * number, "novelty": 9.0 + number / 3, "gini": 0.9 - 0.04 * number}
            results.append(ModelResult(name, kind, seed, positions, parts, size, beyond))  # type: ignore[arg-type]
    generator = np.random.default_rng(9)
    masks = {
        name: generator.random(users) < share for name, share in zip(SLICE_NAMES, (0.1, 0.2, 0.4, 0.15), strict=True)
    }
    leaderboard = {
        "dataset": "demo",
        "split": "leave_one_out",
        "part": "test",
        "users": users,
        "cutoffs": [5, 10, 20],
        "baseline": "plain",
        "protocol": {"mask_history": False, "ties": "against", "list_length": 10, "list_users": 20_000},
        "rows": build_leaderboard(results, masks, Protocol(baseline="plain", bootstrap=200)),
    }
    timing = {
        name: {
            "latency_p50_ms": 0.2 + size / 1e7,
            "latency_p99_ms": 0.5 + size / 1e7,
            "train_seconds_per_epoch": 2.5 if kind != "baseline" else None,
        }
        for name, (kind, _, size) in MODELS.items()
    }
    return {**add_timing(leaderboard, timing), **replaced}


def sample_report() -> dict[str, Any]:
    """What ``report.json`` holds, with the facts of the run."""
    return {
        "name": "demo",
        "seeds": [0, 1, 2],
        "versions": {"python": "3.11.0", "torch": "2.13.0"},
        "config": {"name": "demo", "data": "s3://key:secret@bucket/logs", "seeds": [0, 1, 2]},
        "seconds": {"prepare": 3.2, "distill/plain/seed-0": 31.0},
        "curves": {
            name: [_epochs(name, seed) for seed in range(seeds)]
            for name, seeds in (("prm-kd", 3), ("plain", 3), ("unisrec-text", 1))
        },
        "distillation": {
            "prm-kd": _distillation({"unisrec-text": 0.21, "unisrec-trans": 0.04}),
            "average": _distillation({"unisrec-text": 0.0, "unisrec-trans": 0.0}),
        },
        "data": {
            "users": 2000,
            "items": 800,
            "interactions": 20000,
            "training_instances": 14000,
            "item_frequency": {"rank": [1, 2, 5, 10, 50, 200, 800], "count": [900, 500, 250, 120, 30, 8, 1]},
            "sequence_lengths": {
                "start": [1, 2, 3, 4, 5, 6, 8, 10, 15],
                "users": [0, 0, 120, 300, 480, 500, 350, 200, 50],
            },
        },
        "audit": {
            "split": "leave_one_out",
            "leaks": True,
            "test_cases": 2000,
            "findings": [
                {
                    "severity": "leak",
                    "name": "training_after_test",
                    "count": 5120,
                    "share": 0.31,
                    "message": "training interactions lie on days after the first test interaction",
                }
            ],
        },
        "counts": {"steps": {"read": 25000, "duplicates": 120}, "rejected": 7},
    }


def _epochs(name: str, seed: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng([len(name), seed])
    best = 0.07 if name == "prm-kd" else 0.064
    return [
        {
            "epoch": epoch,
            "loss": 7.2 * 0.97**epoch + 0.1 * seed + len(name) / 20,
            "valid_ndcg@10": best * (1 - 0.8**epoch) + 0.001 * generator.random(),
        }
        for epoch in range(1, 31)
    ]


def _distillation(dropped: dict[str, float]) -> dict[str, Any]:
    return {
        "teachers": list(dropped),
        "base_weights": dict.fromkeys(dropped, 0.5),
        "epsilon": 0.3,
        "dropped": dropped,
        "mean_weights": {name: 0.5 - share for name, share in dropped.items()},
        "mean_confidence": dict.fromkeys(dropped, 0.7),
    }

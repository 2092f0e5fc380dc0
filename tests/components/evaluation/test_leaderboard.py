from __future__ import annotations

import json

import numpy as np
import pytest

from components.evaluation.leaderboard import ModelResult, Protocol, add_timing, build_leaderboard, main_metric
from components.evaluation.metrics import mean_metrics
from components.evaluation.significance import holm, paired_test

USERS = 400


def result(name: str, kind: str = "student", seed: int = 0, scale: float = 20.0, **more: object) -> ModelResult:
    positions = np.random.default_rng([seed, len(name)]).geometric(1 / scale, size=USERS)
    return ModelResult(name, kind, seed, positions, {"total": 7}, 100, {"coverage": 0.1 * (seed + 1)}, **more)  # type: ignore[arg-type]


@pytest.fixture
def results() -> list[ModelResult]:
    return [
        result("plain", seed=0),
        result("plain", seed=1),
        result("distilled", seed=0, scale=8.0),
        result("distilled", seed=1, scale=8.0),
        result("kd", scale=19.0),
        result("mostpop", "baseline", scale=90.0),
        result("teacher", "teacher", scale=6.0),
    ]


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    cold = np.zeros(USERS, dtype=bool)
    cold[:40] = True
    return {"cold_items": cold, "short_histories": np.zeros(USERS, dtype=bool)}


def test_rows_are_ordered_and_complete(results: list[ModelResult], masks: dict[str, np.ndarray]) -> None:
    rows = build_leaderboard(results, masks, Protocol(baseline="plain"))
    assert [row["name"] for row in rows] == ["teacher", "distilled", "kd", "plain", "mostpop"]
    keys = ["name", "kind", "seeds", "metrics", "std", "baseline", "p_value", "parameters", "bytes", "latency_ms"]
    for row in rows:
        assert {*keys, "train_seconds_per_epoch"} <= set(row)
        assert len(row["metrics"]) == 9
        low, high = row["interval"]["ndcg@10"]
        assert low < row["metrics"]["ndcg@10"] < high
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_means_and_deviations_are_over_seeds(results: list[ModelResult], masks: dict[str, np.ndarray]) -> None:
    row = {row["name"]: row for row in build_leaderboard(results, masks, Protocol(baseline="plain"))}["plain"]
    seeds = [mean_metrics(found.positions) for found in results[:2]]
    assert row["seeds"] == [0, 1]
    for name in row["metrics"]:
        values = [seed[name] for seed in seeds]
        assert row["metrics"][name] == pytest.approx(np.mean(values))
        assert row["std"][name] == pytest.approx(np.std(values, ddof=1))
    assert row["beyond_accuracy"]["coverage"] == pytest.approx(0.15)
    cold = [mean_metrics(found.positions[:40])["ndcg@10"] for found in results[:2]]
    assert row["slices"]["cold_items"]["ndcg@10"] == pytest.approx(np.mean(cold))
    assert row["slices"]["cold_items"]["users"] == 40
    assert row["slices"]["short_histories"] == {"users": 0}


def test_p_values_are_corrected_within_a_kind(results: list[ModelResult], masks: dict[str, np.ndarray]) -> None:
    rows = {row["name"]: row for row in build_leaderboard(results, masks, Protocol(baseline="plain"))}

    def per_user(name: str) -> np.ndarray:
        hits = [np.where(found.positions <= 10, 1.0, 0.0) for found in results if found.name == name]
        return np.mean(hits, axis=0)

    raw = {name: paired_test(per_user(name), per_user("plain")) for name in ("distilled", "kd")}
    corrected = holm(raw)
    assert rows["distilled"]["p_value"]["recall@10"] == pytest.approx(corrected["distilled"])
    assert rows["kd"]["p_value"]["recall@10"] == pytest.approx(corrected["kd"])
    teacher = paired_test(per_user("teacher"), per_user("plain"))
    assert rows["teacher"]["p_value"]["recall@10"] == pytest.approx(teacher)
    assert rows["distilled"]["p_value"]["ndcg@10"] < 0.001
    assert rows["kd"]["p_value"]["ndcg@10"] > 0.05
    gain = rows["distilled"]["gain"]["ndcg@10"]
    assert gain["interval"][0] < gain["relative"] < gain["interval"][1]


@pytest.mark.parametrize("baseline", [None, "absent"])
def test_without_a_baseline_nothing_is_compared(
    results: list[ModelResult], masks: dict[str, np.ndarray], baseline: str | None
) -> None:
    for row in build_leaderboard(results, masks, Protocol(baseline=baseline)):
        assert row["baseline"] is None
        assert row["p_value"] == row["gain"] == {}


def test_a_model_that_never_hits(masks: dict[str, np.ndarray]) -> None:
    lost = ModelResult("plain", "student", 0, np.full(USERS, 500))
    rows = build_leaderboard([lost, result("kd")], masks, Protocol(baseline="plain"))
    assert rows[0]["gain"]["ndcg@10"] == {"relative": None, "interval": None}
    assert rows[1]["metrics"]["ndcg@10"] == 0.0
    json.dumps(rows, allow_nan=False)


def test_the_order_of_results_does_not_matter(results: list[ModelResult], masks: dict[str, np.ndarray]) -> None:
    protocol = Protocol(baseline="plain", seed=3)
    assert build_leaderboard(results, masks, protocol) == build_leaderboard(results[::-1], masks, protocol)


def test_times_are_added_beside(results: list[ModelResult], masks: dict[str, np.ndarray]) -> None:
    leaderboard = {"rows": build_leaderboard(results, masks, Protocol())}
    times = {"latency_p50_ms": 0.5, "latency_p99_ms": 0.9, "users_per_second": 10.0, "train_seconds_per_epoch": 2.0}
    timed = {row["name"]: row for row in add_timing(leaderboard, {"plain": times})["rows"]}
    assert timed["plain"]["latency_ms"] == {"p50": 0.5, "p99": 0.9}
    assert timed["plain"]["train_seconds_per_epoch"] == 2.0
    assert timed["kd"]["latency_ms"] is None
    assert all(row["latency_ms"] is None for row in leaderboard["rows"])


@pytest.mark.parametrize(("cutoffs", "expected"), [((5, 10, 20), "ndcg@10"), ([1, 3], "ndcg@1")])
def test_main_metric(cutoffs: list[int], expected: str) -> None:
    assert main_metric(cutoffs) == expected

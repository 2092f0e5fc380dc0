from __future__ import annotations

from typing import Any

import pytest

from components.reports.headline import headline


def row(name: str, kind: str, value: float, gain: tuple[float, float] | None = None, total: int = 10) -> dict[str, Any]:
    compared = gain is not None
    return {
        "name": name,
        "kind": kind,
        "metrics": {"ndcg@10": value},
        "baseline": "plain" if compared else None,
        "gain": {"ndcg@10": {"relative": gain[0], "interval": [gain[0] - 0.02, gain[0] + 0.02]}} if gain else {},
        "p_value": {"ndcg@10": gain[1]} if gain else {},
        "parameters": {"total": total},
        "bytes": total * 4,
    }


PLAIN = row("plain", "student", 0.064)


def told(*rows: dict[str, Any]) -> list[str]:
    return headline({"rows": list(rows), "cutoffs": [5, 10]})


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        ((0.103, 0.0001), "kd reaches NDCG@10 0.0706, 10.3% above plain (95 % interval +8.3% to +12.3%, p < 0.001)"),
        ((0.103, 0.2), "p = 0.200, which may be chance)"),
        ((-0.05, 0.01), "5.0% below plain"),
    ],
)
def test_gain(gain: tuple[float, float], expected: str) -> None:
    first = told(row("kd", "student", 0.0706, gain), row("plain", "student", 0.01))[0]
    assert expected in first
    assert first.endswith("at the same number of parameters.")


def test_another_size_is_told() -> None:
    assert "with 5 instead of 10 parameters" in told(row("kd", "student", 0.07, (0.1, 0.0), total=5), PLAIN)[0]


def test_teacher() -> None:
    assert told(PLAIN, row("big", "teacher", 0.08, total=60))[1] == (
        "That is 80% of the best teacher, big (0.0800), in 6.0 times fewer bytes."
    )


def test_weak_students_are_called_weak() -> None:
    assert told(PLAIN, row("markov", "baseline", 0.07))[-1].startswith("Warning: markov")
    assert not any(text.startswith("Warning") for text in told(PLAIN, row("markov", "baseline", 0.02)))


def test_nothing_and_baselines_alone() -> None:
    assert told() == ["Nothing was evaluated."]
    assert told(row("mostpop", "baseline", 0.02)) == ["mostpop reaches NDCG@10 0.0200."]

from __future__ import annotations

import doctest
import json
from pathlib import Path

import numpy as np

from components.reports import facts
from components.reports.facts import MAX_POINTS, distillation_facts, frequency_curve, length_histogram, training_history


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(facts).failed == 0


def test_long_frequency_curves_are_thinned_but_keep_both_ends() -> None:
    counts = np.arange(50_000, 0, -1)
    curve = frequency_curve(counts)
    assert len(curve["rank"]) <= MAX_POINTS
    assert (curve["rank"][0], curve["rank"][-1]) == (1, 50_000)
    assert curve["count"] == [int(counts[rank - 1]) for rank in curve["rank"]]
    assert frequency_curve(np.zeros(3, dtype=int)) == {"rank": [], "count": []}


def test_every_user_is_in_one_bar() -> None:
    lengths = np.random.default_rng(0).integers(1, 3000, size=500)
    histogram = length_histogram(lengths)
    assert sum(histogram["users"]) == 500
    assert histogram["users"][-1] == (lengths >= 1000).sum()
    assert histogram["users"][histogram["start"].index(50)] == ((lengths >= 50) & (lengths < 75)).sum()


def test_histories_are_read_where_they_exist(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "history.json").write_text(json.dumps({"epochs": [{"epoch": 1, "loss": 2.0}]}))
    found = training_history({"plain": [tmp_path / "a", tmp_path / "b"], "mostpop": [tmp_path / "b"]})
    assert found == {"plain": [[{"epoch": 1, "loss": 2.0}]]}


def test_distillation_is_averaged_over_seeds(tmp_path: Path) -> None:
    for name, share, epsilon in (("a", 0.1, 0.2), ("b", 0.3, None)):
        (tmp_path / name).mkdir()
        content = {"teachers": ["t"], "epsilon": epsilon, "dropped": {"t": share}, "instances": 10}
        (tmp_path / name / "distillation.json").write_text(json.dumps(content))
    found = distillation_facts({"kd": [tmp_path / "a", tmp_path / "b"], "plain": [tmp_path]})
    assert found == {"kd": {"teachers": ["t"], "epsilon": 0.2, "dropped": {"t": 0.2}, "instances": 10.0}}

from __future__ import annotations

import doctest
import io
import re

import pytest
from rich.console import Console

from components.reports import tables
from components.reports.tables import print_leaderboard
from tests.components.reports.sample import MODELS, sample_leaderboard


def printed(leaderboard: dict, width: int = 160, color: bool = False) -> str:  # type: ignore[type-arg]
    out = io.StringIO()
    print_leaderboard(
        leaderboard, Console(file=out, width=width, force_terminal=color, color_system="standard" if color else None)
    )
    return out.getvalue()


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(tables).failed == 0


def test_every_row_with_gain_and_stars() -> None:
    leaderboard = sample_leaderboard()
    text = printed(leaderboard)
    for name in MODELS:
        assert name in text
    gain = leaderboard["rows"][0]["gain"]["ndcg@10"]["relative"]
    assert f"{100 * gain:+.1f} % ***" in text
    assert "vs plain" in text
    assert "leave_one_out" in text


def test_the_best_is_bold() -> None:
    text = printed(sample_leaderboard(), color=True)
    bold = [line for line in text.splitlines() if re.search(r"\x1b\[1m +0\.|\x1b\[1m0\.", line)]
    assert len(bold) == 1
    assert sample_leaderboard()["rows"][0]["name"] in bold[0]


@pytest.mark.parametrize(
    ("width", "present", "absent"), [(160, "s/epoch", ""), (100, "size", "MRR@10"), (60, "NDCG@10", "parameters")]
)
def test_narrow_terminals_get_fewer_columns(width: int, present: str, absent: str) -> None:
    text = printed(sample_leaderboard(300), width)
    assert present in text
    assert not absent or absent not in text
    assert max(map(len, text.splitlines())) <= width


def test_names_are_no_markup() -> None:
    leaderboard = sample_leaderboard(300)
    leaderboard["rows"][0]["name"] = "[red]x[/red]"
    leaderboard["dataset"] = "[bold]d[/oops]"
    text = printed(leaderboard)
    assert "[red]x[/red]" in text
    assert "[bold]d[/oops]" in text


def test_a_bare_leaderboard_prints() -> None:
    row = {"name": "plain", "kind": "student", "seeds": [0], "metrics": {}, "std": {}, "parameters": {}, "bytes": 0}
    row["metrics"] = {f"{name}@3": 0.5 for name in ("recall", "ndcg", "mrr")}
    text = printed({"cutoffs": [3], "rows": [row]})
    assert "NDCG@3" in text
    assert "0.5000" in text
    printed({"cutoffs": [10], "rows": []})

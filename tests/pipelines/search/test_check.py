"""Mistakes in the section `search` are told with their key before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError
from pipelines.graph import build_graph
from tests.pipelines.run_configs import FULL, PLAIN_RUN, make_config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trial=3", r"search\.trial: unknown key; valid keys: .*did you mean 'trials'"),
        ("search.spaces=[compresion]", r"search\.spaces\.0: unknown search space 'compresion'; .*'compression'"),
        (
            "search.spaces=[distillation]",
            r"distillation searches distillation\.\w+: the run has no teachers",
        ),
        ("search.space={student.dims: [8]}", r"search\.space\.student\.dims: unknown key.*did you mean 'dim'"),
        ("search.space={student.compression.factr: [8]}", r"unknown key.*did you mean 'factor'"),
        ("search.space={dim: [8]}", r"search\.space\.dim: expected a key of student, training or distillation"),
        ("search.space={student.dim: {uniform: [3, 1]}}", r"uniform: expected \[lowest, highest\], got \[3, 1\]"),
        ("search.space={student.dim: {uniform: [16, 64]}}", r"student\.dim: takes whole numbers; use integers"),
        ("search.spaces=[]", r"search: nothing is searched: name spaces \(compression, "),
        ("search.max_bytes=0", r"search\.max_bytes: expected a value greater than 0, got 0"),
        ("student.kind=markov", "markov only counts and has nothing to search"),
    ],
)
def test_a_mistake_is_told_with_its_key(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, {**PLAIN_RUN, "search": {}}, override)


def test_the_winner_is_trained_with_every_seed_and_ranked(tmp_path: Path) -> None:
    graph = {node.name: node for node in build_graph(make_config(tmp_path, {**FULL, "search": {}}))}
    assert graph["search"].inputs == ("prepare", "annotate")
    assert graph["distill/searched/seed-1"].inputs == ("search", "annotate")
    assert "distill/searched/seed-0" in graph["evaluate"].inputs
    plain = {node.name: node for node in build_graph(make_config(tmp_path, {**PLAIN_RUN, "search": {}}))}
    assert plain["search"].inputs == ("prepare",)
    parallel = make_config(tmp_path, {**PLAIN_RUN, "search": {"max_parallel": 7}})
    assert {node.name: node for node in build_graph(parallel)}["search"].part == plain["search"].part
    other = make_config(tmp_path, {**PLAIN_RUN, "search": {"max_bytes": 7}})
    assert {node.name: node for node in build_graph(other)}["search"].part != plain["search"].part

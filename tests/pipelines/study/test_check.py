"""Mistakes in the section `study` are told with their key before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import ConfigError
from tests.pipelines.study.tiny_study import tiny_config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.seed=1", r"study\.seed: unknown key; valid keys: .*did you mean 'seeds'"),
        ("study.seeds=[1, 1]", r"study\.seeds: a seed is there twice: \[1, 1\]"),
        ("study.seeds=[]", r"study\.seeds: "),
        ("study.paper=movies", r"study\.paper: expected 'instruments', .*got 'movies'"),
        ("study.students.fm.kind=fmm", r"study\.students\.fm\.kind: unknown student 'fmm'; .*did you mean 'fm'"),
        ("study.students.fm.dim=0", r"study\.students\.fm\.dim: expected a value greater than or equal to 1, got 0"),
        ("study.students.fm.kind=markov", r"markov only counts and cannot be distilled; set `distilled: false`"),
        (
            "study.students.fm.training.epoch=2",
            r"study\.students\.fm\.training\.epoch: unknown key; .*did you mean 'epochs'",
        ),
        ("study.students.fm.distillation.temperature=0", r"distillation\.temperature: expected a value greater than 0"),
        (
            "study.students.fm.distillation.teachers=[txt]",
            r"study\.students\.fm\.distillation\.teachers\.0: unknown teacher of this run 'txt'; .*did you mean 'text'",
        ),
        (
            "study.baselines=[gru4re]",
            r"study\.baselines\.0: unknown baseline 'gru4re'; known: .*did you mean 'gru4rec'",
        ),
        ("study.sweeps.temperature=[0]", r"study\.sweeps\.temperature\.0: expected a value greater than 0, got 0"),
        ("study.sweeps.weight=[-1]", r"study\.sweeps\.weight\.0: expected a value greater than or equal to 0, got -1"),
        ("study.sweeps.dim=[7]", r"study\.sweeps\.dim\.0: expected a multiple of student\.num_heads \(2\), got 7"),
        ("study.sweeps.dim=[0]", r"study\.sweeps\.dim\.0: expected a value greater than 0, got 0"),
        (
            "study.cprec.students={rnn: {kind: gru4rec, distillation: {weight: 2}}}",
            r"study\.cprec\.students\.rnn\.distillation: the study of CpRec has no teachers; remove it",
        ),
        (
            "study.cprec.students={rnn: {kind: gru4rec, hidden: 3}}",
            r"study\.cprec\.students\.rnn\.hidden: unknown key; .*did you mean 'hidden_dim'",
        ),
        (
            "study.cprec.students={rnn: {kind: gru4re}}",
            r"study\.cprec\.students\.rnn\.kind: unknown student 'gru4re'; .*did you mean 'gru4rec'",
        ),
        ("study.cost.rounds=0", r"study\.cost\.rounds: expected a value greater than or equal to 1, got 0"),
    ],
)
def test_a_mistake_is_told_with_its_key(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(tmp_path, override)

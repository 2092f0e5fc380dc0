"""What inference costs: fresh processes in turn, measured again only when a model changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipelines.study.cost
from components.training.loop import World
from pipelines.study.config import CostConfig
from pipelines.study.cost import measure_once, measured_rounds
from pipelines.study.trials import trial_folder
from tests.pipelines.study.test_trials import Watching, config, find, work

__all__ = ["config"]  # the fixture
FIGURES = {"users_per_second": 10.0, "peak_mb": 1.0, "model_mb": 1.0}


class Silent:
    """A progress that shows nothing."""

    def start(self, total: int | None, unit: str) -> None: ...

    def advance(self, n: int = 1, **shown: float | str) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the artifacts that were measured, in order; `broken` fails."""
    names: list[str] = []

    def measure(artifact: Path, prepared: Path, users: int) -> dict[str, float] | str:
        names.append(artifact.name)
        return "out of memory" if artifact.name == "broken" else FIGURES

    monkeypatch.setattr(pipelines.study.cost, "measure_once", measure)
    return names


def measure(
    folder: Path, models: dict[str, str], rounds: int = 2
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    found = {name: (Path(name), digest) for name, digest in models.items()}
    return measured_rounds(found, folder, CostConfig(rounds=rounds), folder / "rounds.json", Silent())


def test_models_take_turns(asked: list[str], tmp_path: Path) -> None:
    rounds, failures = measure(tmp_path, {"a": "1", "b": "1"})
    assert asked == ["a", "b", "a", "b"]
    assert rounds == {"a": [FIGURES] * 2, "b": [FIGURES] * 2}
    assert failures == {}


def test_what_is_known_is_measured_again_only_when_a_model_changed(asked: list[str], tmp_path: Path) -> None:
    first = measure(tmp_path, {"a": "1", "b": "1"})
    assert measure(tmp_path, {"a": "1", "b": "1"}) == first
    assert len(asked) == 4
    measure(tmp_path, {"a": "1", "b": "2"})
    assert len(asked) == 8  # all of them: rounds are compared with each other
    measure(tmp_path, {"a": "1", "b": "2"}, rounds=3)
    assert len(asked) == 14


def test_a_model_that_fails_is_left_out_and_tried_again_by_the_next_start(asked: list[str], tmp_path: Path) -> None:
    rounds, failures = measure(tmp_path, {"broken": "1", "b": "1"})
    assert asked == ["broken", "b", "b"]
    assert failures == {"broken": "out of memory"}
    assert list(rounds) == ["b"]
    measure(tmp_path, {"broken": "1", "b": "1"})
    assert asked.count("broken") == 2


def test_a_fresh_process_measures_an_artifact(config, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert work(config, "mostpop").attempt(World(), Watching()) == ""
    artifact = trial_folder(config.folder.absolute(), find(config, "mostpop"))
    figures = measure_once(artifact, config.folder.absolute() / "prepare", 20)
    assert isinstance(figures, dict)
    assert figures["users_per_second"] > 0
    assert figures["peak_mb"] > 50
    assert figures["parameters"] >= 0
    assert 0 <= figures["model_mb"] < figures["peak_mb"]


def test_a_process_that_fails_leaves_its_last_words(tmp_path: Path) -> None:
    assert "no-such-folder" in str(measure_once(tmp_path, tmp_path / "no-such-folder", 20))

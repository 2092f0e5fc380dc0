from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from components.errors import ArtifactError, UserError
from serve.release.controller import LOADING_S, Controller
from serve.release.figures import Figures
from serve.release.line import RELEASE_FILE, Line, Release, Report, begin
from serve.release.policy import Policy
from tests.serve.release.test_gate import figures, tally
from tests.serve.release.worlds import make_line

POLICY = Policy(shares=(0.1, 0.5), step_seconds=10, watch_seconds=20, min_comparisons=50, max_wait_seconds=60)


class World:
    """A line whose second version is on trial, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.line, self.now = make_line(folder, versions=2), 1000.0
        self.controller = Controller(self.line, lambda: self.now)
        self.first = begin(self.line, "v0002", POLICY, self.now)

    @property
    def release(self) -> Release:
        release = self.line.release()
        assert release is not None
        return release

    def outcome(self) -> str | None:
        return self.release.outcome

    def measure(self, found: Figures, *replicas: str, failure: str = "", step: int | None = None) -> None:
        for replica in replicas or ("a",):
            self.line.report(
                Report(
                    replica=replica,
                    time=self.now,
                    serving="v0001",
                    release=self.first.id,
                    step=self.release.step if step is None else step,
                    figures=found,
                    failure=failure,
                )
            )

    def pass_time(self, seconds: float, found: Figures | None = None) -> None:
        self.now += seconds
        self.measure(found or figures())
        self.controller.tick()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_good_candidate_goes_all_the_way(world: World) -> None:
    seen = [(world.release.step_name, world.line.current())]
    while world.release.outcome is None:
        world.pass_time(10)
        if (world.release.step_name, world.line.current()) != seen[-1]:
            seen.append((world.release.step_name, world.line.current()))
    assert seen == [
        ("shadow", "v0001"),
        ("canary, 10% of the traffic", "v0001"),
        ("canary, 50% of the traffic", "v0001"),
        ("all traffic, watched", "v0002"),
    ]
    assert world.release.outcome == "released"
    assert world.now == 1050.0  # three steps of 10 s, 20 s of watching
    assert [entry["event"] for entry in world.line.history()] == [
        "shadow",
        "canary, 10% of the traffic",
        "canary, 50% of the traffic",
        "all traffic, watched",
        "released",
    ]


@pytest.mark.parametrize(("steps", "outcome"), [(0, "rejected"), (1, "rolled back"), (2, "rolled back")])
def test_a_failure_ends_it_at_any_step(world: World, steps: int, outcome: str) -> None:
    for _ in range(steps):
        world.pass_time(10)
    world.pass_time(0.5, figures(live=tally(100, errors=50)))
    assert world.release.outcome == outcome
    assert "50 of 100 live requests failed" in world.release.reason
    assert world.line.current() == "v0001"
    assert world.line.history()[-1]["reason"] == world.release.reason


def test_a_failure_after_full_release_brings_the_incumbent_back(world: World) -> None:
    for _ in range(3):
        world.pass_time(10)
    assert world.line.current() == "v0002"
    world.pass_time(1, figures(live=tally(100, errors=50)))
    assert (world.release.outcome, world.line.current()) == ("rolled back", "v0001")


def test_a_candidate_that_does_not_load_is_rejected(world: World) -> None:
    world.measure(Figures(), failure="it does not load: model.safetensors is damaged")
    world.controller.tick()
    assert world.release.outcome == "rejected"
    assert "model.safetensors is damaged" in world.release.reason


def test_a_step_takes_its_time_and_its_comparisons(world: World) -> None:
    world.pass_time(9.9)
    assert world.release.step == 0
    world.pass_time(0.2, figures(comparisons=49, overlap=45.0))
    assert world.release.step == 0
    world.pass_time(0.1)
    assert world.release.step == 1


def test_without_traffic_nothing_is_decided_but_the_end(world: World) -> None:
    world.pass_time(59, Figures())
    assert world.outcome() is None
    world.pass_time(2, Figures())
    assert world.outcome() == "rejected"
    assert "0 recorded requests in 61 s, too few to judge (wanted: 50)" in world.release.reason


def test_figures_of_another_step_do_not_count(world: World) -> None:
    world.pass_time(10)
    assert world.release.step == 1
    world.now += 10
    world.measure(figures(live=tally(100, errors=50)), step=0)
    world.controller.tick()
    assert (world.release.step, world.release.outcome) == (1, None)


def test_all_replicas_must_be_there(world: World) -> None:
    world.now += 10
    world.measure(figures(), "a")
    world.measure(figures(), "b", step=-1)
    world.controller.tick()
    assert world.release.step == 0
    world.measure(figures(), "b")
    world.controller.tick()
    assert world.release.step == 1


def test_replicas_that_never_load_it_end_it(world: World) -> None:
    world.now += LOADING_S + 1
    world.measure(Figures(), "a", step=-1)
    world.controller.tick()
    assert "0 of 1 replicas loaded it" in world.release.reason


def test_replicas_that_are_gone_do_not_count(world: World) -> None:
    world.measure(figures(live=tally(100, errors=50)))
    world.now += 60
    world.controller.tick()
    assert world.release.outcome is None


def test_one_lost_replica_may_be_chance_two_are_not(world: World) -> None:
    """A candidate that ends its process reports no error."""
    world.measure(figures(), "a", "b")
    world.now += 10
    world.measure(figures(), "b", "c")
    world.controller.tick()
    assert world.outcome() is None
    world.now += 10
    world.measure(figures(), "c", "d")
    world.controller.tick()
    assert world.outcome() == "rolled back"
    assert "2 replicas ended while they had it" in world.release.reason


def test_a_release_goes_on_with_the_next_endpoint(world: World) -> None:
    """However long there was none: the step begins anew, and replicas have time to load."""
    world.pass_time(10)
    assert world.release.step == 1
    world.now += 3600
    world.line.forget_replicas()
    world.controller = Controller(world.line, lambda: world.now)
    world.now += 1
    world.controller.tick()
    assert world.outcome() is None
    world.pass_time(5, figures(comparisons=10, overlap=9.0))
    assert (world.release.step, world.outcome()) == (1, None)
    world.pass_time(10)
    assert world.release.step == 2


def test_a_controller_lives_through_what_it_does_not_expect(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever decides no more would take no bad candidate back."""
    failed = threading.Event()

    def broken(now: float | None = None) -> list[Report]:
        failed.set()
        raise OSError(5, "Input/output error")

    world.measure(figures(live=tally(100, errors=50)))
    with monkeypatch.context() as patched:
        patched.setattr(world.line, "reports", broken)
        world.controller.start()
        assert failed.wait(30)
    end = time.monotonic() + 30
    while world.outcome() is None:
        assert time.monotonic() < end, "it decides no more"
        threading.Event().wait(0.02)
    world.controller.stop()
    assert world.outcome() == "rejected"


def test_one_release_at_a_time(world: World) -> None:
    with pytest.raises(UserError, match="release of v0002 is under way"):
        begin(world.line, "v0002", POLICY, world.now)


def test_what_serves_is_not_released_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="v0001 serves already"):
        begin(make_line(tmp_path), "v0001", POLICY, 0.0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    line = make_line(tmp_path)
    (line.folder / RELEASE_FILE).write_text("{")
    with pytest.raises(ArtifactError, match=r"release\.json: not readable"):
        Line(line.folder).release()


def test_a_line_of_history_that_was_cut_is_left_out(tmp_path: Path) -> None:
    line = make_line(tmp_path)
    line.log("v0001", "released", "first")
    with (line.folder / "releases.jsonl").open("a") as file:
        file.write('{"time": 1, "ver')
    assert [entry["event"] for entry in line.history()] == ["released"]

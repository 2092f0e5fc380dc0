from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import ArtifactError
from components.recommender import Query, Recommender
from components.schema import MODEL_FILE
from serve.loading import load
from serve.release.controller import Controller
from serve.release.follower import Follower
from serve.release.line import LOADING, Line, Release, begin
from serve.release.policy import Policy
from tests.serve.release.worlds import make_line, walk
from tests.tiny_artifact import write_artifact

POLICY = Policy(shares=(0.5,), step_seconds=0, watch_seconds=0, min_comparisons=5, min_overlap=0, min_quality_ratio=0)
QUICK = POLICY.model_copy(update={"max_latency_ratio": 1000.0, "deadline_seconds": 30.0})


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return make_line(tmp_path, versions=3)


def follow(line: Line) -> Follower:
    return Follower(line, "a", load)


def current(line: Line) -> Release:
    release = line.release()
    assert release is not None
    return release


@pytest.fixture
def trying(line: Line) -> Iterator[Follower]:
    follower = follow(line)
    begin(line, "v0002", QUICK, time.time())
    follower.sync()
    yield follower
    follower.stop()


def test_a_replica_serves_what_the_line_names(line: Line) -> None:
    follower = follow(line)
    assert follower.models.pick("x").version == "v0001"
    line.registry.promote(line.name, "v0003")
    follower.sync()
    assert [served.version for served in follower.models.loaded] == ["v0003", "v0001"]
    line.registry.promote(line.name, "v0001")
    before = follower.models.named("v0001")
    follower.sync()
    assert follower.models.pick("x") is before  # it was kept: going back loads nothing


def test_in_the_shadow_nobody_meets_the_candidate(trying: Follower) -> None:
    assert trying.models.candidate is not None
    assert {trying.models.pick(str(number)).version for number in range(100)} == {"v0001"}
    assert trying.models.named("v0002") is trying.models.candidate


def test_the_canary_follows(trying: Follower) -> None:
    line = trying.line
    line.write_release(current(line).model_copy(update={"step": 1}))
    shadow = trying.trial
    trying.sync()
    assert trying.models.share == 0.5
    assert trying.trial is not shadow  # what was measured before is not counted again


def test_a_release_that_ends_leaves_one_model(trying: Follower) -> None:
    line = trying.line
    line.write_release(current(line).model_copy(update={"outcome": "rejected", "reason": "slow"}))
    trying.sync()
    assert (trying.models.pick("x").version, trying.models.candidate, trying.trial) == ("v0001", None, None)


def test_a_candidate_that_is_damaged_is_reported(line: Line) -> None:
    follower = follow(line)
    begin(line, "v0002", QUICK, time.time())
    (line.path("v0002") / MODEL_FILE).write_bytes(b"nothing")
    follower.sync()
    follower.report()
    assert follower.models.candidate is None
    assert MODEL_FILE in line.reports()[0].failure
    Controller(line).tick()
    assert current(line).outcome == "rejected"
    follower.sync()
    assert follower.models.pick("x").version == "v0001"


def test_what_serves_goes_on_where_the_next_one_is_damaged(line: Line) -> None:
    follower = follow(line)
    line.registry.promote(line.name, "v0002")
    (line.path("v0002") / MODEL_FILE).write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=MODEL_FILE):
        follower.sync()
    assert follower.models.pick("x").version == "v0001"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyError("tensor"), OSError(28, "No space left")])
def test_a_candidate_that_fails_in_an_unknown_way_costs_no_follower(line: Line, error: Exception) -> None:
    def loading(folder: Path) -> Recommender:
        if folder.name == "v0002":
            raise error
        return load(folder)

    follower = Follower(line, "a", loading)
    begin(line, "v0002", QUICK, time.time())
    follower.sync()
    follower.report()
    assert "it does not load" in line.reports()[0].failure
    Controller(line).tick()
    assert current(line).outcome == "rejected"


def test_a_follower_lives_through_what_it_does_not_expect(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows no more would not hear of a rollback."""
    failed = threading.Event()

    def broken() -> str:
        failed.set()
        raise OSError(5, "Input/output error")

    follower = follow(line)
    with monkeypatch.context() as patched:
        patched.setattr(line, "current", broken)
        follower.start()
        assert failed.wait(30)
    try:
        line.registry.promote(line.name, "v0003")
        end = time.monotonic() + 30
        while follower.models.pick("x").version != "v0003":
            assert time.monotonic() < end, "it follows no more"
            threading.Event().wait(0.02)
    finally:
        follower.stop()


def test_a_version_whose_number_is_given_again_is_loaded_again(line: Line, tmp_path: Path) -> None:
    """Where the folder of the latest version is deleted, the next release gets its number."""
    follower = follow(line)
    line.registry.promote(line.name, "v0003")
    follower.sync()
    line.registry.promote(line.name, "v0001")
    follower.sync()
    before = follower.models.named("v0003")
    shutil.rmtree(line.path("v0003"))
    line.registry.put(line.name, write_artifact(tmp_path / "other", seed=7), promote=True)
    follower.sync()
    serving = follower.models.pick("x")
    assert (serving.version, serving is before) == ("v0003", False)
    assert serving.recommender.manifest["seeds"] == [7]


def test_who_loads_a_candidate_is_not_ready_and_not_lost(line: Line) -> None:
    follower, reports = follow(line), []

    def slow(folder: Path) -> Recommender:
        reports.extend(line.reports())
        return load(folder)

    follower._load = slow
    release = begin(line, "v0002", QUICK, time.time())
    follower.sync()
    assert [(report.release, report.step) for report in reports] == [(release.id, LOADING)]
    assert line.lost(time.time() + 600) == []
    follower.report()
    assert [report.step for report in line.reports()] == [0]
    assert len(line.lost(time.time() + 600)) == 1
    follower.stop()


def test_going_to_a_third_version_takes_the_candidate_off_first(trying: Follower) -> None:
    line, met = trying.line, []

    def loading(folder: Path) -> Recommender:
        met.append({trying.models.pick(str(number)).version for number in range(50)})
        return load(folder)

    line.write_release(current(line).model_copy(update={"step": 1}))
    trying.sync()
    assert {trying.models.pick(str(number)).version for number in range(50)} == {"v0001", "v0002"}
    trying._load = loading
    line.write_release(current(line).model_copy(update={"outcome": "aborted", "reason": "by hand"}))
    line.registry.promote(line.name, "v0003")
    trying.sync()
    assert met == [{"v0001"}]
    assert trying.models.pick("x").version == "v0003"


def test_a_replica_that_starts_in_the_middle_joins(line: Line) -> None:
    begin(line, "v0002", QUICK, time.time())
    line.registry.promote(line.name, "v0002")
    line.write_release(current(line).model_copy(update={"step": 2}))
    follower = follow(line)
    assert follower.models.pick("x").version == "v0001"  # until the candidate is loaded
    follower.sync()
    assert follower.models.pick("x").version == "v0002"
    follower.stop()


def test_two_replicas_and_a_controller_release_a_model(line: Line) -> None:
    followers = [Follower(line, name, load).start() for name in "ab"]
    controller = Controller(line)
    controller.start()
    try:
        for follower in followers:
            for number in range(60):
                follower.recorder.add(walk(number))
        with line.locked():
            begin(line, "v0002", QUICK, time.time())
        end = time.monotonic() + 60
        while current(line).outcome is None and time.monotonic() < end:
            for follower in followers:  # a model is there at any moment
                model = follower.models.pick("x")
                assert model.recommender.answer([Query(["id-1"], k=1)])[0].items
                follower.recorder.add(walk(int(time.monotonic() * 1000) % 60))
        assert (current(line).outcome, line.current()) == ("released", "v0002")
        while any(f.models.pick("x").version != "v0002" or f.models.candidate for f in followers):
            assert time.monotonic() < end
    finally:
        controller.stop()
        for follower in followers:
            follower.stop()


def test_a_loaded_model_is_known_to_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = make_line(tmp_path)
    monkeypatch.setattr(Recommender, "answer", lambda self, queries: [type("Nothing", (), {"items": []})()])
    with pytest.raises(ArtifactError, match="ranks nothing"):
        load(line.path("v0001"))

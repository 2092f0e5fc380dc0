"""The arithmetic of the contest, its documents, and a small contest of real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.environments import OURS
from benchmarks.peers.contest import (
    Contender,
    ContenderError,
    Result,
    Worker,
    compare,
    compete,
    document,
    machine,
    rates,
    ratio,
    spread,
)
from benchmarks.peers.table import number, show, spread_text

SIZES = {
    "dim": 8,
    "layers": 1,
    "heads": 1,
    "inner": 8,
    "dropout": 0.1,
    "batch": 4,
    "length": 10,
    "seed": 0,
    "evaluation_batch": 8,
    "core": None,
}


def made_round(units: float, cpu: float, wall: float, peak: float = 100.0, work: float = 50.0) -> dict[str, Any]:
    return {"units": units, "cpu_s": cpu, "wall_s": wall, "peak_mb": peak, "work_peak_mb": work}


def made_result(name: str, rounds: list[dict[str, Any]], against: str | None = None) -> Result:
    return Result(Contender(name, "-", OURS, {}, 1, against), rounds=rounds)


def test_rates_use_the_chosen_clock() -> None:
    rounds = [made_round(100, cpu=2.0, wall=4.0), made_round(90, cpu=3.0, wall=9.0)]
    assert rates(rounds) == [50.0, 30.0]
    assert rates(rounds, "wall_s") == [25.0, 10.0]


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that was slow in round 2 for both does not change that round's ratio."""
    assert ratio([10.0, 1.0, 12.0], [5.0, 0.5, 2.0]) == {"min": 2.0, "median": 2.0, "max": 6.0}
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratio([1.0, 2.0], [1.0])


def test_spread_of_an_even_number_of_rounds() -> None:
    assert spread([4.0, 1.0, 2.0, 3.0]) == {"min": 1.0, "median": 2.5, "max": 4.0}


def test_compare_pairs_each_peer_with_its_own_side_and_skips_failures() -> None:
    ours_a = made_result("a", [made_round(100, 1.0, 1.0, peak=200, work=80)])
    ours_b = made_result("b", [made_round(300, 1.0, 1.0)])
    peer_a = made_result("x", [made_round(50, 1.0, 1.0, peak=400, work=320)], against="a")
    peer_b = made_result("y", [made_round(60, 1.0, 1.0)], against="b")
    broken = made_result("z", [], against="a")
    broken.failure = "it ended"
    compared = compare([ours_a, ours_b, peer_a, peer_b, broken])
    assert set(compared) == {"x", "y"}
    assert compared["x"]["rate"]["median"] == 2.0
    assert compared["x"]["peak_memory"] == 0.5
    assert compared["x"]["work_peak_memory"] == 0.25
    assert compared["y"]["against"] == "b"
    assert compared["y"]["rate"]["median"] == 5.0


def test_peaks_are_the_highest_of_all_rounds() -> None:
    result = made_result("a", [made_round(1, 1, 1, peak=5, work=1), made_round(1, 1, 1, peak=7, work=3)])
    assert (result.peak_mb, result.work_peak_mb) == (7.0, 3.0)


def test_document_is_json_states_the_machine_and_names_the_clock(capsys: pytest.CaptureFixture[str]) -> None:
    broken = made_result("z", [], against="a")
    broken.failure = "z ended; its log ends in: no module"
    results = [made_result("a", [made_round(10, 1, 2)]), made_result("x", [made_round(5, 1, 2)], "a"), broken]
    measured = json.loads(json.dumps(document("some_speed", {"length": 50}, results, clock="wall_s"), allow_nan=False))
    assert measured["unit"] == "targets per wall-second"
    assert measured["contenders"]["x"]["rate"]["median"] == 2.5
    assert measured["contenders"]["z"]["failure"].startswith("z ended")
    assert measured["contenders"]["z"]["rate"] is None
    assert measured["machine"]["cores"] == machine()["cores"]
    show(measured, "title")
    printed = capsys.readouterr().out
    assert "no module" in printed
    assert "failed" in printed


def test_figures_are_readable() -> None:
    assert [number(value) for value in (33712.4, 3.456, 0.71234)] == ["33,712", "3.46", "0.712"]
    assert spread_text({"min": 1.0, "median": 2.0, "max": 3000.0}) == "2.00 (1.00 to 3,000)"
    assert spread_text(None) == "-"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve users with eight items each."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    generator = np.random.default_rng(0)
    np.savez(path, items=generator.integers(1, 21, size=96), offsets=np.arange(0, 97, 8))
    return path


def test_contest_of_real_processes(tiny: Path, tmp_path: Path) -> None:
    """Rounds are answered with exact counts; a contender that breaks is left out and its log is quoted."""
    options = {**SIZES, "task": "train", "data": str(tiny)}
    sides = [
        Contender("ours", "distilrec", OURS, options, steps=3),
        Contender("wrong task", "distilrec", OURS, {**options, "task": "sing"}, steps=3, against="ours"),
        Contender("two", "data_parallel", OURS, {**options, "workers": 2, "cores": [None, None]}, 3, against="ours"),
    ]
    ours, wrong, two = compete(sides, rounds=2, log_folder=tmp_path)
    assert wrong.failure is not None
    assert "sing" in wrong.failure
    # An epoch is 12 users in 3 batches; each user has 6 training items and so 5 targets. The warm-up took 2 steps.
    assert [each["units"] for each in ours.rounds] == [60, 60]
    assert [each["units"] for each in two.rounds] == [60, 60]
    assert all(each["steps"] == 3 and each["cpu_s"] > 0 for each in ours.rounds)
    assert 0 < ours.work_peak_mb <= ours.peak_mb
    assert ours.rounds[0]["value"] == pytest.approx(np.log(20), rel=0.2)  # an untrained softmax over 20 items
    assert set(compare([ours, wrong, two])) == {"two"}


def test_a_worker_that_is_killed_is_named_with_the_signal_and_can_be_closed(tiny: Path, tmp_path: Path) -> None:
    worker = Worker(Contender("ours", "distilrec", OURS, {**SIZES, "task": "train", "data": str(tiny)}, 1), tmp_path)
    worker._process.send_signal(signal.SIGTERM)
    with pytest.raises(ContenderError, match=r"ours was killed by signal 15; its log .*ours\.log"):
        worker.round(1)
    worker._stream(worker._process.stdin).write("unsent")
    worker.close()

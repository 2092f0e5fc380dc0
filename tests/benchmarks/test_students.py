"""The comparison of all students: who meets whom in which sizes, and quality by the lists of real processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import student_quality, student_speed, students
from benchmarks.environments import OURS, PEERS
from benchmarks.peers.contest import Contender, Worker
from benchmarks.peers.dataset import NeutralSet, list_positions, read_neutral
from benchmarks.peers.distilrec import build, sequences_of
from benchmarks.peers.matches import NAMES, QUALITY, SEQUENCES, SPEED, Match, check_titles, tables
from benchmarks.student_quality import Side, attempt, rows, sides_of
from benchmarks.student_speed import SIZES, arguments_of, contenders, ours_name, rows_of, targets_per_batch
from components.evaluation.ranking import target_positions, top_lists
from components.students import STUDENTS

NEUTRAL = NeutralSet(np.arange(1, 31) % 10 + 1, np.array([0, 10, 20, 30]))


def title(text: str) -> list[Match]:
    (found,) = tables(SPEED, [text], list(NAMES))
    return found


@pytest.mark.parametrize("match", [*SPEED, *QUALITY], ids=lambda match: f"{match.title}-{match.peer}")
def test_every_match_builds_its_student_and_names_a_peer(match: Match) -> None:
    model = build({"student": match.student, "arguments": arguments_of(match)}, NEUTRAL, sequences_of(NEUTRAL))
    assert model.num_items == 10
    assert match.peer in PEERS
    assert match.peer in NAMES
    assert "model" in match.theirs
    json.dumps(match.theirs)


def test_every_student_that_a_peer_has_is_compared() -> None:
    assert {match.student for match in SPEED} == set(STUDENTS) - {"recguru", "markov"}


def test_losses_that_both_have_are_compared_with_equal_numbers_of_negatives() -> None:
    for match in SPEED:
        wanted = match.theirs.get("n_negatives", match.theirs.get("negatives"))
        if wanted is not None:
            assert arguments_of(match)["num_negatives"] == wanted
    (match,) = title("SASRec, BCE, 1 negative")
    assert (arguments_of(match)["num_negatives"], arguments_of(match)["shared_negatives"]) == (1, False)


def test_batches_are_equal_in_targets_where_a_peer_has_one_per_row() -> None:
    # Three users with seven targets each fill a batch of 128 sequences with 7 x 128 on average.
    assert targets_per_batch(NEUTRAL) == 7 * SEQUENCES
    rows_by_peer = {match.peer: rows_of(match, 896) for match in title("SASRec, softmax")}
    assert rows_by_peer == {"rectools": 128, "replay": 128, "recbole": 896, "warprec": 896}
    (fm,) = tables(SPEED, ["fm, bce"], list(NAMES))[0]
    assert rows_of(fm, 896) == 2 * 896, "a positive and a negative are a row each"
    assert rows_of(QUALITY[1], 896) == 2048


def test_each_peer_meets_our_student_in_its_own_layout() -> None:
    sides = {side.name: side for side in contenders(title("SASRec, softmax"), SIZES, NEUTRAL, None, 5.0)}
    assert sides[str(sides["RecTools"].against)].options["arguments"]["norm"] == "pre"
    assert sides[str(sides["RecBole"].against)].options["arguments"]["norm"] == "post"
    assert sides["RecBole"].seconds == 5.0
    assert sides["distilrec, norm pre"].steps == 1  # an epoch of three users
    (alone,) = title("gru4rec")
    assert ours_name(alone, [alone]) == "distilrec"


def test_models_that_count_are_fitted_whole() -> None:
    ours, theirs = contenders(title("item-KNN"), SIZES, NEUTRAL, 9, 5.0)
    assert [side.options["task"] for side in (ours, theirs)] == ["fit", "fit"]
    assert (ours.steps, theirs.steps, theirs.seconds) == (1, 1, None)


def test_tables_are_chosen_by_a_part_of_their_title_and_by_peer() -> None:
    assert [found[0].title for found in tables(SPEED, ["GRU4", "caser"], ["recbole"])] == [
        "GRU4Rec, softmax",
        "Caser, softmax, windows of 5",
    ]
    assert tables(SPEED, ["gru4"], ["replay"]) == []
    with pytest.raises(ValueError, match=r"no table 'gpt'; expected a part of one of: SASRec; GRU4Rec; BERT4Rec"):
        check_titles(["gru", "gpt"], QUALITY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sped"], "unknown comparison 'sped'; expected: speed, quality"),
        (["quality", "--budget", "0"], "expected --budget and --seconds above 0"),
        (["speed", "--steps", "0"], "--steps of at least 1"),
        (["quality", "--tables", "caser"], "--tables: no table 'caser'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        students.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_peer_that_cannot_be_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(students.environments, "main", lambda names: asked.append(names) or 1)
    monkeypatch.setattr("benchmarks.environments.ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(students, "neutral_set", lambda options, name: tmp_path / name)
    assert students.main(["speed", "--peers", "replay"]) == 1
    printed = capsys.readouterr().out
    assert asked == [["replay"]]
    assert "left out, not installed: RePlay" in printed
    assert "nothing was compared" in printed


def test_quality_trains_ours_on_all_windows_and_compares_with_it() -> None:
    ours, rectools, recbole = sides_of(QUALITY[:2], {"task": "train"}, 500)
    assert (ours.contender.options["windows"], ours.contender.against) == ("all", None)
    assert [side.contender.against for side in (rectools, recbole)] == [OURS, OURS]
    assert recbole.contender.options["batch"] == 2048


def share(seconds: float, valid: float, test: float) -> dict[str, Any]:
    figures = {"ndcg@10": test, "recall@10": 2 * test}
    return {"cpu_s": seconds, "targets": 10, "peak_mb": 5.0, "valid": {"ndcg@10": valid}, "test": figures}


def test_the_share_with_the_best_validation_counts_and_a_failure_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    ours = Side(Contender(OURS, OURS, OURS, {}, 1), shares=[share(10, 0.2, 0.12), share(20, 0.1, 0.9)])
    peer = Side(Contender("Peer", "peer", "peer", {}, 1, OURS), shares=[share(11, 0.1, 0.5), share(21, 0.3, 0.1)])
    broken = Side(Contender("Broken", "peer", "peer", {}, 1, OURS), failure="Broken ended; no module named x")
    found = rows([ours, peer, broken])
    assert found["Peer"]["best"]["cpu_s"] == 21
    assert found["Peer"]["ours_over_theirs"] == pytest.approx(1.2)
    assert "ours_over_theirs" not in found[OURS]
    assert "best" not in found["Broken"]
    student_quality.show([{"data": "d", "student": "s", "budget": 20.0, "sides": json.loads(json.dumps(found))}])
    printed = capsys.readouterr().out
    assert "1.200" in printed
    assert "failed" in printed
    assert "d, s, Broken: Broken ended; no module named x" in printed


def test_lists_give_the_positions_of_the_exact_ranking() -> None:
    """The figures of quality, from lists, are those of our own evaluation for targets among the first of the list."""
    sequences = sequences_of(NEUTRAL)
    model = build({"student": "gru4rec", "arguments": {"dim": 8}}, NEUTRAL, sequences).eval()
    cases = sequences.cases("test")
    exact = target_positions(model, cases, mask_history=True)
    lists = top_lists(model, cases, 4, exclude_seen=True)
    np.testing.assert_array_equal(list_positions(lists, NEUTRAL.targets()), np.minimum(exact, 5))


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users walk along a circle of 20 items, from all its places; they fill 20 batches, since each epoch is saved."""
    path = tmp_path_factory.mktemp("cycle") / "cycle.npz"
    items = np.concatenate([(np.arange(8) + 3 * user) % 20 + 1 for user in range(2560)])
    np.savez(path, items=items, offsets=np.arange(0, 2560 * 8 + 1, 8))
    return path


def test_a_real_process_trains_its_seconds_and_ranks_better_for_it(cycle: Path, tmp_path: Path) -> None:
    neutral = read_neutral(cycle)
    told = {**SIZES, "task": "train", "data": str(cycle), "evaluation_batch": 256, "list": 20, "seed": 0, "core": None}
    ours = sides_of([QUALITY[2]], told, 100)[0]
    wrong = Side(Contender("wrong", "nobody", OURS, {}, 1))
    targets = {part: neutral.targets(part) for part in ("valid", "test")}
    workers: dict[str, Worker] = {}
    try:
        for _ in range(2):
            attempt(ours, workers, tmp_path, 0.5, targets)
            attempt(wrong, workers, tmp_path, 0.5, targets)
    finally:
        for worker in workers.values():
            worker.close()
    assert ours.failure is None
    assert wrong.failure is not None
    assert "No module named benchmarks.peers.nobody" in wrong.failure
    first, second = ours.shares
    assert 0.5 <= first["cpu_s"] < second["cpu_s"]
    assert first["targets"] < second["targets"]
    assert second["test"]["ndcg@10"] > 0.9  # the next place of the circle; by chance below 0.5
    assert ours.facts["parameters"] > 0


def test_titles_name_log_folders() -> None:
    assert student_speed.slug("BERT4Rec, softmax, 20 % hidden") == "bert4rec-softmax-20-hidden"

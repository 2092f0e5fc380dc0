"""The study of CpRec: its rows, what they weigh, and a tiny one through Ray Tune."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from components.errors import ConfigError
from components.reports.study.cprec import PRINTED, cprec_grids, differences
from pipelines.cache import make_partial, publish, write_manifest
from pipelines.config import RunConfig
from pipelines.graph import Node
from pipelines.study.command import Outcome, plan_study, run_study
from pipelines.study.cprec import cprec_entries
from pipelines.study.kinds import CPREC
from pipelines.study.starts import find_start
from pipelines.study.write import documents_of, write_results
from tests.pipelines.run_configs import make_config
from tests.pipelines.study.tiny_study import write_tiny_world

SMALL = {"dim": 8, "max_length": 6, "dilations": [1], "num_repeats": 2}
CONTENT: dict[str, Any] = {
    "name": "tiny",
    "data": "/data",
    "seeds": [0, 1],
    "input": {"interactions": "gear/interactions.csv", "items": "gear/items.csv"},
    "prepare": {"min_interactions_per_item": 2},
    "student": {"kind": "sasrec", "dim": 8, "inner_dim": 8, "max_length": 6},
    "training": {"epochs": 1, "batch_size": 16},
    "study": {
        "cost": {"users": 10, "rounds": 1},
        "cprec": {
            "paper": "ml20",
            "students": {"nextitnet": {"kind": "nextitnet", **SMALL}, "gru4rec": {"kind": "gru4rec"}},
            "blocks": {"num_blocks": 2, "factor": 2},
        },
    },
}


def configured(folder: Path, **cprec: Any) -> RunConfig:
    study = {**CONTENT["study"], "cprec": {**CONTENT["study"]["cprec"], **cprec}}
    return make_config(folder, {**CONTENT, "study": study, "data": str(folder)})


def compression(entries: list[Any], name: str) -> Any:
    return {entry.name: entry for entry in entries}[name].setting.arguments["compression"]


def test_every_table_has_its_rows(tmp_path: Path) -> None:
    tables = cprec_entries(configured(tmp_path))
    nextitnet = ["nextitnet", "nextitnet, tied", "nextitnet CpRec"]
    shared = [f"nextitnet CpRec-{way}" for way in ("Cl", "Cb", "Al", "Ab")]
    gru4rec = ["gru4rec", "gru4rec, tied", "gru4rec CpRec"]
    assert [entry.name for entry in tables["main"]] == [*nextitnet, *shared, *gru4rec]
    ways = [f"{name}{way}" for name in ("nextitnet", "gru4rec") for way in ("", " B1", " Bi", " Bo", " Bio")]
    assert [entry.name for entry in tables["blocks"]] == ways
    assert [entry.name for entry in tables["sharing"]] == [
        "nextitnet",
        *(f"nextitnet {w}" for w in ("Cl", "Cb", "Al", "Ab")),
    ]
    assert all(entry.against in (None, entry.setting.kind) for rows in tables.values() for entry in rows)
    names = {entry.name for rows in tables.values() for entry in rows}
    assert all(name in names for paper in PRINTED.values() for name in paper)


def test_the_ways_are_the_papers(tmp_path: Path) -> None:
    tables = cprec_entries(configured(tmp_path))
    whole = compression(tables["blocks"], "nextitnet")
    assert (whole["input"], whole["output"], whole["sharing"]) == ("full", "full", "none")
    one = compression(tables["blocks"], "nextitnet B1")
    assert (one["num_blocks"], one["output"], one["input"]) == (1, "flat", "blocks")
    assert compression(tables["blocks"], "gru4rec Bi")["output"] == "full"
    assert compression(tables["blocks"], "gru4rec Bo")["input"] == "full"
    both = compression(tables["main"], "nextitnet CpRec-Ab")
    assert (both["input"], both["output"], both["sharing"], both["factor"]) == ("blocks", "tree", "ab", 2)
    assert compression(tables["sharing"], "nextitnet Cb")["output"] == "full"
    assert compression(tables["main"], "nextitnet, tied") is None


@pytest.mark.parametrize(
    ("cprec", "message"),
    [
        (
            {"students": {"fm": {"kind": "fm"}}},
            r"study\.cprec\.students\.fm: fm cannot be compressed; these can: sasrec",
        ),
        ({"blocks": {"boundaries": [5, 4]}}, r"study\.cprec\.blocks: .*boundaries must rise"),
        ({"blocks": {"ranks": [64, 8, 4]}}, r"study\.cprec: nextitnet CpRec: .*64 is above dim, 8"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_runs(tmp_path: Path, cprec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_study(configured(tmp_path, **cprec), kind=CPREC)


@pytest.fixture(scope="module")
def outcome(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("cprec")
    write_tiny_world(folder)
    return run_study(configured(folder), ["blocks", "sharing"], CPREC)


def test_a_study_shows_size_quality_and_time(outcome: Outcome) -> None:
    assert not outcome.failures
    blocks, sharing = documents_of(outcome)
    rows = {row["name"]: row for row in blocks["rows"]}
    assert rows["nextitnet"]["smaller"] is None
    assert all(row["smaller"] > 1 for name, row in rows.items() if " " in name)
    assert rows["nextitnet Bio"]["parameters"] < min(rows[f"nextitnet {way}"]["parameters"] for way in ("Bi", "Bo"))
    for row in rows.values():
        assert row["seeds"] == [0, 1]
        assert set(row["metrics"]) == {f"{name}@{cut}" for name in ("mrr", "recall", "ndcg") for cut in (5, 20)}
        assert row["latency_ms"] > 0
        assert row["minutes"] > 0
    assert rows["nextitnet Bio"]["faster"] > 0
    assert "gain" in rows["nextitnet Bio"]
    (grid,) = cprec_grids(blocks)
    printed = {row[0]: row[-1] for row in grid.rows}
    assert printed["nextitnet Bio"] == "0.1064"
    assert len(sharing["rows"]) == 5


def test_its_files_are_its_own(outcome: Outcome, tmp_path: Path) -> None:
    other = tmp_path / "reproduction.md"
    other.write_text("# Mine\n")
    documents = documents_of(outcome)
    written = write_results(outcome, documents, "distilrec study cprec x.yaml", other)
    names = {path.name for path in written}
    assert {"cprec-blocks.json", "cprec-blocks.svg", "cprec-sharing.json", "cprec-reproduction.md"} <= names
    text = other.read_text()
    assert text.startswith("# Mine")
    assert "## tiny: CpRec" in text
    assert "distilrec study cprec x.yaml" in text
    assert json.loads(written[0].read_text())["study"] == "cprec"
    assert "each sequence's last item tests, the one before validates" in text
    facts = {"users": 1, "items": 2, "interactions": 3, "blocks": {"a": "1 (8)"}, "chunk_length": 20, "transfer": "b"}
    facts |= {"training": {"batch_size": 1, "epochs": 1}, "split": "sequences", "shares": [0.1, 0.2]}
    said = " ".join(differences(facts))
    assert "a: 1 (8)" in said
    assert "chunks of 20 from their end, as in the paper; tests take the chunks of a user for independent" in said
    assert "20% of the sequences test with their last item" in said
    assert "networks come from the study b" in said


def test_a_second_start_trains_nothing(outcome: Outcome) -> None:
    again = run_study(outcome.study.config, ["blocks", "sharing"], CPREC)
    assert again.ran == []
    assert again.rounds == outcome.rounds


GRU4REC: dict[str, Any] = {"students": {"gru4rec": {"kind": "gru4rec"}}}


def chunked(folder: Path, name: str, **cprec: Any) -> RunConfig:
    """The same world as short sequences of a run called `name`."""
    study = {**CONTENT["study"], "cprec": {**CONTENT["study"]["cprec"], **GRU4REC, **cprec}}
    prepare = {**CONTENT["prepare"], "chunk_length": 4, "split": "sequences", "test_fraction": 0.3}
    return make_config(folder, {**CONTENT, "name": name, "prepare": prepare, "study": study, "data": str(folder)})


def test_networks_are_handed_over_to_another_study(outcome: Outcome) -> None:
    source = outcome.study.config
    config = chunked(Path(source.data), "short", transfer=str(source.folder))
    found = run_study(config, ["transfer"], CPREC)
    assert not found.failures
    assert len(found.ran) == 8  # whole and in blocks, from scratch and not, two seeds
    (document,) = documents_of(found)
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == ["gru4rec", "gru4rec, pre-trained", "gru4rec CpRec", "gru4rec CpRec, pre-trained"]
    for name in ("gru4rec", "gru4rec CpRec"):
        scratch, begun = rows[name], rows[f"{name}, pre-trained"]
        assert begun["metrics"] != scratch["metrics"]
        assert begun["parameters"] == scratch["parameters"]
        assert begun["smaller"] is None
        assert "gain" in begun
    (trial, other) = found.study.trials["transfer", "gru4rec, pre-trained"]
    assert trial.start != other.start, "each seed begins with its own"
    assert run_study(config, ["transfer"], CPREC).ran == []


def test_a_student_that_the_other_study_lacks_is_named(outcome: Outcome) -> None:
    source = outcome.study.config
    wide = {"students": {"gru4rec": {"kind": "gru4rec", "hidden_dim": 16}}}
    config = chunked(Path(source.data), "short", transfer=str(source.folder), **wide)
    with pytest.raises(ConfigError, match=r"holds no finished gru4rec of seed 0 with .*hidden_dim 16"):
        plan_study(config, ["transfer"], CPREC)


def test_a_table_without_rows_says_what_it_needs(tmp_path: Path) -> None:
    for tables in (["transfer"], ["main", "transfer"]):
        with pytest.raises(ConfigError, match=r"table transfer has no rows: it needs study\.cprec\.transfer"):
            plan_study(configured(tmp_path), tables, CPREC)
    alone = configured(tmp_path, **GRU4REC)
    with pytest.raises(ConfigError, match=r"table sharing has no rows: it needs a student whose layers can share"):
        plan_study(alone, ["sharing"], CPREC)
    assert plan_study(alone, [], CPREC)["trials"]


def test_a_source_that_is_not_there_stops_only_the_table_that_needs_it(tmp_path: Path) -> None:
    config = configured(tmp_path, transfer="nowhere")
    assert plan_study(config, ["main"], CPREC)["trials"]
    with pytest.raises(ConfigError, match="nowhere holds no study"):
        plan_study(config, [], CPREC)


WHOLE = {"input": "full", "output": "full", "sharing": "none"}
BASE = {"kind": "sasrec", "dim": 8, "max_length": 6, "dropout": 0.1, "loss": "softmax", "compression": WHOLE}


def trial(run: Path, name: str, student: dict[str, Any], seed: int = 0) -> Path:
    """A finished trial that holds nothing."""
    folder = make_partial(run / "study" / "trials" / name)
    part = {"student": student, "distillation": None}
    write_manifest(folder, Node("distill", name, ("prepare",), part, seed), name, {"prepare": "x"})
    publish(folder, run / "study" / "trials" / name)
    return run / "study" / "trials" / name


def test_what_a_student_begins_with_has_its_shape_and_is_the_newest(tmp_path: Path) -> None:
    old = trial(tmp_path, "a", {**BASE, "dropout": 0.5, "loss": "bce"})
    assert find_start(tmp_path, BASE, 0).folder == old.absolute()
    new = trial(tmp_path, "b", BASE)
    os.utime(new / "manifest.json", (2e9, 2e9))
    assert find_start(tmp_path, BASE, 0).folder == new.absolute()
    for other in ({"max_length": 5}, {"dim": 4}, {"compression": {**WHOLE, "sharing": "ab"}}, {"compression": None}):
        with pytest.raises(ConfigError, match="holds no finished sasrec of seed 0"):
            find_start(tmp_path, {**BASE, **other}, 0)
    with pytest.raises(ConfigError, match="of seed 1"):
        find_start(tmp_path, BASE, 1)
    blocks = {**WHOLE, "output": "flat", "input": "blocks", "num_blocks": 3, "boundaries": None}
    trial(tmp_path, "c", {**BASE, "compression": blocks})
    with pytest.raises(ConfigError, match="one block True"):
        find_start(tmp_path, {**BASE, "compression": {**blocks, "num_blocks": 1}}, 0)

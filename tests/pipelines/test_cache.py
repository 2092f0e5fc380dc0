from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import StorageError, UserError
from pipelines.cache import (
    Stored,
    canonical_json,
    make_partial,
    node_key,
    publish,
    read_stored,
    recover,
    sealed_digest,
    storage_errors,
    work_folder,
    write_manifest,
)
from pipelines.config import RunConfig
from pipelines.fingerprint import data_fingerprint, fingerprints
from pipelines.graph import Node, build_graph
from pipelines.lock import LOCK_FILE, run_lock
from pipelines.plan import changed_keys, decide, plan
from pipelines.stages import STAGES

NODE = Node("teach", "a", ("prepare",), {"teacher": {"dim": 8}}, seed=1)
INPUTS = {"prepare": "digest of prepare"}


def sealed(folder: Path, node: Node = NODE, key: str = "key") -> Path:
    partial = make_partial(folder)
    (partial / "sub").mkdir()
    (partial / "model.bin").write_bytes(b"weights")
    (partial / "sub" / "history.json").write_text("{}")
    write_manifest(partial, node, key, INPUTS)
    return partial


def finished(folder: Path, node: Node = NODE, key: str = "") -> Stored:
    publish(sealed(folder, node, key or node_key(node, INPUTS)), folder)
    stored = read_stored(folder)
    assert stored is not None
    return stored


def test_the_key_depends_on_everything_that_decides_the_result() -> None:
    changes = [
        node_key(NODE, INPUTS),
        node_key(Node("teach", "a", ("prepare",), {"teacher": {"dim": 9}}, seed=1), INPUTS),
        node_key(Node("teach", "a", ("prepare",), {"teacher": {"dim": 8}}, seed=2), INPUTS),
        node_key(Node("annotate", "a", ("prepare",), {"teacher": {"dim": 8}}, seed=1), INPUTS),
        node_key(NODE, {"prepare": "another digest"}),
        node_key(NODE, INPUTS, "files"),
    ]
    assert len(set(changes)) == len(changes)
    assert node_key(NODE, INPUTS) == changes[0]


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert canonical_json({"b": {"d": 1, "c": 2}, "a": "ü"}) == canonical_json({"a": "ü", "b": {"c": 2, "d": 1}})


def test_a_manifest_describes_every_file_and_holds_no_clock(tmp_path: Path) -> None:
    first, second = finished(tmp_path / "a"), finished(tmp_path / "b")
    assert set(first.manifest["files"]) == {"model.bin", "sub/history.json"}
    assert first.manifest["seeds"] == [1]
    assert first.manifest["inputs"] == INPUTS
    assert first.digest == second.digest


def test_what_was_made_has_one_digest_however_it_came_about(tmp_path: Path) -> None:
    first = finished(tmp_path / "a")
    write_manifest(
        tmp_path / "a", replace(NODE, part={"another": "option"}), "another key", {"prepare": "other"}, "log"
    )
    again = read_stored(tmp_path / "a")
    assert again is not None
    assert not again.damage
    assert again.key != first.key
    assert again.digest == first.digest == sealed_digest(tmp_path / "a")
    (tmp_path / "a" / "model.bin").write_bytes(b"other weights")
    write_manifest(tmp_path / "a", NODE, first.key, INPUTS)
    assert sealed_digest(tmp_path / "a") != first.digest


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model.bin").unlink(), "model.bin is missing"),
        (lambda folder: (folder / "model.bin").write_bytes(b"weight"), "model.bin was changed after it was written"),
        (lambda folder: (folder / "manifest.json").write_text('{"files"'), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
        (
            lambda folder: (folder / "manifest.json").write_text('{"files": {}, "schema_version": 99}'),
            "schema version 99, this program writes 1",
        ),
    ],
)
def test_damage_is_found_and_leads_to_a_new_run(tmp_path: Path, damage: object, reason: str) -> None:
    finished(tmp_path / "a")
    damage(tmp_path / "a")  # type: ignore[operator]
    stored = read_stored(tmp_path / "a")
    assert stored is not None
    assert stored.damage == reason
    assert decide(NODE, stored, INPUTS).reason == f"its result is damaged: {reason}"


def test_publish_replaces_what_stood_there(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    (tmp_path / "a" / "stray").touch()
    finished(tmp_path / "a")
    assert not (tmp_path / "a" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_recover_publishes_a_sealed_folder(tmp_path: Path) -> None:
    sealed(tmp_path / "a")  # killed between the manifest and the rename
    recover(tmp_path / "a")
    stored = read_stored(tmp_path / "a")
    assert stored is not None
    assert not stored.damage


def test_recover_removes_half_results(tmp_path: Path) -> None:
    partial = sealed(tmp_path / "a")
    (partial / "manifest.json").unlink()
    (tmp_path / ".old-a").mkdir()
    recover(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_recover_brings_nothing_back_over_a_damaged_partial(tmp_path: Path) -> None:
    good = finished(tmp_path / "a")
    (sealed(tmp_path / "a", key="other") / "model.bin").write_bytes(b"torn")
    recover(tmp_path / "a")
    stored = read_stored(tmp_path / "a")
    assert stored is not None
    assert stored.digest == good.digest


def test_work_folders_belong_to_a_key(tmp_path: Path) -> None:
    (work_folder(tmp_path, NODE, "a" * 64) / "checkpoint").touch()
    assert (work_folder(tmp_path, NODE, "a" * 64) / "checkpoint").exists()
    assert list(work_folder(tmp_path, NODE, "b" * 64).iterdir()) == []
    assert not (work_folder(tmp_path, NODE, "a" * 64) / "checkpoint").exists()


def test_a_full_disk_names_the_place_and_the_space(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"big\.bin: the disk is full \([\d,]+ MiB free\); make room"),
        storage_errors(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "big.bin"))


def test_a_real_full_disk(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with (
        pytest.raises(StorageError, match="the disk is full"),
        storage_errors(tmp_path),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100_000)


def test_a_forbidden_input_file_is_not_called_a_storage_problem(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), storage_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/log.csv")
    with pytest.raises(StorageError, match="cannot write: Permission denied"), storage_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x"))


# --- decisions ---------------------------------------------------------------------------------------------------


def stored_as(node: Node, inputs: dict[str, str], fingerprint: str = "", code_version: int | None = None) -> Stored:
    manifest = {
        "key": node_key(node, inputs, fingerprint),
        "code_version": STAGES[node.stage].code_version if code_version is None else code_version,
        "config": json.loads(json.dumps(node.part)),
        "inputs": inputs,
        "fingerprint": fingerprint,
    }
    return Stored(manifest, f"digest of {node.name}")


OTHER = Node("teach", "a", ("prepare",), {"teacher": {"dim": 9}}, seed=1)
DECISIONS = {
    "finished": (stored_as(NODE, INPUTS), INPUTS, "", "", set(), (False, "done already")),
    "never": (None, INPUTS, "", "", set(), (True, "not done yet")),
    "config": (stored_as(OTHER, INPUTS), INPUTS, "", "", set(), (True, "its configuration changed: teacher.dim")),
    "input": (stored_as(NODE, {"prepare": "x"}), INPUTS, "", "", set(), (True, "its input changed: prepare")),
    "inputs": (stored_as(NODE, {"x": "x"}), INPUTS, "", "", set(), (True, "its inputs changed: prepare, x")),
    "files": (stored_as(NODE, INPUTS, "a"), INPUTS, "b", "", set(), (True, "its input files changed")),
    "forced": (stored_as(NODE, INPUTS), INPUTS, "", "forced by --from teach", set(), (True, "forced by --from teach")),
    "waiting": (stored_as(NODE, INPUTS), {}, "", "", {"prepare"}, (True, "prepare will run")),
    "code": (
        stored_as(NODE, INPUTS, code_version=0),
        INPUTS,
        "",
        "",
        set(),
        (True, "the stage's code changed: version 0 is now 1"),
    ),
    "seed": (
        stored_as(Node("teach", "a", ("prepare",), NODE.part, seed=9), INPUTS),
        INPUTS,
        "",
        "",
        set(),
        (True, "its key changed"),
    ),
}


@pytest.mark.parametrize(
    ("stored", "inputs", "fingerprint", "forced", "waiting", "expected"), DECISIONS.values(), ids=DECISIONS
)
def test_decisions(
    stored: Stored | None,
    inputs: dict[str, str],
    fingerprint: str,
    forced: str,
    waiting: set[str],
    expected: tuple[bool, str],
) -> None:
    decision = decide(NODE, stored, inputs, fingerprint, forced, waiting)
    assert (decision.run, decision.reason) == expected


def test_a_plan_runs_everything_behind_what_runs() -> None:
    prepare, teach = Node("prepare"), NODE
    annotate = Node("annotate", "", ("prepare", "teach/a"))
    stored = {
        "prepare": stored_as(prepare, {}),
        "teach/a": stored_as(OTHER, {"prepare": "digest of prepare"}),
        "annotate": stored_as(annotate, {"prepare": "digest of prepare", "teach/a": "digest of teach/a"}),
    }
    decisions = plan([prepare, teach, annotate], stored, {})
    assert [(decision.node, decision.run, decision.reason) for decision in decisions] == [
        ("prepare", False, "done already"),
        ("teach/a", True, "its configuration changed: teacher.dim"),
        ("annotate", True, "teach/a will run"),
    ]
    forced = plan([prepare, teach, annotate], stored, {}, "prepare")
    assert [decision.reason for decision in forced] == [
        "forced by --from prepare",
        "forced: it needs prepare",
        "forced: it needs prepare, teach/a",
    ]


def test_changed_keys_are_dotted() -> None:
    assert changed_keys({"a": {"b": 1}, "c": [1]}, {"a": {"b": 1, "d": 2}, "c": [2]}) == ["a.d", "c"]


# --- outside files -----------------------------------------------------------------------------------------------


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.csv").write_text("user_id,item_id\n1,2\n")
    first = data_fingerprint(str(tmp_path / "a"), ["log.csv"])
    assert data_fingerprint(str(tmp_path / "b"), ["log.csv"]) == first
    os.utime(tmp_path / "b" / "log.csv", (0, 0))
    assert data_fingerprint(str(tmp_path / "b"), ["log.csv"]) == first
    (tmp_path / "b" / "log.csv").write_text("user_id,item_id\n1,3\n")
    assert data_fingerprint(str(tmp_path / "b"), ["log.csv"]) != first


def test_a_changed_user_file_is_prepared_again(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,2\n")
    config = RunConfig.model_validate(
        {
            "name": "x",
            "data": str(tmp_path),
            "input": {"interactions": "log.csv", "users": "users.csv"},
            "student": {"kind": "fm"},
        }
    )
    nodes = [node for node in build_graph(config) if node.stage == "prepare"]
    found = []
    for age in (20, 30):
        (tmp_path / "users.csv").write_text(f"user_id,age\n1,{age}\n")
        found.append(fingerprints(config, nodes)["prepare"])
    assert found[0] != found[1]


def test_a_language_model_of_ones_own_belongs_to_what_it_starts(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    config = RunConfig.model_validate(
        {
            "name": "x",
            "data": str(tmp_path),
            "input": {"interactions": "log.csv"},
            "pretrain": {"domains": {"other": {"input": {"interactions": "log.csv"}}}},
            "teachers": {
                "words": {"kind": "recformer", "pretrained": True, "backbone": str(tmp_path / "bert")},
                "bundled": {"kind": "recformer", "pretrained": True},
            },
        }
    )
    nodes = [node for node in build_graph(config) if node.stage in ("pretrain", "teach")]
    found = []
    for weights in (b"old", b"new"):
        (tmp_path / "bert" / "model.safetensors").write_bytes(weights)
        found.append(fingerprints(config, nodes))
    assert set(found[0]) == {"pretrain/words", "teach/words"}
    assert all(found[0][name] != found[1][name] for name in found[0])


def test_large_files_are_known_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.fingerprint.MAX_HASHED_BYTES", 4)
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id\n")
    first = data_fingerprint(str(tmp_path), ["log.csv"])
    assert data_fingerprint(str(tmp_path), ["log.csv"]) == first
    os.utime(file, (0, 0))
    assert data_fingerprint(str(tmp_path), ["log.csv"]) != first


def test_missing_files_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    missing = data_fingerprint(str(tmp_path), ["log.csv"])
    (tmp_path / "log.csv").write_text("user_id,item_id\n")
    assert data_fingerprint(str(tmp_path), ["log.csv"]) != missing


# --- the lock ----------------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path),
        pytest.raises(UserError, match=rf"another distilrec works in this run folder \(process {os.getpid()} on"),
        run_lock(tmp_path),
    ):
        pass
    with run_lock(tmp_path):
        pass


def test_the_lock_of_a_killed_driver_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipelines.lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert "process" in (tmp_path / LOCK_FILE).read_text()  # it left its name behind
    with run_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()

"""A run in an object store, with stages that only write a file: what is done there is not done again anywhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import pipelines.driver
from components.errors import StorageError, UserError
from components.schema import MANIFEST_FILE
from pipelines.driver import execute_run, plan_run
from pipelines.stages import Stage, StageContext
from pipelines.storage.exchange import Exchange, borrowed, call
from pipelines.storage.kept import fetch_run
from pipelines.storage.lease import LEASE
from pipelines.storage.place import SCRATCH, own_scratch
from pipelines.storage.remote import Remote
from tests.pipelines.run_configs import PLAIN_RUN, make_config


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that write what they read; the list says which ran."""
    import contextlib

    names: list[str] = []

    def load(stage: Stage) -> Any:
        def function(context: StageContext) -> None:
            names.append(context.node)
            read = {name: (folder / "result.json").read_text() for name, folder in sorted(context.inputs.items())}
            (context.folder / "deep").mkdir()
            (context.folder / "deep/part.bin").write_bytes(b"\0" * 1000)
            (context.folder / "result.json").write_text(json.dumps([context.node, read]))
            if context.node == "evaluate":
                (context.config.folder / "report.html").write_text("<html>")

        return function

    monkeypatch.setattr(Stage, "load", load)
    monkeypatch.setattr(pipelines.driver, "_session", lambda config: contextlib.nullcontext())
    monkeypatch.setattr(pipelines.driver, "check_sources", lambda config, missing: None)
    monkeypatch.setattr(pipelines.storage.lease, "SETTLING", 0.0)
    return names


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts this process on a machine with a disk of its own."""

    def move(name: str) -> Path:
        monkeypatch.setenv(SCRATCH, str(tmp_path / name))
        return tmp_path / name

    return move


def config_of(tmp_path: Path, uri: str, *overrides: str) -> Any:
    return make_config(tmp_path, {**PLAIN_RUN, "baselines": ["mostpop"]}, f"output={uri}", *overrides)


def test_another_machine_goes_on_with_what_is_kept(tmp_path: Path, uri: str, ran: list[str], machine: Any) -> None:
    machine("first")
    config = config_of(tmp_path, uri)
    execute_run(config, "distill")
    assert ran == ["prepare", "distill/mostpop/seed-0"]
    disk = machine("second")
    assert [decision.run for decision in plan_run(config)] == [False, False, True, True]
    assert not disk.exists()
    result = execute_run(config)
    assert ran == ["prepare", "distill/mostpop/seed-0", "evaluate", "export"]
    assert result.folder == config.folder
    assert result.folder.is_relative_to(disk)
    assert result.as_json()["run"] == f"{uri}/plain"
    remote = Remote(f"{uri}/plain")
    assert {"evaluate/manifest.json", "report.html", "logs/run.log", "logs/timing/prepare.json"} <= set(remote.files())
    machine("third")
    execute_run(config)
    assert len(ran) == 4
    assert remote.read(LEASE) is None


def test_a_changed_configuration_runs_what_it_changes(tmp_path: Path, uri: str, ran: list[str], machine: Any) -> None:
    machine("first")
    execute_run(config_of(tmp_path, uri))
    machine("second")
    ran.clear()
    execute_run(config_of(tmp_path, uri, "evaluate.bootstrap=200"))
    assert ran == ["evaluate"]  # it wrote the same, so export need not run


def test_damage_in_the_store_is_named_with_the_way_out(tmp_path: Path, uri: str, ran: list[str], machine: Any) -> None:
    machine("first")
    execute_run(config_of(tmp_path, uri), "distill")
    remote = Remote(f"{uri}/plain")
    remote.write("prepare/result.json", b"something else")
    machine("second")
    with pytest.raises(StorageError, match=r"/prepare: result\.json was changed .*delete its manifest\.json"):
        execute_run(config_of(tmp_path, uri))
    remote.delete(f"prepare/{MANIFEST_FILE}")
    ran.clear()
    execute_run(config_of(tmp_path, uri))
    assert ran[0] == "prepare"


def test_two_runs_of_one_name_at_once_are_refused(tmp_path: Path, uri: str, ran: list[str], machine: Any) -> None:
    machine("first")
    Remote(f"{uri}/plain").write(LEASE, b"process 7 on another machine")
    with pytest.raises(UserError, match=r"process 7 on another machine.*choose another name="):
        execute_run(config_of(tmp_path, uri))
    assert ran == []


def test_a_store_that_cannot_be_written_fails_before_anything_runs(
    tmp_path: Path, bucket: str, ran: list[str], machine: Any
) -> None:
    machine("first")
    with pytest.raises(StorageError, match="s3://nowhere/runs/plain: cannot write"):
        execute_run(config_of(tmp_path, "s3://nowhere/runs"))
    assert ran == []


def read_and_write(source: Path, target: Path, text: str) -> str:
    (target / "sub").mkdir(parents=True, exist_ok=True)
    (target / "sub/out.txt").write_text(f"{(source / 'result.json').read_text()} {text}")
    return str(source)


def test_a_task_on_another_disk_reads_and_writes_through_the_store(
    tmp_path: Path, uri: str, ran: list[str], machine: Any
) -> None:
    machine("driver")
    config = config_of(tmp_path, uri)
    run = execute_run(config, "prepare").folder
    exchange, partial = Exchange.of(run / "prepare"), run / ".partial-x"
    assert exchange is not None
    partial.mkdir()
    here = call(exchange, partial, read_and_write, run / "prepare", partial, "near")
    assert here == str(run / "prepare")
    shutil.rmtree(partial)
    disk = machine("worker")
    there = call(exchange, partial, read_and_write, run / "prepare", partial, "far")
    assert Path(there).is_relative_to(disk)
    assert not partial.exists()
    machine("driver")
    exchange.collect(partial)
    assert (partial / "sub/out.txt").read_text().endswith("far")
    assert not [name for name in Remote(exchange.uri).files() if name.startswith(".exchange")]


def test_checkpoints_of_a_lost_node_are_found_by_the_next(
    tmp_path: Path, uri: str, ran: list[str], machine: Any
) -> None:
    machine("driver")
    run = execute_run(config_of(tmp_path, uri), "prepare").folder
    exchange, work = Exchange.of(run), run / ".work/distill/key"
    assert exchange is not None
    machine("lost")
    with borrowed(exchange, work) as own:
        (own / "checkpoint").mkdir()
        (own / "checkpoint/state.safetensors").write_text("epoch 3")
        exchange.save(own)
    machine("next")
    with borrowed(exchange, work) as own:
        assert (own / "checkpoint/state.safetensors").read_text() == "epoch 3"
    machine("driver")
    exchange.forget(work)
    assert not [name for name in Remote(exchange.uri).files() if "checkpoint" in name]


def test_copies_lie_in_a_folder_of_ones_own(tmp_path: Path, machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("mine")
    assert own_scratch().stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(StorageError, match="belongs to another user; set DISTILREC_SCRATCH"):
        own_scratch()


def test_runs_on_a_path_know_of_no_store(tmp_path: Path) -> None:
    assert Exchange.of(tmp_path / "runs/plain/prepare") is None
    assert call(None, None, len, [1, 2]) == 2
    config = make_config(tmp_path, PLAIN_RUN)
    assert config.place == str(config.folder) == str(tmp_path / "runs/plain")


def test_a_run_is_fetched_to_be_looked_at(tmp_path: Path, uri: str, ran: list[str], machine: Any) -> None:
    machine("driver")
    execute_run(config_of(tmp_path, uri))
    nodes = fetch_run(f"{uri}/plain", tmp_path / "here")
    assert nodes == ["distill/mostpop/seed-0", "evaluate", "export", "prepare"]
    assert (tmp_path / "here/report.html").read_text() == "<html>"
    assert fetch_run(f"{uri}/plain", tmp_path / "here") == nodes
    with pytest.raises(UserError, match="holds no run; give the folder of one run"):
        fetch_run(f"{uri}/other", tmp_path / "there")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="full: holds something else"):
        fetch_run(f"{uri}/plain", tmp_path / "full")
    Remote(f"{uri}/plain").write("prepare/result.json", b"other")
    with pytest.raises(StorageError, match=r"prepare: result\.json was changed"):
        fetch_run(f"{uri}/plain", tmp_path / "here")

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.errors import ArtifactError, UserError
from components.schema import MODEL_FILE
from pipelines.cli import app
from pipelines.served import find_artifact
from pipelines.serving.histories import check_histories, find_histories
from serve.histories.source import HistorySource
from serve.histories.sqlite_events import EVENTS_FILE
from tests.serve.histories.servers import RedisServer
from tests.serve.histories.test_base import write_prepared
from tests.tiny_artifact import write_artifact


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "run" / "export")
    write_prepared(tmp_path / "run" / "prepare", [("ann", 1, [1, 2]), ("bob", 2, [3])])
    return tmp_path / "run"


def found(run: Path, events: str | None = None) -> HistorySource:
    return find_histories(run, find_artifact(run), events)


def test_a_run_brings_its_own_histories_and_place(run: Path) -> None:
    source = found(run)
    assert (source.prepared, source.events) == (str(run / "prepare"), str(run / "serving"))
    assert check_histories(source, find_artifact(run)) == [
        f"histories of 2 users; events are kept in {run / 'serving'}"
    ]
    assert (run / "serving" / EVENTS_FILE).is_file()


def test_histories_that_the_artifact_carries_come_first(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "export")
    write_artifact(run / "export", histories=True)
    assert found(run).prepared is None
    assert len(found(run).base(find_artifact(run))) == 2


def test_an_artifact_alone_keeps_no_events_unless_told_where(run: Path, tmp_path: Path) -> None:
    assert found(run / "export") == HistorySource()
    assert check_histories(HistorySource(), run / "export") == [
        "histories of 0 users; events are refused, --histories FOLDER keeps them"
    ]
    assert found(run / "export", str(tmp_path / "events")).events == str(tmp_path / "events")
    assert sorted(path.name for path in run.iterdir()) == ["export", "prepare"]


def test_a_folder_may_be_relative(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = found(Path("run"), "events")
    assert (source.prepared, source.events) == (str(run / "prepare"), str(tmp_path / "events"))


def test_a_run_without_its_prepared_set_still_serves(run: Path) -> None:
    shutil.rmtree(run / "prepare")
    assert found(run).prepared is None
    assert check_histories(found(run), find_artifact(run))[0].startswith("histories of 0 users")


def test_another_kind_of_address_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="--histories: give a folder, or redis://HOST:PORT/NUMBER") as caught:
        found(run, "postgres://ann:hush@host/db")
    assert "hush" not in str(caught.value)


def test_a_redis_that_is_away_or_forgets_is_said(run: Path, tmp_path: Path) -> None:
    server = RedisServer(tmp_path, appendonly="no", password="hush")
    with pytest.raises(UserError, match=r"redis://127.0.0.1:\d+/0: .*Connection refused.*start it first") as caught:
        check_histories(found(run, server.url), run / "export")
    assert "hush" not in str(caught.value)
    server.start()
    try:
        said = check_histories(found(run, server.url), run / "export")
    finally:
        server.kill()
    assert said[0].endswith(f"events are kept in redis://127.0.0.1:{server.port}/0")
    assert "warning: " in said[1]
    assert "appendonly is off" in said[1]


def test_a_damaged_prepared_set_is_named(run: Path) -> None:
    (run / "prepare" / "items.parquet").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="histories are not readable"):
        check_histories(found(run), run / "export")


@pytest.mark.parametrize("through", ["option", "environment"])
def test_a_place_that_cannot_be_written_ends_the_command_before_ray_starts(run: Path, through: str) -> None:
    place = str(run / "export" / MODEL_FILE / "events")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = ["serve", str(run), "--port", port]
    option, environment = (["--histories", place], {}) if through == "option" else ([], {"DISTILREC_HISTORIES": place})
    result = CliRunner().invoke(app, [*command, *option], env=environment)
    assert result.exit_code == 2
    assert "events cannot be kept there" in result.stderr.replace("\n", " ")

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.errors import ConfigError
from components.recommender import Recommender
from pipelines.cli import app
from serve.backend import LocalBackend
from serve.keys import Keys, expected, new_key, read_keys
from serve.settings import Settings, access, hash_key
from tests.serve.clients import make_client
from tests.tiny_artifact import write_artifact


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


def line(name: str, key: str) -> str:
    return f"{name}:{hash_key(key)}"


def test_several_keys_are_valid_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "keys", "# of the shop", line("shop", "one"), "", line("app", "two"))
    keys = Keys(Settings(keys_file=str(file), key_hash=hash_key("three")))
    assert [keys.identify(key) for key in ("one", "two", "three", "four")] == ["shop", "app", "environment", None]


def test_keys_change_without_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    file = write(tmp_path / "keys", line("old", "one"))
    keys = Keys(Settings(keys_file=str(file)), clock)
    write(file, line("old", "one"), line("new", "two"))
    assert keys.identify("two") is None  # looked at once a second, not at each request
    clock.now = 1.5
    assert (keys.identify("one"), keys.identify("two")) == ("old", "new")
    write(file, line("new", "two"))
    clock.now = 3.0
    assert (keys.identify("one"), keys.identify("two")) == (None, "new")


@pytest.mark.parametrize("broken", ["not a key", "", None])
def test_a_broken_file_leaves_the_known_keys(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    file = write(tmp_path / "keys", line("old", "one"))
    keys = Keys(Settings(keys_file=str(file)), clock)
    if broken is None:
        file.unlink()
    else:
        write(file, broken)
    logging.getLogger("distilrec.serve").propagate = True
    for clock.now in (2.0, 4.0, 6.0):
        assert keys.identify("one") == "old"
    assert caplog.text.count("the known keys stay valid") == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dr_a-key-in-clear"], r"line 1: expected `name:sha256`"),
        ([line("a", "x"), line("a", "y")], r"line 2: the name 'a' is taken"),
        ([line("environment", "x")], r"'environment' is taken"),
        (["# nothing"], "holds no key"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_keys(write(tmp_path / "keys", *lines))
    assert "in-clear" not in str(caught.value)


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "keys", line("a", "x"))
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_keys(file)


def test_an_open_host_is_content_with_a_file(tmp_path: Path) -> None:
    settings = access("0.0.0.0", None, str(write(tmp_path / "keys", line("a", "x"))))
    assert Keys(settings).needed
    with pytest.raises(ConfigError, match=r"No such file.*distilrec key new"):
        Keys(access("0.0.0.0", None, str(tmp_path / "none")))


def test_a_new_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    done = CliRunner().invoke(app, ["key", "new", "shop", "--keys", str(file)])
    key = done.stdout.strip()
    assert done.exit_code == 0
    assert key.startswith("dr_")
    assert len(key) > 40
    assert key not in file.read_text()
    assert os.stat(file).st_mode & 0o777 == 0o600
    assert Keys(Settings(keys_file=str(file))).identify(key) == "shop"
    again = CliRunner().invoke(app, ["key", "new", "shop", "--keys", str(file)])
    assert again.exit_code == 2
    assert new_key("app", file)[1] in file.read_text()
    assert set(read_keys(file)) == {"shop", "app"}


def test_a_new_key_begins_its_own_line(tmp_path: Path) -> None:
    """An editor or `printf` may have left the last line without an end."""
    file = tmp_path / "keys"
    file.write_text(line("old", "one"))
    file.chmod(0o600)
    new_key("shop", file)
    new_key("app", file)
    assert set(read_keys(file)) == {"old", "shop", "app"}


def test_a_key_in_the_wrong_place_is_told_the_right_one(tmp_path: Path) -> None:
    client = make_client(LocalBackend(Recommender(write_artifact(tmp_path / "artifact"))), key_hash=hash_key("key"))
    for headers in ({"Authorization": "key"}, {"Authorization": "Basic key"}):
        answer = client.get("/v1/model", headers=headers)
        assert answer.status_code == 401
        assert "lacks the word Bearer" in answer.json()["message"]
    for headers in ({"X-Key": "key"}, {"Cookie": "key"}):
        message = client.get("/v1/model", headers=headers).json()["message"]
        assert "`Authorization: Bearer KEY` or `X-API-Key: KEY`" in message
    assert client.get("/v1/model?api_key=key").status_code == 401
    assert client.get("/v1/model", headers={"X-API-Key": "key"}).status_code == 200


def test_what_was_sent_is_not_repeated() -> None:
    for headers in ({"authorization": "s3cret"}, {"authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}):
        assert "s3cret" not in expected(headers)

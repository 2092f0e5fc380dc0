from __future__ import annotations

import copy
import threading
from pathlib import Path

import pytest

from components.errors import StorageError, UserError
from components.schema import MANIFEST_FILE
from pipelines.storage.lease import LEASE, lease
from pipelines.storage.remote import Remote, open_filesystem
from tests.pipelines.storage.conftest import KEYS


def make_folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    return root


def test_a_folder_comes_back_as_it_was_put(uri: str, tmp_path: Path) -> None:
    remote = Remote(uri)
    folder = make_folder(tmp_path / "a", MANIFEST_FILE, "items.parquet", "sequences/part-0.parquet")
    remote.put(folder, "prepare")
    assert set(remote.files("prepare")) == {MANIFEST_FILE, "items.parquet", "sequences/part-0.parquet"}
    remote.fetch("prepare", tmp_path / "b")
    assert (tmp_path / "b/sequences/part-0.parquet").read_text() == "content of sequences/part-0.parquet"
    assert remote.read("prepare/nothing") is None
    assert remote.files("nothing") == {}


def test_a_replaced_folder_keeps_nothing_of_the_old_one(uri: str, tmp_path: Path) -> None:
    remote = Remote(uri)
    remote.put(make_folder(tmp_path / "a", MANIFEST_FILE, "old.txt", "same.txt"), "node")
    remote.put(make_folder(tmp_path / "b", MANIFEST_FILE, "new.txt", "same.txt"), "node")
    assert set(remote.files("node")) == {MANIFEST_FILE, "new.txt", "same.txt"}
    remote.remove("node")
    assert remote.files("node") == {}


def test_the_manifest_goes_first_and_comes_last(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that dies in between leaves a folder without a manifest, which nobody takes for a finished one."""
    remote, upload = Remote(uri), Remote.upload
    remote.put(make_folder(tmp_path / "a", MANIFEST_FILE, "a.txt"), "node")

    def die(self: Remote, file: Path, name: str) -> None:
        assert self.read(f"node/{MANIFEST_FILE}") is None
        raise KeyboardInterrupt

    monkeypatch.setattr(Remote, "upload", die)
    with pytest.raises(KeyboardInterrupt):
        remote.put(make_folder(tmp_path / "b", MANIFEST_FILE, "b.txt"), "node")
    monkeypatch.setattr(Remote, "upload", upload)
    assert remote.read(f"node/{MANIFEST_FILE}") is None


def test_it_travels_to_workers_as_its_uri(uri: str) -> None:
    remote = Remote(uri)
    remote.write("note", b"seen")
    assert copy.deepcopy(remote).read("note") == b"seen"


def test_a_bucket_that_is_not_there_is_an_error_that_says_what_to_check(bucket: str) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere/runs: cannot write a: .*check the bucket's name"):
        Remote("s3://nowhere/runs").write("a", b"")


def test_a_storage_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match="cannot write a"):
        Remote("s3://bucket/runs").write("a", b"")


def test_an_unknown_kind_of_storage_is_refused() -> None:
    with pytest.raises(StorageError, match=r"ftp://host/runs: no such storage: .*s3:// or gs://"):
        open_filesystem("ftp://host/runs")


def test_the_second_of_two_drivers_is_refused_and_told_who_is_first(uri: str) -> None:
    remote = Remote(uri)
    with lease(remote, settling=0.0):
        holder = (remote.read(LEASE) or b"").decode()
        with (
            pytest.raises(UserError, match="another distilrec works on this run") as refused,
            lease(remote, settling=0.0),
        ):
            pass
        assert holder in str(refused.value)
    with lease(remote, settling=0.0):
        assert remote.read(LEASE)
    assert remote.files() == {}


def test_a_lease_ends_when_its_holder_gives_no_sign(uri: str) -> None:
    remote = Remote(uri)
    remote.write(LEASE, b"a driver that was killed")
    with lease(remote, expired=0.0, settling=0.0):
        assert remote.read(LEASE) != b"a driver that was killed"


def test_of_two_that_start_at_once_one_goes_on(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both see no lease and both write; who reads another name than its own steps back."""
    remote, write = Remote(uri), Remote.write

    def overtaken(self: Remote, name: str, content: bytes) -> None:
        write(self, name, b"the other one" if name == LEASE else content)

    monkeypatch.setattr(Remote, "write", overtaken)
    with pytest.raises(UserError, match="the other one"), lease(remote, settling=0.0):
        pass


def test_a_lease_is_renewed_while_it_is_held(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote, write, renewed = Remote(uri), Remote.write, threading.Event()
    count = 0

    def counted(self: Remote, name: str, content: bytes) -> None:
        nonlocal count
        write(self, name, content)
        count += name == LEASE
        if count == 3:
            renewed.set()

    monkeypatch.setattr(Remote, "write", counted)
    with lease(remote, renewed=0.01, settling=0.0):
        assert renewed.wait(30)

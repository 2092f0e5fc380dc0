from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from components.artifacts import format as artifact
from components.artifacts.format import read_json, read_manifest, seal, verify, write_json, written_folder
from components.errors import ArtifactError, StorageError
from tests.tiny_artifact import write_artifact


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "artifact")


def test_an_intact_artifact_verifies(folder: Path) -> None:
    manifest = verify(folder)
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "items.parquet", "metrics.json"}
    assert manifest["schema_version"] == 1
    assert manifest["seeds"] == [0]


def test_equal_content_gives_an_equal_manifest(tmp_path: Path) -> None:
    one, two = write_artifact(tmp_path / "one"), write_artifact(tmp_path / "two")
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "items.parquet", "metrics.json", "manifest.json"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.95])
def test_one_changed_byte_is_found_and_its_file_named(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    index = int(len(content) * place)
    content[index] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        verify(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "items.parquet", "manifest.json"])
@pytest.mark.parametrize("kept", [0, 1, 0.5])
def test_a_truncated_file_is_named(folder: Path, name: str, kept: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * kept) if kept < 1 else len(content) - 1])
    if name == "manifest.json" and kept == 1:
        (folder / name).write_bytes(content[:-2])  # without the final brace; only the newline is not missed
    with pytest.raises(ArtifactError, match=rf"{name}.*distilrec export"):
        verify(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "items.parquet", "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: missing"):
        verify(folder)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_an_unknown_schema_version_says_what_is_read(folder: Path, version: object) -> None:
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "schema_version": version})
    with pytest.raises(ArtifactError, match=r"schema version .*this program reads 1.*again"):
        verify(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "a\\..\\b", "", "."])
def test_a_path_outside_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("x")
    write_json(folder / "manifest.json", {"schema_version": 1, "files": {name: "0" * 64}})
    with pytest.raises(ArtifactError, match="outside the artifact"):
        read_manifest(folder)


def test_a_link_that_leaves_the_folder_is_refused(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    shutil.move(folder / "metrics.json", outside)
    (folder / "metrics.json").symlink_to(outside)
    with pytest.raises(ArtifactError, match=r"metrics.json.*outside the artifact"):
        verify(folder)


@pytest.mark.parametrize("files", [None, ["a"], {"a": 1}])
def test_a_manifest_without_hashes_is_refused(folder: Path, files: object) -> None:
    write_json(folder / "manifest.json", {"schema_version": 1, "files": files})
    with pytest.raises(ArtifactError, match="sha256 hashes"):
        verify(folder)


def test_a_file_that_was_asked_for_must_be_listed(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not list 'extra.bin'"):
        verify(folder, only=["extra.bin"])


def test_no_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no such folder; give .*runs/NAME/export"):
        verify(tmp_path / "nowhere")


def test_a_json_list_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="expected a JSON object, found list"):
        verify(tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "artifact"

    def killed() -> None:
        with written_folder(target) as folder:
            (folder / "half").write_text("x")
            assert not target.exists()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert list(target.parent.iterdir()) == []
    with written_folder(target) as folder:
        write_json(folder / "a.json", {"a": 1})
        seal(folder, {})
    assert sorted(path.name for path in target.iterdir()) == ["a.json", "manifest.json"]
    assert list(target.parent.iterdir()) == [target]


def test_a_finished_folder_is_never_overwritten(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(ArtifactError, match="exists already"), written_folder(folder) as other:
        (other / "a").write_text("x")
    assert (folder / "manifest.json").read_bytes() == before


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    full = pytest.raises(StorageError, match=r"artifact: cannot be written .*free some space")
    with full, written_folder(tmp_path / "artifact"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_manifest_without_a_digest_verifies(folder: Path) -> None:
    manifest = read_json(folder / "manifest.json")
    del manifest[artifact.DIGEST]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert verify(folder)["files"]

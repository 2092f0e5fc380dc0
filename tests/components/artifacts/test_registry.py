from __future__ import annotations

from pathlib import Path

import pytest

from components.artifacts.registry import Registry
from components.errors import ArtifactError, UnknownNameError, UserError
from tests.tiny_artifact import write_artifact


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "releases")


def test_releases_are_numbered_and_the_newest_serves(registry: Registry, tmp_path: Path) -> None:
    first = registry.put("shop", write_artifact(tmp_path / "a", seed=0))
    second = registry.put("shop", write_artifact(tmp_path / "b", seed=1))
    assert (first.version, second.version) == ("v0001", "v0002")
    assert registry.get("shop").version == "v0002"
    assert registry.get("shop", "v0001").manifest["seeds"] == [0]
    assert [(one.version, one.current) for one in registry.releases("shop")] == [("v0001", False), ("v0002", True)]
    assert registry.names() == ["shop"]


def test_a_rollback_promotes_an_older_version(registry: Registry, tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a")
    registry.put("shop", artifact)
    registry.put("shop", artifact, promote=False)
    assert registry.get("shop").version == "v0001"
    registry.promote("shop", "v0002")
    registry.promote("shop", "v0001")
    assert registry.get("shop").version == "v0001"
    assert sorted(path.name for path in (registry.root / "shop").iterdir()) == ["current.json", "v0001", "v0002"]


def test_only_what_the_manifest_lists_is_copied(registry: Registry, tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a")
    (artifact / "notes.txt").write_text("private")
    release = registry.put("shop", artifact)
    assert not (release.path / "notes.txt").exists()


def test_a_corrupt_artifact_is_not_taken_in(registry: Registry, tmp_path: Path) -> None:
    artifact = write_artifact(tmp_path / "a")
    (artifact / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"items.parquet"):
        registry.put("shop", artifact)
    assert registry.releases("shop") == []


def test_a_release_that_rotted_is_not_promoted(registry: Registry, tmp_path: Path) -> None:
    release = registry.put("shop", write_artifact(tmp_path / "a"), promote=False)
    (release.path / "metrics.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"metrics.json"):
        registry.promote("shop", release.version)


def test_unknown_names_and_versions_list_the_known(registry: Registry, tmp_path: Path) -> None:
    registry.put("shop", write_artifact(tmp_path / "a"), promote=False)
    with pytest.raises(UnknownNameError, match=r"known: shop; did you mean 'shop'"):
        registry.get("shp")
    with pytest.raises(UnknownNameError, match=r"v0009.*known: v0001"):
        registry.get("shop", "v0009")
    with pytest.raises(UserError, match=r"no current version; promote one of v0001"):
        registry.get("shop")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "x" * 65])
def test_a_name_that_is_no_folder_name_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(UserError, match="not usable"):
        registry.releases(name)


def test_a_damaged_pointer_is_named(registry: Registry, tmp_path: Path) -> None:
    registry.put("shop", write_artifact(tmp_path / "a"))
    (registry.root / "shop" / "current.json").write_text('{"version": "../../x"}')
    with pytest.raises(ArtifactError, match=r"current.json.*promote one"):
        registry.get("shop")

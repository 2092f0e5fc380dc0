from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from components.errors import StorageError
from components.features.cache import VectorCache


def vectors(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


def test_what_was_stored_comes_back_by_text(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "settings")
    cache.store(["a", "b\nb", "木"], vectors(3))
    cache.store(["c"], vectors(1, 100))
    found = VectorCache(tmp_path, "settings").load(["木", "c", "unknown"])
    assert found.keys() == {"木", "c"}
    assert found["木"].tolist() == [6.0, 7.0, 8.0]
    assert found["c"].tolist() == [100.0, 101.0, 102.0]


def test_other_settings_do_not_share(tmp_path: Path) -> None:
    VectorCache(tmp_path, "one").store(["a"], vectors(1))
    assert VectorCache(tmp_path, "two").load(["a"]) == {}


def test_the_same_content_is_one_file_and_no_partial_one_stays(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, "settings")
    cache.store(["a"], vectors(1))
    cache.store(["a"], vectors(1))
    assert [path.suffix for path in cache.folder.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage"])
def test_a_damaged_file_is_left_out_with_a_warning_and_healed(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = VectorCache(tmp_path, "settings")
    cache.store(["good"], vectors(1))
    good = set(cache.folder.iterdir())
    cache.store(["bad"], vectors(1, 50))
    (path,) = set(cache.folder.iterdir()) - good
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes({"truncate": path.read_bytes()[:-5], "flip": bytes(content), "garbage": b"no tensors"}[damage])
    with caplog.at_level(logging.WARNING):
        assert cache.load(["good", "bad"]).keys() == {"good"}
    assert path.name in caplog.text
    assert "encoded again" in caplog.text
    cache.store(["bad"], vectors(1, 50))
    caplog.clear()
    assert cache.load(["good", "bad"]).keys() == {"good", "bad"}
    assert caplog.text == ""


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageError, match=r"file.*cannot be written \(.*free space"):
        VectorCache(blocked, "settings").store(["a"], vectors(1))

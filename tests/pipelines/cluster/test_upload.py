from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import UserError
from pipelines.cluster import upload
from pipelines.cluster.upload import gather, stage


def fill(root: Path, *names: str, size: int = 3) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)


def own(root: Path, *excludes: str) -> set[str]:
    """What of the working folder goes along, our packages aside."""
    return {file.name for file in gather(root, excludes) if file.path.is_relative_to(root.resolve())}


def test_a_job_takes_our_packages_and_the_working_folder_along(tmp_path: Path) -> None:
    fill(tmp_path, "shop.yaml", "configs/more.yaml", "notes/data/small.csv")
    names = {file.name for file in gather(tmp_path)}
    assert {"shop.yaml", "configs/more.yaml", "notes/data/small.csv"} <= names
    assert {"pipelines/__main__.py", "components/data/sources.py", "serve/pages/index.html"} <= names
    assert not any("__pycache__" in name for name in names)
    stage(gather(tmp_path), tmp_path / "staged")
    assert (tmp_path / "staged/components/data/sources.py").read_bytes() == Path(upload.ROOT).joinpath(
        "components/data/sources.py"
    ).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "runs/shop/x",
        "data/log.csv",
        ".git/config",
        ".venv/bin/python",
        "a/__pycache__/x.pyc",
        "a/.mypy_cache/x",
        "b.pyc",
    ],
)
def test_runs_data_and_caches_stay(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "shop.yaml", name)
    assert own(tmp_path) == {"shop.yaml"}


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        "a/.env.local",
        "server.pem",
        "deploy/tls.key",
        "id_rsa",
        ".aws/credentials",
        ".ray/auth_token",
        "auth_token",
    ],
)
def test_secrets_stay(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "shop.yaml", name)
    assert own(tmp_path) == {"shop.yaml"}


def test_a_link_out_of_the_folder_stays(tmp_path: Path) -> None:
    fill(tmp_path, "work/shop.yaml", "secret.txt")
    (tmp_path / "work/link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "work/folder").symlink_to(tmp_path)
    assert own(tmp_path / "work") == {"shop.yaml"}


def test_further_patterns_stay(tmp_path: Path) -> None:
    fill(tmp_path, "shop.yaml", "notebooks/a.ipynb", "logs/a.txt", "logs/keep.csv")
    assert own(tmp_path, "notebooks", "logs/*.txt") == {"shop.yaml", "logs/keep.csv"}


def test_too_much_is_refused_with_the_largest_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LIMIT_BYTES", 8 * 2**20)
    fill(tmp_path, "movies/a.bin", "movies/b.bin", size=5 * 2**20)
    fill(tmp_path, "songs.bin", size=2**20)
    with pytest.raises(UserError, match=r"take 1\d\.\d MiB along.*largest: movies/ \(10\.0 MiB\), .*--exclude PATTERN"):
        gather(tmp_path)


def test_too_many_files_are_refused_before_all_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "LIMIT_FILES", 5)
    fill(tmp_path, *(f"pictures/{number}.png" for number in range(20)))
    with pytest.raises(UserError, match=r"more than 5 files.*largest: pictures/"):
        gather(tmp_path)


def test_no_folder_is_no_upload(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder; give --working-dir"):
        gather(tmp_path / "none")

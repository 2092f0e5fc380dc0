from pathlib import Path

import pytest

from components.data.sources import find_sources, format_of, input_fingerprint, locate
from components.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv.gz", "README.md", "_hidden.csv", "deep/c.jsonl", "deep/er/d.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("b.csv", ["b.csv"]),
        ("", ["a.csv.gz", "b.csv", "c.jsonl", "d.parquet"]),
        ("deep", ["c.jsonl", "d.parquet"]),
        ("*.csv*", ["a.csv.gz", "b.csv"]),
        ("*/*.jsonl", ["c.jsonl"]),
        ("**/*.parquet", ["d.parquet"]),
        ("deep/?.jsonl", ["c.jsonl"]),
    ],
)
def test_a_file_a_folder_and_a_glob(tree: Path, path: str, names: list[str]) -> None:
    sources = find_sources(str(tree), path, "input.interactions")
    assert [Path(source.path).name for source in sources] == names
    assert [source.index for source in sources] == list(range(len(names)))


def test_a_uri_of_any_filesystem(tree: Path) -> None:
    assert find_sources("elsewhere", f"file://{tree}/b.csv", "k")[0].size == len("b.csv")
    assert find_sources(f"file://{tree}", "b.csv", "k")[0].format == "csv"


def test_an_absolute_path_ignores_the_root(tree: Path) -> None:
    assert find_sources("elsewhere", str(tree / "b.csv"), "k")[0].path == str(tree / "b.csv")


@pytest.mark.parametrize("path", ["absent.csv", "absent/*.csv", "*.tsv"])
def test_a_missing_file_names_the_key_and_the_path(tree: Path, path: str) -> None:
    with pytest.raises(
        DataError, match=r"input\.interactions: .* does not exist .*check input\.interactions .* and data"
    ):
        find_sources(str(tree), path, "input.interactions")


def test_an_unknown_scheme(tree: Path) -> None:
    with pytest.raises(DataError, match="no filesystem for nfs"):
        locate(str(tree), "nfs://host/log.csv")


@pytest.mark.parametrize(
    ("name", "expected"), [("x.CSV", "csv"), ("x.inter", "tsv"), ("x.json.gz", "json"), ("x.pq", "parquet")]
)
def test_the_name_tells_the_format(name: str, expected: str) -> None:
    assert format_of(name) == expected


def test_an_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"unknown format '\.xlsx'; known: \.csv"):
        format_of("log.xlsx")


def test_the_fingerprint_sees_a_replaced_file(tree: Path) -> None:
    before = input_fingerprint(str(tree), ["b.csv", None])
    assert input_fingerprint(str(tree), ["b.csv", None]) == before
    (tree / "b.csv").write_text("something longer")
    assert input_fingerprint(str(tree), ["b.csv", None]) != before

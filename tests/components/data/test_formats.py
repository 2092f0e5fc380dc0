import gzip
from pathlib import Path

import polars as pl
import pytest

from components.data import formats
from components.data.formats import MALFORMED, NOT_JSON, column_names, read_batches
from components.data.presets import TableFormat
from components.data.sources import find_sources
from components.errors import DataError

PLAIN = TableFormat()
FRAME = pl.DataFrame({"u": ["a", "b\nc", "日本"], "i": ["1", "2", "3"]})


def read(
    path: Path, form: TableFormat = PLAIN, columns: tuple[str, ...] = ("u", "i")
) -> tuple[pl.DataFrame, list[str]]:
    source = find_sources(str(path.parent), path.name, "k")[0]
    batches = list(read_batches(source, form, list(columns)))
    return pl.concat([batch.frame for batch in batches]), [line for batch in batches for line in batch.malformed]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.tsv", "log.jsonl", "log.jsonl.gz", "log.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    body = tmp_path / name.removesuffix(".gz")
    if ".csv" in name or ".tsv" in name:
        FRAME.write_csv(body, separator="\t" if ".tsv" in name else ",")
    elif ".jsonl" in name:
        FRAME.write_ndjson(body)
    else:
        FRAME.write_parquet(body)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(body.read_bytes()))
    source = find_sources(str(tmp_path), name, "k")[0]
    assert column_names(source, PLAIN) == ["u", "i"]
    assert read(path)[0].equals(FRAME)
    assert read(path, columns=("i",))[0].columns == ["i"]


def test_a_line_without_the_columns_of_the_header_is_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i\na,1\nb\nc,2,3\nd,4\n")
    frame, malformed = read(path)
    assert frame["u"].to_list() == ["a", "d"]
    assert malformed == ["b", "c,2,3"]


def test_bytes_that_are_no_utf8_do_not_stop_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"u,i\na,1\n\xff\xfe,2\n")
    assert read(path)[0]["u"].to_list() == ["a", "\ufffd\ufffd"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"\xef\xbb\xbfu,i\na,1\n")
    assert read(path)[0].columns == ["u", "i"]


def test_separators_of_two_characters_and_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes('1::Léon: "The" Pro::Crime\n2::no genre\n'.encode("latin-1"))
    form = TableFormat(names=("i", "title", "genres"), separator="::", quoted=False, encoding="latin-1")
    frame, malformed = read(path, form, ("i", "title"))
    assert frame.rows() == [("1", 'Léon: "The" Pro')]
    assert malformed == ["2\x1fno genre"]


def test_typed_headers(tmp_path: Path) -> None:
    path = tmp_path / "ml.inter"
    path.write_text('u:token\ti:token\n"a\t1\n')
    assert read(path, TableFormat(quoted=False, typed_header=True))[0].rows() == [('"a', "1")]


def test_bad_json_lines_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"u":"a","i":1}\n{broken\n3\n\n{"u":"b","i":[1,2],"x":{}}\n{"u":"c","i":["p","q"]}\n{"i":1.5}\n')
    source = find_sources(str(tmp_path), "log.jsonl", "k")[0]
    (batch,) = read_batches(source, PLAIN, ["u", "i"])
    assert batch.frame.rows() == [("a", "1"), ("b", "[1, 2]"), ("c", "p, q"), (None, "1.5")]
    assert (batch.malformed, batch.reason) == (["{broken", "3"], NOT_JSON)


def test_blocks_end_at_lines_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK_BYTES", 7)
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(f'{{"u":"user{n}","i":"{n}"}}' for n in range(20)))
    assert read(path)[0]["i"].to_list() == [str(n) for n in range(20)]


def test_malformed_lines_after_the_last_good_one_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i\nonly\n")
    frame, malformed = read(path)
    assert (frame.height, malformed) == (0, ["only"])
    assert MALFORMED


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet", "log.csv.gz"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    source = find_sources(str(tmp_path), name, "k")[0]
    with pytest.raises(DataError, match=rf"{name}: cannot be read as .*empty, truncated or of another format"):
        column_names(source, PLAIN)


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    FRAME.write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read as parquet .*truncated.*copy it again"):
        read(path)


def test_a_truncated_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"u,i\n" + b"a,1\n" * 1000)[:-20])
    with pytest.raises(DataError, match="cannot be read as csv"):
        read(path)

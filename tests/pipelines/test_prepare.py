"""Stage prepare as a whole: against plain Python, in one and in many partitions, on bad input and on real logs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.cleaning import PrepareConfig
from components.data.prepared import PreparedSet
from components.data.readers import InputConfig, Log, read_rows
from components.data.sequences import gather, user_range
from components.errors import DataError
from pipelines import prepare as stage
from pipelines.prepare import prepare, write_standalone_manifest
from pipelines.stages import StageContext
from tests.pipelines.plain_prepare import Row, plain_prepare
from tests.pipelines.recorder import Recorder
from tests.pipelines.run_configs import PLAIN_RUN, make_config

LOG = InputConfig(interactions="log.csv")
ALL = {"min_interactions_per_user": 1, "min_interactions_per_item": 1}


class Ranges:
    """What Ray does, without Ray: every range of users is a partition of its own, and some share a block."""

    def __init__(self, blocks: list[pa.Table], num_ranges: int) -> None:
        self.blocks, self.num_ranges = blocks, num_ranges

    def transform(self, function: Callable[..., pa.Table], *arguments: Any) -> Ranges:
        return Ranges([function(block, *arguments) for block in self.blocks], self.num_ranges)

    def collect(self, function: Callable[..., pa.Table], *arguments: Any) -> Iterator[pa.Table]:
        return (function(block, *arguments) for block in reversed(self.blocks))


def read_in_ranges(log: Log, config: PrepareConfig, rejected: Path, progress: Recorder) -> Ranges:
    num_ranges = config.partitions or 5
    rows = pl.concat(part for source in log.sources for part in read_rows(source, log, rejected))
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1).with_columns(user_range(num_ranges).alias("range"))
    blocks = [shuffled.filter(pl.col("range") % 3 == part).drop("range").to_arrow() for part in range(3)]
    return Ranges([gather(b, num_ranges, config.duplicates, config.min_rating) for b in blocks], num_ranges)


def write_log(folder: Path, rows: list[Row]) -> None:
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "log.csv")


def run(
    folder: Path, source: InputConfig = LOG, name: str = "set", **config: Any
) -> tuple[PreparedSet, dict[str, Any]]:
    out = folder / name
    out.mkdir()
    counts = prepare(str(folder), source, PrepareConfig(**config), out, Recorder())
    write_standalone_manifest(out, counts)
    return PreparedSet(out), counts


def users_of(prepared: PreparedSet) -> dict[str, list[tuple[str, int]]]:
    sequences = prepared.sequences
    assert sequences.timestamps is not None
    named = [prepared.item_ids[item - 1] for item in sequences.items]
    pairs = list(zip(named, sequences.timestamps.tolist(), strict=True))
    borders = sequences.offsets.tolist()
    return {user: pairs[borders[row] : borders[row + 1]] for row, user in enumerate(prepared.user_ids)}


def file_bytes(prepared: PreparedSet) -> tuple[bytes, str]:
    table = pl.concat([pl.read_parquet(file) for file in prepared.sequence_files])
    return (prepared.path / "items.parquet").read_bytes(), json.dumps(table.to_dicts())


LETTERS = st.text("abcdxyzéж\n,\"' ", min_size=1, max_size=2).filter(str.strip)
ROWS = st.lists(st.tuples(LETTERS, st.sampled_from("pqrstuv"), st.integers(0, 12)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    duplicates=st.sampled_from(["exact", "first", "last", "keep"]),
    least=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    cuts=st.sampled_from([None, (4, 9)]),
    partitions=st.integers(1, 9),
)
def test_one_and_many_partitions_agree_with_plain_python(
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Row],
    duplicates: str,
    least: tuple[int, int],
    cuts: tuple[int, int] | None,
    partitions: int,
) -> None:
    config: dict[str, Any] = {
        "duplicates": duplicates,
        "min_interactions_per_user": least[0],
        "min_interactions_per_item": least[1],
        "partitions": partitions,
    }
    if cuts:
        config |= {"split": "global_time", "valid_from": cuts[0], "test_from": cuts[1]}
    plain = plain_prepare(rows, PrepareConfig(**config), cuts)
    with tempfile.TemporaryDirectory() as name, monkeypatch.context() as patch:
        folder = Path(name)
        write_log(folder, rows)
        if not any(count for _, count in plain.items):
            with pytest.raises(DataError, match=r"the k-core|no interaction is left to train on"):
                run(folder, **config)
            return
        fast, counts = run(folder, **config)
        patch.setattr(stage, "read_locally", read_in_ranges)
        many, many_counts = run(folder, name="many", **config)
        assert file_bytes(fast) == file_bytes(many)
        assert counts == many_counts
        assert users_of(fast) == plain.sequences
        assert list(zip(fast.item_ids, fast.counts[1:].tolist(), strict=True)) == plain.items
        ends = zip(fast.sequences.train_end.tolist(), fast.sequences.valid_end.tolist(), strict=True)
        assert dict(zip(fast.user_ids, ends, strict=True)) == plain.ends
        assert fast.sequences.users.tolist() == list(range(1, len(plain.sequences) + 1))


def test_every_step_is_counted(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp,rating\n" + "".join(f"u{n % 4},i{n % 3},{n},5\n" for n in range(40))
    text += "u0,i0,0,5\nu1,i1,99,1\n,i1,5,5\nu1,i1,soon,5\n"
    (tmp_path / "log.csv").write_text(text)
    prepared, counts = run(tmp_path, max_rejected=0.1, min_rating=2)
    assert counts["rows_read"] == 44
    assert counts["rejected"] == {"timestamp is not a time": 1, "user_id is missing": 1}
    assert (counts["duplicates"], counts["low_rated"], counts["interactions"]) == (1, 1, 40)
    assert (counts["users"], counts["num_items"], counts["density"]) == (4, 3, round(40 / 12, 9))
    assert counts["k_core"] == {"interactions_per_round": [40], "items_per_round": [3]}
    assert counts["split"]["test_cases"] == 4
    assert json.loads((prepared.path / "audit.json").read_text())["test_cases"] == 4
    assert pl.read_parquet(prepared.path / "rejected" / "*.parquet").height == 2


def test_item_numbers_follow_training_alone(tmp_path: Path) -> None:
    write_log(tmp_path, [(user, item, time) for user in "ab" for time, item in enumerate("xyxzz")])
    prepared, _ = run(tmp_path, **ALL, duplicates="keep")
    assert prepared.item_ids == ["x", "y", "z"]
    assert prepared.counts.tolist() == [0, 4, 2, 0]  # z occurs only in validation and test: a cold item


def test_shares_of_a_global_split(tmp_path: Path) -> None:
    write_log(tmp_path, [(f"u{n % 10}", f"i{n % 7}", 1_600_000_000 + 977 * n) for n in range(1000)])
    prepared, counts = run(tmp_path, split="global_time", valid_fraction=0.2, test_fraction=0.1)
    assert counts["split"]["training_interactions"] == 700
    assert prepared.sequences.valid_end.sum() == 900
    assert counts["split"]["valid_from"] < counts["split"]["test_from"]


def test_chunks_are_sequences_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path, [(f"u{user}", f"i{(user + time) % 5}", time) for user in range(40) for time in range(3 + user)])
    pl.DataFrame({"user_id": [f"u{user}" for user in range(39)], "age": range(39)}).write_csv(tmp_path / "users.csv")
    source = InputConfig(interactions="log.csv", users="users.csv")
    config: dict[str, Any] = {"chunk_length": 10, "split": "sequences", "test_fraction": 0.3, "partitions": 5, **ALL}
    prepared, counts = run(tmp_path, source, **config)
    sequences = prepared.sequences
    lengths = [length for user in range(40) if (length := (3 + user) % 10) > 1]
    assert sorted(sequences.lengths[sequences.lengths < 10].tolist()) == sorted(lengths)
    assert int((sequences.lengths == 10).sum()) == sum((3 + user) // 10 for user in range(40))
    assert counts["users"] == len(sequences) == len(prepared.user_ids) > len(set(prepared.user_ids)) == 40
    assert counts["user_file"]["users_missing_from_user_file"] == 1
    ages = dict(zip(prepared.user_ids, prepared.user_attributes["age"], strict=True))
    assert all(ages[f"u{user}"] == str(user) for user in range(39))
    cases = sequences.cases("test")
    assert 0 < len(cases) == counts["split"]["test_cases"] < 0.5 * len(sequences)
    assert not sequences.train_end[cases.rows].any()
    assert (cases.lengths == sequences.lengths[cases.rows] - 1).all()
    assert len(sequences.cases("valid")) == counts["split"]["valid_cases"] > 0
    monkeypatch.setattr(stage, "read_locally", read_in_ranges)
    many, many_counts = run(tmp_path, source, name="many", **config)
    assert file_bytes(prepared) == file_bytes(many)
    assert counts == many_counts


def test_what_chunks_leave_out_is_counted(tmp_path: Path) -> None:
    write_log(tmp_path, [(f"u{user}", f"i{time % 3}", time) for user in range(4) for time in range(5)])
    _, counts = run(tmp_path, **ALL, chunk_length=4)
    assert counts["chunks"] == {"sequences": 4, "left_out": 4}


@pytest.mark.parametrize("split", ["leave_one_out", "global_time", "sequences"])
def test_chunks_that_leave_nothing_name_themselves(tmp_path: Path, split: str) -> None:
    write_log(tmp_path, [(f"u{user}", f"i{user % 2}", user) for user in range(6)])
    with pytest.raises(DataError, match=r"prepare\.chunk_length: 4 leaves nothing"):
        run(tmp_path, **ALL, chunk_length=4, split=split)


def test_a_test_share_that_takes_all_names_itself(tmp_path: Path) -> None:
    write_log(tmp_path, [("u", f"i{time}", time) for time in range(3)])
    with pytest.raises(DataError, match=r"prepare\.split: no interaction is left to train on; lower test_fraction"):
        run(tmp_path, **ALL, split="sequences", test_fraction=0.98, valid_fraction=0.01)


def test_a_leak_is_reported_or_blocks(tmp_path: Path) -> None:
    day = 86_400
    write_log(tmp_path, [(user, item, day * (n + 20 * (user == "b"))) for user in "ab" for n, item in enumerate("xyz")])
    prepared, _ = run(tmp_path, **ALL)
    assert json.loads((prepared.path / "audit.json").read_text())["leaks"]
    with pytest.raises(DataError, match=r"audit: block: the split leave_one_out leaks"):
        run(tmp_path, name="blocked", **ALL, audit="block")


def test_items_without_text_are_kept_or_dropped(tmp_path: Path) -> None:
    write_log(tmp_path, [(user, item, n) for user in "abc" for n, item in enumerate("wxyz")])
    (tmp_path / "items.csv").write_text("item_id,title\nw,Wide\nx,\ny,Yellow\n")
    source = InputConfig(interactions="log.csv", items="items.csv")
    prepared, counts = run(tmp_path, source, **ALL)
    assert dict(zip(prepared.item_ids, prepared.texts, strict=True)) == {"w": "Wide.", "x": "", "y": "Yellow.", "z": ""}
    assert counts["items"]["items_missing_from_item_file"] == 1
    assert json.loads((prepared.path / "audit.json").read_text())["items"]["items_missing_from_item_file"] == 1
    prepared, counts = run(tmp_path, source, "dropped", **ALL, drop_items_without_text=True)
    assert prepared.item_ids == ["w", "y"]
    assert counts["dropped_items_without_text"] == 2


# Bad input


def test_a_missing_file_names_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"input\.interactions: .*log\.csv does not exist .*check input\.interactions"):
        run(tmp_path)


@pytest.mark.parametrize("text", ["user_id,item_id,timestamp\n", ""])
def test_an_empty_log(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=r"the log holds no rows|is empty"):
        run(tmp_path)


def test_a_log_of_one_user(tmp_path: Path) -> None:
    rows = [("only", f"i{n}", n) for n in range(9)]
    write_log(tmp_path, rows)
    with pytest.raises(
        DataError, match=r"the k-core \(prepare\.min_interactions_per_user: 5.*leaves nothing of 9 rows"
    ):
        run(tmp_path)
    prepared, _ = run(tmp_path, name="allowed", **ALL)
    assert (prepared.user_ids, prepared.num_items) == (["only"], 9)


def test_a_third_of_the_rows_unusable(tmp_path: Path) -> None:
    lines = [f"u{n},i,{n}" if n % 3 else f"u{n},i,soon" for n in range(30)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    with pytest.raises(
        DataError, match=r"10 of 30 rows are unusable \(33\.3%.*timestamp is not a time: 10; for example"
    ):
        run(tmp_path)


def test_nan_ratings_are_quarantined(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,rating\na,x,1,NaN\na,y,2,4\nb,x,3,5\n")
    prepared, counts = run(tmp_path, **ALL, max_rejected=0.5)
    assert counts["rejected"] == {"rating is not a number": 1}
    assert prepared.ratings is not None
    assert sorted(prepared.ratings.tolist()) == [4.0, 5.0]


def test_a_filter_that_empties_the_data_names_itself(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp,rating\na,x,1,2\n")
    with pytest.raises(DataError, match=r"prepare\.min_rating: no row is rated at least 4"):
        run(tmp_path, name="a", min_rating=4)
    with pytest.raises(DataError, match=r"prepare\.drop_items_without_text: no item has a text"):
        run(tmp_path, name="b", drop_items_without_text=True)
    with pytest.raises(DataError, match=r"no interaction is left to train on"):
        run(tmp_path, name="c", **ALL, split="global_time", valid_from="1969-01-01", test_from="1969-01-02")


def test_a_run_on_a_catalog_of_one_item_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path, [(f"u{n}", "i" if n < 9 else f"i{n}", n) for n in range(12)])
    config = make_config(tmp_path, PLAIN_RUN, f"data={tmp_path}", "prepare.min_interactions_per_user=1")
    context = StageContext(config, "prepare", "", tmp_path / "out", tmp_path / "work", {}, Recorder())
    context.folder.mkdir()
    message = r"of 12 rows a single item is left, and nothing to rank it .*prepare\.min_interactions_per_item \(5\)"
    with pytest.raises(DataError, match=message):
        stage.run(context)


def test_rules_that_need_columns_which_the_log_lacks(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,position\na,x,1\n")
    with pytest.raises(DataError, match=r"prepare\.min_rating needs a rating column; the log has user_id"):
        run(tmp_path, name="a", min_rating=4)
    with pytest.raises(DataError, match=r"global_time needs timestamps"):
        run(tmp_path, name="b", split="global_time")


# Ray, and real logs


@pytest.mark.ray
def test_ray_writes_what_the_fast_path_writes(tmp_path: Path, ray_session: None) -> None:
    rows = [(f"user {n * 7919 % 97}", f"i{n * n % 31}", n * 104_729 % 5000) for n in range(4000)]
    for part in range(3):
        folder = tmp_path / "log"
        folder.mkdir(exist_ok=True)
        pl.DataFrame(rows[part::3], schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(
            folder / f"{part}.csv"
        )
    with (tmp_path / "log" / "0.csv").open("a") as stream:
        stream.write(",i1,5\nbroken\n")
    source = InputConfig(interactions="log/*.csv")
    fast, fast_counts = run(tmp_path, source)
    ray, ray_counts = run(tmp_path, source, "ray", fast_path_rows=0, partitions=4)
    assert len(ray.sequence_files) == 4
    assert file_bytes(fast) == file_bytes(ray)
    assert fast_counts == ray_counts
    (tmp_path / "log" / "1.csv").write_text("user_id,item_id\na,b\n")
    with pytest.raises(DataError, match=r"1\.csv: no column 'timestamp'"):
        run(tmp_path, source, "bad", fast_path_rows=0, partitions=2)


@pytest.mark.parametrize(
    ("folder", "config", "size"),
    [
        ("amazon-scientific", {}, (8317, 4344, 58_492)),
        ("ml1m-multimodal", {}, (6040, 3416, 999_611)),
        ("ml-latest-small-2018", {}, (610, 3650, 90_274)),
        ("amazon-grocery-timestamps", {"split": "global_time"}, (6404, 4371, 80_226)),
    ],
)
def test_real_logs(
    real_data: Path, tmp_path: Path, folder: str, config: dict[str, Any], size: tuple[int, int, int]
) -> None:
    source = InputConfig(interactions="interactions.parquet", items="items.parquet")
    counts = prepare(str(real_data / folder), source, PrepareConfig(**config), tmp_path, Recorder())
    assert (counts["users"], counts["num_items"], counts["interactions"]) == size
    assert counts["items"].get("items_missing_from_item_file", 0) == 0

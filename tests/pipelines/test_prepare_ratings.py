"""Task `ratings` of stage prepare: order, labels, numbers, what is rejected; the same through Ray."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.data import ratings as ratings_module
from components.data.cleaning import PrepareConfig
from components.data.rating_stream import RatingStream
from components.data.readers import InputConfig
from components.errors import DataError
from pipelines.prepare_ratings import prepare_ratings
from tests.pipelines.recorder import Recorder
from tests.pipelines.stream.logs import rating_lines, write_log


def prepared(folder: Path, lines: list[str] | None = None, **options: Any) -> tuple[Path, dict[str, Any]]:
    if lines is not None:
        write_log(folder, lines)
    out = folder / f"out-{len(list(folder.iterdir()))}"
    out.mkdir()
    config = PrepareConfig.model_validate({"task": "ratings", **options})
    return out, prepare_ratings(str(folder), InputConfig(interactions="ratings.csv"), config, out, Recorder())


def stream(folder: Path) -> pl.DataFrame:
    files = sorted((folder / "ratings").glob("*.parquet"))
    found = pl.concat([pl.read_parquet(file) for file in files])
    for name in ("user", "item"):
        found = found.join(
            pl.read_parquet(folder / f"{name}s.parquet").select(name, f"{name}_id"), on=name, maintain_order="left"
        )
    return found


def test_ratings_come_in_the_order_of_time_with_both_labels(tmp_path: Path) -> None:
    lines = ["b,x,4,300", "a,y,3.5,100", "a,x,0.5,200", "c,y,5,200"]
    out, counts = prepared(tmp_path, lines)
    found = stream(out)
    assert found["user_id"].to_list() == ["a", "a", "c", "b"]
    assert found["timestamp"].to_list() == [100, 200, 200, 300]
    assert found["binary"].to_list() == [0, 0, 1, 1]
    assert found["five_class"].to_list() == [3, 0, 4, 3]
    assert found["user"].to_list() == [0, 0, 1, 2]  # by first appearance
    assert found["item"].to_list() == [0, 1, 0, 1]
    assert (counts["ratings"], counts["users"], counts["num_items"], counts["positive"]) == (4, 3, 2, 0.5)


def plain(lines: list[str]) -> list[tuple[str, str, float, int]]:
    rows = [line.split(",") for line in lines]
    ordered = sorted(
        ((int(time), place, user, item, float(rating)) for place, (user, item, rating, time) in enumerate(rows))
    )
    seen, kept = set(), []
    for time, _, user, item, rating in ordered:
        if (time, user, item, rating) not in seen:
            seen.add((time, user, item, rating))
            kept.append((user, item, rating, time))
    return kept


@pytest.mark.parametrize("run_rows", [50, 333, 10_000])
def test_many_small_runs_merge_to_what_sorting_gives(
    tmp_path: Path, run_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("components.data.ratings", "pipelines.prepare_ratings"):
        monkeypatch.setattr(f"{module}.RUN_ROWS", run_rows)
    monkeypatch.setattr(ratings_module, "SAMPLED", 8)
    monkeypatch.setattr("pipelines.prepare_ratings.GROUP_ROWS", 64)
    lines = rating_lines(1000)
    lines += lines[:30]  # exact repetitions
    out, counts = prepared(tmp_path, lines)
    assert stream(out).select("user_id", "item_id", "rating", "timestamp").rows() == plain(lines)
    assert counts["duplicates"] == 30
    reader = RatingStream(out, "binary")
    for start, size, border in ((0, 7, None), (128, 64, None), (0, 64, 999), (993, 500, None)):
        batches = list(reader.batches(size, start, border))
        users = np.concatenate([batch.users for batch in batches])
        assert users.tolist() == stream(out)["user"].to_list()[start:]
        assert all(len(batch) == size for batch in batches[:-2])
        ends = list(itertools.accumulate((len(batch) for batch in batches), initial=start))
        assert border is None or border in ends


def test_a_shuffled_stream_is_the_same_ratings_in_an_order_of_the_seed(tmp_path: Path) -> None:
    lines = rating_lines(500)
    ordered, _ = prepared(tmp_path, lines)
    first, _ = prepared(tmp_path, ratings={"order": "shuffled"})
    again, _ = prepared(tmp_path, ratings={"order": "shuffled"})
    other, _ = prepared(tmp_path, ratings={"order": "shuffled", "shuffle_seed": 1})
    assert stream(first).rows() == stream(again).rows()
    assert stream(first).rows() != stream(other).rows() != stream(ordered).rows()
    assert sorted(stream(first).rows()) == sorted(stream(ordered).rows())
    correlation = np.corrcoef(stream(first)["timestamp"].to_numpy(), np.arange(stream(first).height))[0, 1]
    assert abs(correlation) < 0.2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("u1,i1,7,1000000000", "rating is outside the scale 0.5 to 5"),
        ("u1,i1,0,1000000000", "rating is outside the scale 0.5 to 5"),
        ("u1,i1,NaN,1000000000", "rating is not a number"),
        ("u1,i1,,1000000000", "rating is missing"),
        ("u1,i1,4,", "timestamp is missing"),
        ("u1,i1,4,soon", "timestamp is not a time"),
        (",i1,4,1000000000", "user_id is missing"),
    ],
)
def test_unusable_ratings_are_put_aside_with_a_reason(tmp_path: Path, line: str, reason: str) -> None:
    _, counts = prepared(tmp_path, [*rating_lines(60), line])
    assert counts["rejected"] == {reason: 1}
    assert counts["rows_read"] == 61
    with pytest.raises(DataError, match=r"2 of 4 rows are unusable \(50.0%.*raise prepare.max_rejected"):
        prepared(tmp_path, [*rating_lines(2), line, line], duplicates="keep")


def test_a_log_without_ratings_or_times_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,item_id,timestamp\na,b,1\n")
    with pytest.raises(DataError, match=r"needs a column of ratings; the log has .*map input.columns.rating"):
        prepared(tmp_path)
    (tmp_path / "ratings.csv").write_text("user_id,item_id,position,rating\na,b,1,3\n")
    with pytest.raises(DataError, match=r"needs a column of timestamps; .*map input.columns.timestamp"):
        prepared(tmp_path)


def test_another_scale_has_no_five_classes(tmp_path: Path) -> None:
    lines = ["a,x,1,5", "a,y,0,6"]
    out, _ = prepared(tmp_path, lines, ratings={"scale": [0, 1], "threshold": 0.5})
    assert stream(out)["binary"].to_list() == [1, 0]
    assert len(RatingStream(out, "binary")) == 2
    with pytest.raises(DataError, match=r"no stars from 0.5 to 5 .*use stream.task: binary"):
        RatingStream(out, "five-class")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duplicates": "last"}, "duplicates: last is not for task: ratings"),
        ({"ratings": {"scale": [5, 1]}}, "expected the smallest rating before the largest"),
        ({"ratings": {"threshold": 5}}, "leaves one label alone on the scale 0.5 to 5"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrepareConfig.model_validate({"task": "ratings", **options})


@pytest.mark.ray
def test_ray_gives_the_same_stream(tmp_path: Path, ray_session: None) -> None:
    write_log(tmp_path, rating_lines(400))
    local, counts = prepared(tmp_path)
    apart, others = prepared(tmp_path, fast_path_rows=0)
    assert counts == others
    assert stream(local).rows() == stream(apart).rows()


def test_no_stream_is_no_stream(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no stream of ratings; prepare it with `prepare.task: ratings`"):
        RatingStream(tmp_path, "binary")

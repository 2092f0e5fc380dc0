from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import pipelines.serving.batch as module
from components.artifacts.format import read_json, seal
from components.errors import ArtifactError, DataError, UserError
from components.recommender import Recommender
from components.schema import MANIFEST_FILE
from pipelines.cli import app
from pipelines.serving.batch import batch, check_target
from pipelines.serving.batch_input import LARGEST_PIECE, SMALLEST_PIECE, Users, file_users, read_piece
from pipelines.serving.batch_worker import BatchWorker, Ranking, shard_name
from tests.tiny_artifact import item_id, write_artifact

NUM_ITEMS, NUM_USERS = 300, 1000


def histories(count: int = NUM_USERS, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, NUM_ITEMS + 1, rng.integers(0, 40)).tolist() for _ in range(count)]


def write_prepared(folder: Path, chunks: bool = False) -> None:
    (folder / "sequences").mkdir(parents=True)
    lists = histories()
    half = NUM_USERS // 2
    for part, rows in enumerate((range(half), range(half, NUM_USERS))):
        columns = {"user": [r + 1 for r in rows], "user_id": [f"u{r}" for r in rows], "items": [lists[r] for r in rows]}
        frame = pl.DataFrame(columns, schema={"user": pl.Int32, "user_id": pl.String, "items": pl.List(pl.Int32)})
        frame.write_parquet(folder / "sequences" / f"part-{part:05d}.parquet", row_group_size=130)
    manifest = {"schema_version": 1, **({"chunks": {}} if chunks else {})}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_prepared(tmp_path / "run" / "prepare")
    write_artifact(tmp_path / "run" / "export", num_items=NUM_ITEMS)
    fingerprint = hashlib.sha256((tmp_path / "run" / "prepare" / MANIFEST_FILE).read_bytes()).hexdigest()
    seal(tmp_path / "run" / "export", {"model": {"name": "tiny"}, "data_fingerprint": fingerprint})
    return tmp_path / "run"


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rank in this process; the list collects the shards that were ranked."""
    ranked: list[int] = []

    def rank(pieces: Any, artifact: Path, ranking: Ranking, target: Path, workers: int | None) -> Any:
        worker = BatchWorker(artifact, ranking, target)
        for piece in pieces:
            ranked.append(piece["shard"])
            yield worker.rank(Path(piece["file"]), piece["first"], piece["stop"], piece["shard"])

    monkeypatch.setattr(module, "_rank", rank)
    return ranked


def written(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(sorted(folder.glob("part-*.parquet")))


def expected(run: Path, k: int, exclude_seen: bool = True) -> list[Any]:
    lists = [[item_id(item) for item in history] for history in histories()]
    return Recommender(run / "export").recommend(lists, k, exclude_seen)


def check_order(found: list[str], scores: list[float], other: list[str], others: list[float]) -> None:
    """Both name the same items in the same order, but for items whose scores are equal to six digits."""
    np.testing.assert_allclose(scores, others, rtol=1e-5, atol=1e-5)
    for place in [place for place, (a, b) in enumerate(zip(found, other, strict=True)) if a != b]:
        near = [b for b, score in zip(other, others, strict=True) if abs(score - others[place]) < 1e-5]
        assert found[place] in near or place == len(found) - 1


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_thousand_users_get_what_recommend_says_to_the_last_bit(
    run: Path, without_ray: list[int], exclude_seen: bool
) -> None:
    batch(run, None, Ranking(20, exclude_seen, reproducible=True), None)
    table = written(run / "recommendations")
    assert table["user_id"].to_list() == [f"u{row}" for row in range(NUM_USERS)]
    for row, answer in zip(table.iter_rows(named=True), expected(run, 20, exclude_seen), strict=True):
        assert row["items"] == [item.item_id for item in answer.items]
        assert row["scores"] == [item.score for item in answer.items]
        assert row["fallback"] == answer.fallback


def test_the_fast_way_gives_the_same_items_and_scores_but_for_rounding(run: Path, without_ray: list[int]) -> None:
    found = batch(run, None, Ranking(20), None)
    answers = expected(run, 20)
    for row, answer in zip(written(found.folder).iter_rows(named=True), answers, strict=True):
        ids, scores = [item.item_id for item in answer.items], [item.score for item in answer.items]
        check_order(row["items"], row["scores"], ids, scores)
        assert row["fallback"] == answer.fallback
    assert found.manifest["fallbacks"] == sum(answer.fallback is not None for answer in answers) > 0
    assert (found.manifest["users"], found.ranked) == (NUM_USERS, NUM_USERS)
    assert found.manifest["key"]["model"].startswith("tiny@")
    assert found.manifest["users_per_second"] > 0
    assert pq.read_schema(found.folder / shard_name(0)).field("items").type.value_type == "string"


def test_lists_end_where_the_catalog_ends(run: Path, without_ray: list[int]) -> None:
    table = written(batch(run, None, Ranking(NUM_ITEMS + 50), None).folder)
    lengths = [NUM_ITEMS - len(set(history)) for history in histories()]
    assert table["items"].list.len().to_list() == lengths
    assert table["scores"].list.len().to_list() == lengths


def test_what_is_finished_is_not_ranked_again(run: Path, without_ray: list[int]) -> None:
    first = batch(run, None, Ranking(5), None)
    shards = sorted(first.folder.glob("part-*.parquet"))
    assert without_ray == list(range(len(shards)))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in shards}
    without_ray.clear()
    again = batch(run, None, Ranking(5), None)
    assert (without_ray, again.ranked, again.manifest) == ([], 0, first.manifest)

    manifest = read_json(first.folder / MANIFEST_FILE)  # as a kill leaves it: the key, some shards, one in work
    (first.folder / MANIFEST_FILE).write_text(json.dumps({"key": manifest["key"]}))
    shards[3].unlink()
    (first.folder / f".{shard_name(3)}.123").write_bytes(b"half")
    resumed = batch(run, None, Ranking(5), None)
    assert without_ray == [3]
    assert resumed.ranked == SMALLEST_PIECE
    assert resumed.manifest["users"] == NUM_USERS
    assert resumed.manifest["fallbacks"] == first.manifest["fallbacks"]
    for path, (content, changed) in before.items():
        assert path.read_bytes() == content
        assert path == shards[3] or path.stat().st_mtime_ns == changed
    assert not list(first.folder.glob(".part*"))


def test_a_shard_that_was_deleted_is_ranked_again(run: Path, without_ray: list[int]) -> None:
    folder = batch(run, None, Ranking(5), None).folder
    (folder / shard_name(2)).unlink()
    without_ray.clear()
    batch(run, None, Ranking(5), None)
    assert without_ray == [2]


def test_a_folder_of_another_kind_is_refused(run: Path, without_ray: list[int], tmp_path: Path) -> None:
    folder = batch(run, None, Ranking(5), None).folder
    with pytest.raises(UserError, match=r"recommendations of another kind \(k 5, not 6\); choose another --out"):
        batch(run, folder, Ranking(6), None)
    with pytest.raises(UserError, match="exclude_seen True, not False"):
        batch(run, folder, Ranking(5, exclude_seen=False), None)
    other = tmp_path / "other"
    write_artifact(other, num_items=NUM_ITEMS, seed=7)
    log = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": ["a"], "history": [["id-1"]]}).write_parquet(log)
    with pytest.raises(UserError, match=r"model 'tiny@.*not 'tiny@"):
        batch(other, folder, Ranking(5), log)
    with pytest.raises(UserError, match="holds no recommendations; choose another --out"):
        check_target(run / "export", {})
    with pytest.raises(UserError, match="holds no recommendations; choose another --out"):
        check_target(run / "prepare" / "sequences", {})


def test_a_set_on_which_the_model_was_not_trained_is_refused(run: Path) -> None:
    manifest = run / "prepare" / MANIFEST_FILE
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(UserError, match="was trained on another prepared set; run `distilrec run CONFIG`"):
        batch(run, None, Ranking(), None)
    manifest.unlink()
    with pytest.raises(UserError, match=r"no prepared set whose users .* by --users"):
        batch(run, None, Ranking(), None)


def test_histories_that_were_cut_are_refused(tmp_path: Path) -> None:
    write_prepared(tmp_path / "prepare", chunks=True)
    with pytest.raises(UserError, match=r"chunk_length cut histories.*--users"):
        module.prepared_users(tmp_path)


def test_a_corrupt_artifact_is_refused_before_anything_is_written(run: Path) -> None:
    model = run / "export" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match=r"model.safetensors"):
        batch(run, None, Ranking(), None)
    assert not (run / "recommendations").exists()


def test_a_file_with_histories_is_ranked(run: Path, without_ray: list[int], tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    rows = {"user_id": [7, 8, 9], "history": [["id-3", "nope", "id-4"], ["nope"], None]}
    pl.DataFrame(rows, schema={"user_id": pl.Int64, "history": pl.List(pl.String)}).write_parquet(file)
    found = batch(run, tmp_path / "out", Ranking(10, reproducible=True), file)
    table = written(found.folder)
    answers = Recommender(run / "export").recommend([["id-3", "id-4"], [], []], 10)
    assert table["user_id"].to_list() == ["7", "8", "9"]
    assert table["items"].to_list() == [[item.item_id for item in answer.items] for answer in answers]
    assert table["fallback"].to_list() == [None, "popularity", "popularity"]
    assert (found.manifest["unknown_items"], found.manifest["fallbacks"]) == (2, 2)
    assert any("entries of histories that the catalog does not hold" in line for line in found.lines())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_log_is_gathered_in_the_order_of_its_times(
    run: Path, without_ray: list[int], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.serving.batch_input.ROWS_PER_BUCKET", 100)
    rows = [
        (f"u{user}", item_id(item), 1000 + place)
        for user, h in enumerate(histories(50))
        for place, item in enumerate(h)
    ]
    shuffled = np.random.default_rng(3).permutation(len(rows))
    frame = pl.DataFrame([rows[row] for row in shuffled], schema=["user_id", "item_id", "timestamp"], orient="row")
    file = tmp_path / f"log.{kind}"
    if kind == "csv":
        frame = pl.concat(
            [frame.cast(pl.String), pl.DataFrame({"user_id": ["x"], "item_id": ["id-1"], "timestamp": ["?"]})]
        )
        frame.write_csv(file)
    else:
        frame.write_parquet(file)
    found = batch(run, tmp_path / "out", Ranking(10, reproducible=True), file)
    lists = {f"u{user}": [item_id(item) for item in history] for user, history in enumerate(histories(50)) if history}
    table = {row["user_id"]: row["items"] for row in written(found.folder).iter_rows(named=True)}
    answers = Recommender(run / "export").recommend(list(lists.values()), 10)
    assert table == {user: [item.item_id for item in one.items] for user, one in zip(lists, answers, strict=True)}
    assert sum(found.manifest["rejected"].values()) == (kind == "csv")
    assert (found.folder / "rejected").is_dir() == (kind == "csv")
    assert not (found.folder / "work").exists()


def test_bad_files_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv: no such file; --users takes"):
        batch(run, tmp_path / "out", Ranking(), tmp_path / "none.csv")
    file = tmp_path / "h.parquet"
    pl.DataFrame({"history": [["a"]]}).write_parquet(file)
    with pytest.raises(DataError, match="lacks the column user_id; it has: history"):
        file_users(file, tmp_path)
    pl.DataFrame({"user_id": ["a"], "history": ["a b"]}).write_parquet(file)
    with pytest.raises(DataError, match="must hold lists of item ids, oldest first, found"):
        file_users(file, tmp_path)
    pl.DataFrame(
        {"user_id": [], "history": []}, schema={"user_id": pl.String, "history": pl.List(pl.String)}
    ).write_parquet(file)
    with pytest.raises(DataError, match="there is no user to recommend to"):
        file_users(file, tmp_path).pieces()


def test_pieces_cover_every_row_once_whatever_the_row_groups(tmp_path: Path) -> None:
    file = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": [str(n) for n in range(3 * LARGEST_PIECE)]}).write_parquet(file, row_group_size=5000)
    pieces = Users([file], {}).pieces()
    assert [piece["shard"] for piece in pieces] == list(range(len(pieces)))
    found = [
        name
        for piece in pieces
        for table in read_piece(file, piece["first"], piece["stop"])
        for name in table["user_id"].to_pylist()
    ]
    assert found == [str(n) for n in range(3 * LARGEST_PIECE)]


def test_the_rate_does_not_count_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[Any, ...]] = []

    class Recorder:
        def start(self, total: int, unit: str, done: int = 0) -> None:
            calls.append(("start", total, unit, done))

        def advance(self, n: int = 1) -> None:
            calls.append(("advance", n))

    rows = [{"users": 10, "began": 5.0, "ended": 6.0}, {"users": 4, "began": 5.5, "ended": 9.0}]
    assert module._watch(rows, Recorder(), 30, 16) == 4.0  # type: ignore[arg-type]
    assert calls == [("start", 30, "users", 26), ("advance", 4)]


def test_the_command_prints_a_summary_or_json(run: Path, without_ray: list[int]) -> None:
    result = CliRunner().invoke(app, ["batch", str(run), "-k", "3"])
    assert result.exit_code == 0
    assert "1,000 users, the best 3 items each, by tiny@" in result.stdout
    again = CliRunner().invoke(app, ["batch", str(run), "-k", "3", "--json"])
    document = json.loads(again.stdout)
    assert (document["users"], document["ranked"]) == (NUM_USERS, 0)
    refused = CliRunner().invoke(app, ["batch", str(run), "-k", "4", "--json"])
    assert refused.exit_code == 2
    assert "k 3, not 4" in json.loads(refused.stdout)["error"]["message"]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ray_writes_every_shard(run: Path) -> None:
    found = batch(run, None, Ranking(7), None, workers=2)
    table = written(found.folder)
    assert table["user_id"].to_list() == [f"u{row}" for row in range(NUM_USERS)]
    assert found.ranked == NUM_USERS
    for row, answer in list(zip(table.iter_rows(named=True), expected(run, 7), strict=True))[:100]:
        check_order(row["items"], row["scores"], [i.item_id for i in answer.items], [i.score for i in answer.items])
    began = time.time()
    assert batch(run, None, Ranking(7), None).ranked == 0
    assert os.path.getmtime(found.folder / shard_name(0)) < began

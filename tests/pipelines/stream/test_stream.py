"""`distilrec stream` from a log to table, pictures, JSON, blocks and a model; what stops it, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from components.artifacts.format import verify
from components.embedding_size.config import METHODS, Method, StreamModelConfig
from components.errors import ArtifactError
from components.streaming import read_learner
from pipelines.stream.job import CHECKPOINT, Streamed, StreamJob, stream
from pipelines.stream.job import test_start as start_of_test
from tests.kills import KilledError
from tests.pipelines.stream.configs import CONTENT, stream_config
from tests.pipelines.stream.logs import rating_lines
from tests.pipelines.test_cli import call
from tests.pipelines.test_prepare_ratings import prepared


def job_of(folder: Path, method: Method, seconds: float = 0.0, **options: Any) -> StreamJob:
    config = StreamModelConfig.model_validate({"batch_size": 40, "max_frequency": 64, "bn_mode": "group", **options})
    return StreamJob(method, config, 5, folder, 0.2, seconds)


def run(job: StreamJob, work: Path, kill_at: int = -1) -> tuple[Streamed, list[int]]:
    begun: list[int] = []
    left = kill_at

    def after(count: int, loss: float, accuracy: float) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    return stream(job, work, lambda total, done: begun.append(done), after), begun


def numbers(streamed: Streamed) -> dict[str, Any]:
    return streamed.measures.summary()


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_stream_goes_on_to_the_same_numbers(tmp_path: Path, method: Method) -> None:
    folder, _ = prepared(tmp_path, rating_lines(600))
    whole, begun = run(job_of(folder, method), tmp_path / "whole")
    assert begun == [0]
    for kill in (1, 7, 12):
        with pytest.raises(KilledError):
            run(job_of(folder, method), tmp_path / f"killed-{kill}", kill)
        again, begun = run(job_of(folder, method), tmp_path / f"killed-{kill}")
        assert begun[0] > 0
        assert numbers(again) == numbers(whole)
        tensors, expected = again.learner.tensors(), whole.learner.tensors()
        assert all(torch.equal(one, expected[name]) for name, one in tensors.items())


def test_a_stream_between_checkpoints_repeats_what_is_missing(tmp_path: Path) -> None:
    folder, _ = prepared(tmp_path, rating_lines(600))
    whole, _ = run(job_of(folder, "esapn"), tmp_path / "whole")
    with pytest.raises(KilledError):
        run(job_of(folder, "esapn", seconds=1e9), tmp_path / "killed", 9)
    again, begun = run(job_of(folder, "esapn"), tmp_path / "killed")
    assert begun == [0]
    assert numbers(again) == numbers(whole)


def test_a_checkpoint_of_another_configuration_is_refused_and_stays(tmp_path: Path) -> None:
    folder, _ = prepared(tmp_path, rating_lines(300))
    with pytest.raises(KilledError):
        run(job_of(folder, "esapn"), tmp_path / "work", 3)
    kept = (tmp_path / "work" / CHECKPOINT / "state.json").read_bytes()
    with pytest.raises(ArtifactError, match=r"another config: bn_mode was 'group', is 'branches'"):
        run(job_of(folder, "esapn", bn_mode="branches"), tmp_path / "work")
    assert (tmp_path / "work" / CHECKPOINT / "state.json").read_bytes() == kept


@pytest.mark.parametrize("rows", [1, 2, 39, 41, 81])
def test_short_streams_and_last_batches_of_one_row(tmp_path: Path, rows: int) -> None:
    folder, _ = prepared(tmp_path, rating_lines(rows))
    streamed, _ = run(job_of(folder, "esapn"), tmp_path / "work")
    summary = numbers(streamed)
    assert summary["ratings"] == rows
    assert summary["test_ratings"] == rows - start_of_test(rows, 0.2) >= 1
    assert 0 <= summary["accuracy"] <= 1


def test_one_user_only(tmp_path: Path) -> None:
    folder, _ = prepared(tmp_path, rating_lines(120, users=1))
    streamed, _ = run(job_of(folder, "esapn"), tmp_path / "work")
    assert streamed.learner.memory()["users"]["entities"] == 1


def test_measures_equal_a_plain_count(tmp_path: Path) -> None:
    folder, _ = prepared(tmp_path, rating_lines(600))
    job = job_of(folder, "esapn")
    streamed, _ = run(job, tmp_path / "work")
    fresh = type(streamed.learner)("esapn", job.config, 5)
    losses, right, frequency, users = [], [], [], []
    for batch in job.open().batches(40, border=start_of_test(600, 0.2)):
        seen = fresh.step(*(torch.from_numpy(one) for one in (batch.users, batch.items, batch.labels)))
        losses += seen.losses.tolist()
        right += seen.correct.tolist()
        frequency += seen.users.frequency.tolist()
        users += batch.users.tolist()
    border = start_of_test(len(losses), 0.2)
    summary = numbers(streamed)
    assert summary["loss"] == pytest.approx(sum(losses[border:]) / len(losses[border:]))
    assert summary["accuracy"] == pytest.approx(sum(right[border:]) / len(right[border:]))
    seven = [place for place in range(border, len(losses)) if frequency[place] == 7]
    assert summary["by_frequency"]["users"]["rows"][6] == len(seven)
    own = [losses[place] for place in range(border, len(losses)) if users[place] == users[-1]]
    assert streamed.measures.user_means()[users[-1]].tolist()[:2] == pytest.approx([len(own), sum(own) / len(own)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A configuration whose run is done."""
    file = stream_config(tmp_path_factory.mktemp("stream"), seeds=[0, 1])
    code, _, err = call("stream", file)
    assert code == 0, err
    return file


@pytest.mark.ray
def test_one_command_makes_table_pictures_json_and_a_model(finished: Path) -> None:
    code, out, err = call("stream", finished, "--to-blocks", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["ran"] == 0
    rows = {row["name"]: row for row in told["document"]["rows"]}
    assert set(rows) == {"fixed", "esapn"}
    assert rows["esapn"]["seeds"] == [0, 1]
    assert rows["esapn"]["memory"]["ratio"] < 1 == rows["fixed"]["memory"]["ratio"]
    assert 0 <= rows["esapn"]["p_value"]["loss"] <= 1
    run_folder = finished.parent / "runs" / "tiny"
    assert json.loads((run_folder / "stream.json").read_text()) == told["document"]
    drawn = {file.name for file in run_folder.glob("stream-*.svg")}
    assert {"stream-over-time-binary.svg", "stream-sizes-binary.svg"} <= drawn
    verify(Path(told["served"]))
    learner = read_learner(Path(told["served"]))
    assert learner.interactions == told["document"]["facts"]["ratings"]


@pytest.mark.ray
def test_blocks_are_a_section_that_a_compressed_student_takes(finished: Path) -> None:
    from components.compression.config import CompressionConfig

    code, out, _ = call("stream", finished, "--to-blocks", "--dim", "32", "--json")
    assert code == 0
    document = yaml.safe_load((finished.parent / "runs" / "tiny" / "blocks.yaml").read_text())
    compression = document["student"]["compression"]
    assert compression == json.loads(out)["blocks"]
    config = CompressionConfig.model_validate(compression)
    config.check_width(32)
    assert config.ranks is not None
    assert config.ranks[0] == 32
    assert document["search"]["space"]["student.compression"][0] == compression


@pytest.mark.ray
def test_the_table_names_methods_and_sizes(finished: Path) -> None:
    code, out, _ = call("stream", finished)
    assert code == 0
    for text in (
        "Accuracy and loss (Table 1)",
        "ESAPN",
        "memory % of FIXED",
        "Sizes and memory (Table 2)",
        "distilrec serve",
    ):
        assert text in out


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"prepare": {}}, [], "stream: needs a log prepared as a stream; set `prepare: {task: ratings}`"),
        ({"prepare": {}, "stream": None}, [], "is no stream; set `prepare: {task: ratings}`"),
        ({"features": {"max_tokens": 8}}, [], "features: belongs to a ranking run"),
        ({}, ["stream.methods=[fixed]"], "serve: esapn is none of the methods, fixed; add it"),
        ({}, ["stream.bn_mode=branch"], "did you mean 'branches'?"),
        ({}, ["stream.batchsize=9"], "unknown key"),
        ({}, ["stream.study.modes={a: {bn: group}}"], "stream.study.modes.a.bn: unknown key"),
        ({}, ["prepare.duplicates=last"], "duplicates: last is not for task: ratings"),
        ({"stream": {"methods": ["fixed"], "serve": "fixed"}}, ["--to-blocks"], "only esapn chooses sizes"),
    ],
)
def test_mistakes_of_the_user_exit_with_2(
    tmp_path: Path, changes: dict[str, Any], words: list[str], message: str
) -> None:
    file = stream_config(tmp_path, **changes)
    code, _, err = call("stream", file, *words)
    assert code == 2
    assert message in err.replace("\n", " ")
    assert "Traceback" not in err


def test_five_classes_need_stars(tmp_path: Path, ray_session: None) -> None:
    sections = {"prepare": {"task": "ratings", "ratings": {"scale": [0, 10], "threshold": 5}}}
    file = stream_config(tmp_path, **sections, stream={**CONTENT["stream"], "task": "five-class"})
    code, _, err = call("stream", file)
    assert code == 2
    assert "no stars from 0.5 to 5 (prepare.ratings.scale)" in err.replace("\n", " ")


def test_a_dry_run_says_what_would_run(tmp_path: Path) -> None:
    code, out, _ = call("stream", stream_config(tmp_path), "--dry-run", "--json")
    assert code == 0
    assert [one["node"] for one in json.loads(out)["nodes"]] == [
        "prepare",
        "stream/fixed/seed-0",
        "stream/esapn/seed-0",
    ]
    assert not (tmp_path / "runs").exists()

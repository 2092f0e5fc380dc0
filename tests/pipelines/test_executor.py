from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import pytest

from components.errors import DataError, StageError, StorageError, UnknownNameError, UserError
from pipelines.config import RunConfig
from pipelines.executor import timing_file
from pipelines.stages import StageContext
from tests.pipelines.fake_stages import FakeStages, manifests
from tests.pipelines.run_configs import FULL, PLAIN_RUN, make_config

ALL = ["prepare", "distill/mostpop/seed-0", "distill/plain/seed-0", "evaluate", "export"]


@pytest.fixture
def stages(tmp_path: Path) -> FakeStages:
    return FakeStages(make_config(tmp_path, PLAIN_RUN))


def changed(stages: FakeStages, tmp_path: Path, *overrides: str) -> FakeStages:
    stages.config = make_config(tmp_path, PLAIN_RUN, *overrides)
    return stages


def test_a_run_started_twice_does_nothing_the_second_time(stages: FakeStages) -> None:
    first = stages.run()
    assert sorted(stages.ran) == sorted(ALL)
    assert all(decision.run for decision in first)
    before = manifests(stages.config.folder)
    second = stages.run()
    assert stages.ran == []
    assert {decision.reason for decision in second} == {"done already"}
    assert manifests(stages.config.folder) == before
    assert stages.sessions == 1  # the second run starts no Ray


def test_two_folders_with_the_same_input_have_the_same_manifests(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stages = FakeStages(make_config(tmp_path / name, PLAIN_RUN, f"data={tmp_path / name}"))
        stages.run()
        found.append(manifests(stages.config.folder))
    assert found[0] == found[1]
    assert len(found[0]) == len(ALL)


def test_a_changed_key_runs_its_node_and_what_reads_it(stages: FakeStages, tmp_path: Path) -> None:
    stages.run()
    changed(stages, tmp_path, "training.epochs=3").run()
    assert stages.ran == ["distill/plain/seed-0", "evaluate", "export"]


def test_a_changed_key_that_changes_no_content_runs_nothing_else(stages: FakeStages, tmp_path: Path) -> None:
    stages.run()
    again = changed(stages, tmp_path, "prepare.min_interactions_per_user=7")
    reasons = {decision.node: decision.reason for decision in again.run()}
    assert stages.ran == ["prepare"]
    assert reasons["prepare"] == "its configuration changed: prepare.min_interactions_per_user"
    assert reasons["evaluate"] == "done already"


def test_a_changed_log_runs_everything(stages: FakeStages) -> None:
    stages.run()
    stages.fingerprints = {"prepare": "other bytes"}
    assert stages.run()[0].reason == "its input files changed"
    assert sorted(stages.ran) == sorted(ALL)


def test_from_forces_a_stage_and_what_depends_on_it(stages: FakeStages) -> None:
    stages.run()
    before = manifests(stages.config.folder)
    stages.run(forced="evaluate")
    assert stages.ran == ["evaluate", "export"]
    assert manifests(stages.config.folder) == before  # the same work writes the same bytes


def test_a_stage_alone_runs_what_it_needs(stages: FakeStages) -> None:
    stages.run(stage="distill")
    assert sorted(stages.ran) == sorted(ALL[:3])
    stages.run()
    assert stages.ran == ["evaluate", "export"]


def test_a_damaged_result_is_made_again(stages: FakeStages) -> None:
    stages.run()
    before = manifests(stages.config.folder)
    (stages.config.folder / "distill/plain/seed-0/result.json").write_text("{}")
    decisions = {decision.node: decision for decision in stages.run()}
    assert stages.ran == ["distill/plain/seed-0"]
    assert decisions["distill/plain/seed-0"].reason == (
        "its result is damaged: result.json was changed after it was written"
    )
    assert manifests(stages.config.folder) == before  # nothing behind it had to run


@pytest.mark.parametrize("node", ALL)
def test_a_failed_node_leaves_no_folder_and_the_next_run_goes_on_there(stages: FakeStages, node: str) -> None:
    def fail(context: StageContext) -> None:
        (context.folder / "half.bin").write_bytes(b"half")
        (context.work / "checkpoint").write_text("epoch 3")
        raise RuntimeError("out of luck")

    stages.before[node] = fail
    with pytest.raises(StageError, match=f"{node}: RuntimeError: out of luck; the log is "):
        stages.run()
    run = stages.config.folder
    assert not (run / node).exists()
    done = set(stages.ran) - {node}
    seen = []
    stages.before[node] = lambda context: seen.append(
        ((context.work / "checkpoint").read_text(), list(context.folder.iterdir()))
    )
    stages.run()
    assert not done & set(stages.ran)
    assert seen == [("epoch 3", [])]  # the checkpoint survived, the half result did not
    assert not list((run / ".work").iterdir())


def test_the_log_of_a_failure_holds_the_traceback(stages: FakeStages) -> None:
    def fail(_: StageContext) -> None:
        raise ValueError("a secret of the stack")

    stages.before["prepare"] = fail
    with pytest.raises(StageError):
        stages.run()
    log = (stages.config.folder / "logs" / "prepare.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "a secret of the stack" in log


def test_checkpoints_of_another_configuration_are_not_resumed(stages: FakeStages, tmp_path: Path) -> None:
    def fail(context: StageContext) -> None:
        (context.work / "checkpoint").write_text("of 100 epochs")
        raise RuntimeError

    stages.before["distill/plain/seed-0"] = fail
    with pytest.raises(StageError):
        stages.run()
    seen: list[list[Path]] = []
    stages.before["distill/plain/seed-0"] = lambda context: seen.append(list(context.work.iterdir()))
    changed(stages, tmp_path, "training.epochs=3").run()
    assert seen == [[]]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DataError("log.csv: no column item_id"), DataError, "prepare: log.csv: no column item_id"),
        (UnknownNameError("preset", "x", ["y"]), UserError, "prepare: unknown preset 'x'; known: y"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), StorageError, "prepare: /x/y: the disk is full"),
        (MemoryError(), StageError, "prepare: MemoryError: no message; the log is"),
    ],
)
def test_errors_keep_their_kind(stages: FakeStages, error: Exception, kind: type[Exception], message: str) -> None:
    def fail(_: StageContext) -> None:
        raise error

    stages.before["prepare"] = fail
    with pytest.raises(kind) as raised:
        stages.run()
    assert str(raised.value).startswith(message)
    assert type(raised.value) is kind


def test_an_error_of_a_ray_worker_is_unwrapped(stages: FakeStages, ray_session: None) -> None:
    import ray

    def fail(_: StageContext) -> None:
        @ray.remote(num_cpus=0)
        def worker() -> None:
            raise DataError("log.csv: truncated")

        ray.get(worker.remote())

    stages.before["prepare"] = fail
    with pytest.raises(DataError) as raised:
        stages.run()
    assert str(raised.value) == "prepare: log.csv: truncated"


def test_others_finish_when_one_fails_and_all_failures_are_shown(tmp_path: Path) -> None:
    three = ("seeds=[0, 1, 2]", "cluster.max_parallel_students=3", "baselines=[plain]")
    stages = FakeStages(make_config(tmp_path, PLAIN_RUN, *three))
    barrier = threading.Barrier(3, timeout=20)

    def fail(context: StageContext) -> None:
        barrier.wait()
        raise RuntimeError(f"bad {context.seed}")

    stages.before["distill/plain/seed-0"] = stages.before["distill/plain/seed-1"] = fail
    stages.before["distill/plain/seed-2"] = lambda _: barrier.wait()
    with pytest.raises(StageError) as raised:
        stages.run()
    assert "bad 0" in str(raised.value)
    assert ("distill/plain/seed-2", "done in 0 s") in stages.board.ended
    stages.before = {}
    stages.run()
    assert "distill/plain/seed-2" not in stages.ran


def test_a_failed_teacher_stops_only_what_needs_it(tmp_path: Path) -> None:
    stages = FakeStages(make_config(tmp_path, FULL, "cluster.max_parallel_teachers=1"))

    def fail(_: StageContext) -> None:
        raise RuntimeError("no luck")

    stages.before["pretrain/text"] = fail  # runs first; nothing else has started then
    with pytest.raises(StageError, match=r"^pretrain/text: RuntimeError: no luck"):
        stages.run()
    first = set(stages.ran)
    assert {"teach/id", "distill/plain/seed-0", "distill/markov/seed-0"} <= first
    assert not first & {"teach/text", "annotate", "distill/prm-kd/seed-0", "evaluate", "export"}
    stages.before = {}
    stages.run()
    assert {"pretrain/text", "teach/text", "annotate", "export"} <= set(stages.ran)
    assert first & set(stages.ran) == {"pretrain/text"}


def test_all_teachers_start_together_unless_limited(tmp_path: Path) -> None:
    teachers = "teachers={a: {kind: unisrec}, b: {kind: unisrec}, c: {kind: unisrec}}"
    stages = FakeStages(make_config(tmp_path, FULL, teachers))
    barrier = threading.Barrier(3, timeout=20)  # breaks where fewer than three run at once
    for name in "abc":
        stages.before[f"teach/{name}"] = lambda _: barrier.wait()
    stages.run()
    assert {"teach/a", "teach/b", "teach/c"} <= set(stages.ran)


def test_nodes_of_a_stage_run_side_by_side_up_to_the_limit(tmp_path: Path) -> None:
    seeds = "seeds=[0, 1, 2, 3]"
    stages = FakeStages(make_config(tmp_path, PLAIN_RUN, seeds, "cluster.max_parallel_students=2", "baselines=[plain]"))
    barrier = threading.Barrier(2, timeout=20)  # breaks where fewer than two run at once
    running: list[int] = []
    most: list[int] = []

    def together(context: StageContext) -> None:
        running.append(context.seed)
        most.append(len(running))
        barrier.wait()
        running.remove(context.seed)

    for seed in range(4):
        stages.before[f"distill/plain/seed-{seed}"] = together
    stages.run()
    assert max(most) == 2


def test_stages_get_absolute_folders_and_their_seed(
    stages: FakeStages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stages.config = RunConfig.model_validate({**stages.config.model_dump(), "output": "below", "seeds": [5]})
    seen: list[StageContext] = []
    stages.before["distill/plain/seed-5"] = seen.append
    stages.run()
    (context,) = seen
    assert context.seed == 5
    assert (context.name, context.variant) == ("plain/seed-5", "plain")
    assert context.folder.is_absolute()
    assert context.work.is_absolute()
    assert context.input("prepare") == tmp_path / "below/plain/prepare"
    with pytest.raises(StageError, match="distill/plain/seed-5 does not read 'annotate'; it reads: prepare"):
        context.input("annotate")


def test_timing_is_kept_apart(stages: FakeStages) -> None:
    stages.before["prepare"] = lambda context: context.timing.update(rows_per_second=12.5)
    stages.run()
    timing = json.loads(timing_file(stages.config.folder, "prepare").read_text())
    assert timing["rows_per_second"] == 12.5
    assert timing["seconds"] >= 0
    assert "12.5" not in (stages.config.folder / "prepare" / "manifest.json").read_text()


def test_a_stages_own_counts_join_the_manifest(stages: FakeStages) -> None:
    stages.before["prepare"] = lambda context: (context.folder / "manifest_extra.json").write_text(
        '{"rows": {"read": 7}}'
    )
    stages.run()
    manifest = json.loads((stages.config.folder / "prepare" / "manifest.json").read_text())
    assert manifest["rows"] == {"read": 7}
    assert set(manifest["files"]) == {"result.json"}

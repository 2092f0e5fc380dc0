from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pipelines.driver
from components.errors import DataError
from pipelines.cli import app
from pipelines.lock import run_lock
from pipelines.stages import Stage, StageContext
from tests.pipelines.run_configs import PLAIN_RUN, write_config

ROW = {
    "name": "plain",
    "kind": "student",
    "seeds": [0],
    "metrics": {"recall@10": 0.5, "ndcg@10": 0.25, "mrr@10": 0.125},
    "std": {"recall@10": 0.0, "ndcg@10": 0.0, "mrr@10": 0.0},
    "p_value": {},
    "gain": {},
    "parameters": {"total": 12},
    "bytes": 48,
    "latency_ms": None,
    "train_seconds_per_epoch": None,
}
LEADERBOARD = {"dataset": "plain", "split": "leave_one_out", "cutoffs": [10], "baseline": "plain", "rows": [ROW]}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[StageContext], None]]:
    """Stages that only write a file; a test may put a function of its own under a node's name."""
    functions: dict[str, Callable[[StageContext], None]] = {}

    def load(stage: Stage) -> Callable[[StageContext], None]:
        def function(context: StageContext) -> None:
            (context.folder / "result.txt").write_text(context.node)
            functions.get(context.node, lambda _: None)(context)
            if context.node == "evaluate":
                (context.config.folder / "leaderboard.json").write_text(json.dumps(LEADERBOARD))
                (context.config.folder / "report.html").write_text("<html>")

        return function

    monkeypatch.setattr(Stage, "load", load)
    monkeypatch.setattr(pipelines.driver, "_session", lambda config: contextlib.nullcontext())
    return functions


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, {**PLAIN_RUN, "output": str(tmp_path / "runs"), "data": str(tmp_path)})


def call(*arguments: Any) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_run_ends_with_leaderboard_report_and_the_command_that_serves(config: Path, fake: object) -> None:
    code, out, err = call("run", config)
    run = config.parent / "runs" / "plain"
    assert code == 0
    assert "5 of 5 parts ran" in err
    assert "plain" in out
    assert "0.2500" in out
    assert f"report:   {run / 'report.html'}" in out
    assert f"endpoint: distilrec serve {run}" in out


def test_a_run_started_twice_says_that_there_is_nothing_to_do(config: Path, fake: dict[str, Any]) -> None:
    call("run", config)

    def never(context: StageContext) -> None:
        raise AssertionError(f"{context.node} ran again")

    fake.update(dict.fromkeys(("prepare", "distill/plain/seed-0", "evaluate", "export"), never))
    code, out, err = call("run", config)
    assert code == 0
    assert "nothing to do: all 5 parts of" in err
    assert "0.2500" in out


def test_json_is_one_document(config: Path, fake: object) -> None:
    code, out, _ = call("run", config, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["leaderboard"] == LEADERBOARD
    assert next(node["node"] for node in document["nodes"] if node["run"]) == "prepare"
    assert document["report"].endswith("report.html")


def test_dry_run_writes_nothing(config: Path, fake: object) -> None:
    code, out, _ = call("run", config, "--dry-run")
    assert code == 0
    assert "distill/plain/seed-0" in out
    assert "not done yet" in out
    assert not (config.parent / "runs").exists()


def test_dry_run_as_json_tells_run_or_skip_and_why(config: Path, fake: object) -> None:
    call("run", config)
    _, out, _ = call("run", config, "training.epochs=2", "--dry-run", "--json")
    nodes = {node["node"]: (node["run"], node["reason"]) for node in json.loads(out)["nodes"]}
    assert nodes["prepare"] == (False, "done already")
    assert nodes["distill/plain/seed-0"] == (True, "its configuration changed: training.epochs")
    assert nodes["evaluate"] == (True, "distill/plain/seed-0 will run")


def test_a_stage_command_stops_behind_its_stage(config: Path, fake: object) -> None:
    code, _, err = call("distill", config)
    assert code == 0
    assert "3 of 3 parts ran" in err
    assert not (config.parent / "runs/plain/evaluate").exists()


def test_from_runs_a_stage_again(config: Path, fake: object) -> None:
    call("run", config)
    _, _, err = call("run", config, "--from", "evaluate")
    assert "2 of 5 parts ran, 3 were done already" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "distil"], "unknown stage 'distil'; known: annotate, distill,"),
        (["--from", "teach"], "this run has no stage 'teach'; it has: prepare, distill, evaluate, export"),
        (["training.epoch=3"], "command line: training.epoch: unknown key; valid keys: batch_size"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_mistakes_of_the_user_exit_with_2(
    config: Path, fake: object, arguments: list[str], message: str, dry: list[str]
) -> None:
    code, out, err = call("run", config, *arguments, *dry)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_an_error_as_json(config: Path, fake: dict[str, Any]) -> None:
    def fail(_: StageContext) -> None:
        raise DataError("log.csv: empty")

    fake["prepare"] = fail
    code, out, err = call("run", config, "--json")
    assert code == 2
    assert json.loads(out) == {"error": {"code": "data_error", "message": "prepare: log.csv: empty"}}
    assert "error: prepare: log.csv: empty" in err


def test_a_failing_stage_exits_with_1_and_names_its_log(config: Path, fake: dict[str, Any]) -> None:
    def fail(_: StageContext) -> None:
        raise RuntimeError("broken")

    fake["evaluate"] = fail
    code, _, err = call("run", config)
    assert code == 1
    log = config.parent / "runs/plain/logs/evaluate.log"
    assert f"error: evaluate: RuntimeError: broken; the log is {log}" in err
    assert "Traceback" in log.read_text()


def test_a_run_folder_that_is_taken(config: Path, fake: object) -> None:
    with run_lock(config.parent / "runs" / "plain"):
        code, _, err = call("run", config)
    assert code == 2
    assert f"another distilrec works in this run folder (process {os.getpid()}" in err


def test_an_output_folder_that_cannot_be_made(config: Path, fake: object, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = call("run", config, f"output={tmp_path / 'file'}")
    assert code == 1
    assert "cannot write" in err


def test_report_shows_a_finished_run(config: Path, fake: object) -> None:
    run = config.parent / "runs" / "plain"
    code, _, err = call("report", run)
    assert code == 2
    assert "the run is not evaluated yet" in err
    call("run", config)
    code, out, _ = call("report", run)
    assert code == 0
    assert "0.2500" in out
    assert json.loads(call("report", run, "--json")[1]) == LEADERBOARD


def test_what_stages_print_stays_out_of_the_way(config: Path, fake: dict[str, Any]) -> None:
    def chatter(_: StageContext) -> None:
        print("from python")
        os.write(1, b"from C\n")
        os.write(2, b"error from C\n")

    fake["prepare"] = chatter
    code, out, err = call("run", config, "--json")
    assert code == 0
    json.loads(out)
    assert "from" not in err.replace("--from", "")
    log = (config.parent / "runs/plain/logs/libraries.log").read_text()
    assert {"from python", "from C", "error from C"} <= set(log.splitlines())


def test_every_command_is_listed() -> None:
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "demo", "serve", "recommend", "report", "prepare", "teach", "annotate", "distill"):
        assert f" {command} " in out


def test_help_starts_without_torch_or_ray() -> None:
    code = (
        "import sys, pipelines.cli\n"
        "heavy = {'torch', 'ray', 'polars', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_driver_reads_no_ray_before_its_session() -> None:
    """Ray reads how its processes prove who they are when it is imported; the session decides that."""
    code = "import sys, pipelines.driver, pipelines.preflight; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


STUDY = """
import contextlib, sys
from types import SimpleNamespace
import pipelines.study.command as command

@contextlib.contextmanager
def session(cluster):
    print('ray' in sys.modules)
    raise SystemExit
    yield

command.ray_session = session
command._run_works(SimpleNamespace(config=SimpleNamespace(cluster=None)), {}, None)
"""


def test_a_study_whose_inputs_are_done_reads_no_ray_before_its_session() -> None:
    done = subprocess.run([sys.executable, "-c", STUDY], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


STOPPED = """
import contextlib, sys, threading
import pipelines.driver
from pipelines.cli import main
from pipelines.stages import Stage

def slow(context):
    (context.work / "checkpoint").touch()
    open(config + ".started", "w").close()
    threading.Event().wait(60)

Stage.load = lambda stage: slow
pipelines.driver._session = lambda config: contextlib.nullcontext()
config = sys.argv[1]
sys.argv = ["distilrec", "run", config]
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_run_and_says_how_to_go_on(config: Path, number: int, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(config)], stderr=subprocess.PIPE, text=True)
    started = Path(f"{config}.started")
    while not started.exists():
        assert process.poll() is None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "nothing is lost, the same command goes on from here" in err
    run = config.parent / "runs/plain"
    assert not (run / "prepare").exists()
    assert list((run / ".work").rglob("checkpoint"))
    assert "Traceback" not in err


def test_the_demonstration_writes_its_world_once(
    config: Path, fake: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import components.data.synthetic

    written: list[Path] = []
    monkeypatch.setattr(components.data.synthetic, "write_world", lambda folder: written.append(folder))
    world = tmp_path / "world"
    world.mkdir()
    for _ in range(2):
        code, out, _ = call("demo", "--folder", world, "--config", config, "--json", "training.epochs=2")
        assert code == 0
        assert json.loads(out)["leaderboard"] == LEADERBOARD
    assert written == [world]

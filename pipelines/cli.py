"""The command line. It imports the heavy parts inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import typer

from pipelines.arguments import ConfigArgument, DryRun, From, Json, Overrides, RunArgument, act, finish
from pipelines.cluster.cli import app as cluster
from pipelines.serving.cli import app as serving

if TYPE_CHECKING:
    from pipelines.config import RunConfig
    from pipelines.driver import RunResult

DEMO_CONFIG: Final = Path(__file__).parents[1] / "configs" / "demo.yaml"

app = typer.Typer(
    help="Interaction logs in, a small fast recommender behind an endpoint out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Execution(Protocol):
    """What a command does that runs stages: `_execute`, or something around it."""

    def __call__(
        self, stage: str, file: Path, overrides: list[str], dry_run: bool, forced_stage: str, as_json: bool
    ) -> Any:
        """Return what ``--json`` prints."""


def _pipeline_command(name: str, stage: str, about: str, execute: Execution | None = None) -> None:
    """Add the command that runs what is not done up to `stage`, ``""`` for everything; by `_execute` by default."""

    def command(
        config: ConfigArgument,
        overrides: Overrides = None,
        as_json: Json = False,
        dry_run: DryRun = False,
        start: From = "",
    ) -> None:
        execution: Execution = execute or _execute
        finish(lambda: execution(stage, config, overrides or [], dry_run, start, as_json), as_json)

    app.command(name, help=about)(command)


_pipeline_command(
    "run", "", "Run every stage that is not done: logs to leaderboard, report and the artifact that serves."
)


@app.command()
def demo(
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option(help="Where the synthetic world is written.")] = Path("runs/demo-world"),
    config: Annotated[Path, typer.Option(help="The configuration of the demonstration.")] = DEMO_CONFIG,
    as_json: Json = False,
) -> None:
    """Write a synthetic world as CSV files and run the whole pipeline on it."""

    def write_and_run() -> Any:
        from components.data.synthetic import write_world
        from pipelines.output import messages

        if not (folder / "DONE").exists():
            messages().print(f"writing a synthetic world to {folder}", highlight=False)
            write_world(folder)
            (folder / "DONE").touch()
        return _execute("", config, [f"data={folder}", *(overrides or [])], False, "", as_json)

    finish(write_and_run, as_json)


@app.command()
def report(run_folder: RunArgument, as_json: Json = False) -> None:
    """Show the leaderboard of a finished run and where its report lies."""

    def show() -> Any:
        from components.errors import UserError
        from pipelines.driver import LEADERBOARD_FILE

        file = run_folder / LEADERBOARD_FILE
        if not file.is_file():
            raise UserError(f"{file}: missing; the run is not evaluated yet, run `distilrec run CONFIG` first")
        leaderboard = json.loads(file.read_bytes())
        _show_results(run_folder, leaderboard, as_json)
        return leaderboard

    finish(show, as_json)


@app.command()
def params(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML file; or --preset.")] = None,
    overrides: Overrides = None,
    preset: Annotated[str, typer.Option(help="A setting of CpRec's tables, such as cprec-ab-ml20.")] = "",
    as_json: Json = False,
) -> None:
    """Count the students' parameters by part, before anything trains."""

    def count() -> Any:
        from components.errors import UserError
        from pipelines.load_config import load_config
        from pipelines.output import results
        from pipelines.params import footprint_table, footprints, published

        if (config is None) == (preset == ""):
            raise UserError("give CONFIG, or --preset NAME, and not both")
        rows = [published(preset)] if config is None else footprints(load_config(config, overrides or []))
        if not as_json:
            results().print(footprint_table(rows))
        return {"students": [row.as_json() for row in rows]}

    finish(count, as_json)


def _search(stage: str, file: Path, overrides: list[str], dry_run: bool, forced_stage: str, as_json: bool) -> Any:
    from components.errors import UserError
    from pipelines.load_config import load_config

    loaded = load_config(file, overrides)
    if loaded.search is None:
        raise UserError(f"{file}: has no section `search`; add one (configs/search.yaml shows it)")
    document = _execute(stage, file, overrides, dry_run, forced_stage, as_json)
    return document if dry_run else _show_front(loaded.folder, document, as_json)


_pipeline_command(
    "search",
    "",
    "Search the best small student under a budget, compare it with the others, and export the best.",
    _search,
)


@app.command()
def study(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="prm-kd, cprec or esapn.")],
    config: ConfigArgument,
    overrides: Overrides = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE …",
            help="prm-kd: main, cost, teachers, students, sweeps; cprec: main, blocks, sharing, transfer.",
        ),
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Replace this data set's part of a Markdown document, too.")
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Reproduce the evaluation of a paper on the configured data: many trials, then its tables."""

    def reproduce() -> Any:
        from pipelines.study.cli import study as run_study

        return run_study(name, config, overrides or [], only or [], dry_run=dry_run, as_json=as_json, write=write)

    finish(reproduce, as_json)


@app.command("stream")  # named here, so that its stage gets no second command
def stream(
    config: ConfigArgument,
    overrides: Overrides = None,
    to_blocks: Annotated[
        bool, typer.Option("--to-blocks", help="Write the items' sizes as blocks for a compressed student, too.")
    ] = False,
    dim: Annotated[int, typer.Option(min=1, help="Width of the student that the blocks are for.")] = 64,
    as_json: Json = False,
    dry_run: DryRun = False,
    start: From = "",
) -> None:
    """Let methods learn from ratings as they come, each predicting before it learns, and compare them."""

    def run_streams() -> Any:
        from pipelines.stream.cli import stream as stream_all

        given = {"dry_run": dry_run, "forced": start, "as_json": as_json, "to_blocks": to_blocks}
        return stream_all(config, overrides or [], dim=dim, **given)  # type: ignore[arg-type]

    finish(run_streams, as_json)


@app.command()
def recommend(
    run_folder: RunArgument,
    history: Annotated[str, typer.Option(help="Item ids, oldest first, separated by commas.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out the items of the history.")] = True,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="ATTRIBUTE=VALUE", help="Only items with it, or with another one named.")
    ] = None,
    deny: Annotated[list[str] | None, typer.Option(metavar="ATTRIBUTE=VALUE", help="No items with it.")] = None,
    allow_item: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only such items.")] = None,
    deny_item: Annotated[list[str] | None, typer.Option(metavar="ID", help="Not this item.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what of the history moved each score.")] = False,
    as_json: Json = False,
) -> None:
    """Rank the catalog for one history with the exported model, offline."""

    def rank() -> None:
        from pipelines.recommend import filter_of
        from pipelines.recommend import recommend as recommend_offline

        wanted = filter_of(allow or [], deny or [], allow_item, deny_item or [])
        items = [item for item in history.split(",") if item]
        recommend_offline(run_folder, items, k, exclude_seen, as_json, wanted, explain=explain)

    act(rank)


@app.command("add-items")
def add_items(
    run_folder: RunArgument,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help="New items, as input.items.")] = None,
    text_column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="A text column of the run, and FILE's name for it.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="FILE's column of item ids.")] = None,
    image_column: Annotated[str | None, typer.Option(help="FILE's column of pictures.")] = None,
    images: Annotated[str | None, typer.Option(help="Pictures apart, as input.images.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Go back to the release before; without FILE.")] = False,
    as_json: Json = False,
) -> None:
    """Let the exported student rank new items, without training: their rows come from their texts and pictures."""

    def add() -> Any:
        from components.errors import UserError
        from pipelines.add_items import add_items_to
        from pipelines.new_item_table import ItemColumns
        from pipelines.output import results

        if (file is None) != undo:
            raise UserError("give FILE, a table of new items, or --undo, and not both")
        texts = dict(one.partition("=")[::2] for one in text_column or [])
        if not all(texts.values()):
            raise UserError(f"--text-column: expected OURS=THEIRS, such as title=name, got {text_column}")
        added = add_items_to(run_folder, file, ItemColumns(id_column, texts, image_column, images))
        if not as_json:
            for line in added.lines():
                results().print(line, highlight=False, markup=False, soft_wrap=True)
        return added.as_json()

    finish(add, as_json)


@app.command()
def onnx(
    run_folder: RunArgument,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to; RUN/onnx if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Write the exported student as an ONNX file, and say how much faster that answers."""

    def write() -> Any:
        from pipelines.onnx import export_onnx
        from pipelines.output import results

        written = export_onnx(run_folder, out)
        if not as_json:
            for line in written.lines():
                results().print(line, highlight=False, markup=False, soft_wrap=True)
        return written.as_json()

    finish(write, as_json)


app.add_typer(serving)
app.add_typer(cluster)


def _register_stages() -> None:
    from pipelines.stages import STAGES

    own = {command.name for command in app.registered_commands}
    for stage in (stage for stage in STAGES.values() if stage.name not in own):
        _pipeline_command(stage.name, stage.name, f"Run what is not done up to this stage: {stage.about}.")


def _execute(
    stage: str, file: Path, overrides: list[str], dry_run: bool, forced_stage: str, as_json: bool = False
) -> dict[str, Any]:
    from pipelines.load_config import load_config

    config = load_config(file, overrides)
    if dry_run:
        return _show_plan(config, stage, forced_stage, as_json)
    from pipelines.driver import execute_run

    result = execute_run(config, stage, forced_stage)
    _show_end(result, as_json)
    return result.as_json()


def _show_plan(config: RunConfig, stage: str, forced_stage: str, as_json: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from pipelines.driver import plan_run
    from pipelines.output import decision_table, results

    decisions = plan_run(config, stage, forced_stage)
    if not as_json:
        results().print(decision_table(decisions))
    return {"run": config.place, "nodes": [asdict(decision) for decision in decisions]}


def _show_front(run_folder: Path, document: dict[str, Any], as_json: bool) -> dict[str, Any]:
    from components.artifacts.format import read_json
    from components.reports.search import front_table
    from pipelines.output import messages, results
    from pipelines.search.config import RESULT_FILE

    found = read_json(run_folder / "search" / RESULT_FILE)
    console = messages() if as_json else results()
    console.print(front_table(found))
    for line in (f"winner:   {found['winner']['reason']}", f"picture:  {run_folder / 'search' / 'front.svg'}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return {**document, "search": found}


def _show_end(result: RunResult, as_json: bool) -> None:
    from pipelines.output import messages

    total, place = len(result.decisions), result.kept or result.folder
    skipped = total - result.ran
    if not result.ran:
        text = f"nothing to do: all {total} parts of {place} are done already"
    else:
        text = f"{place}: {result.ran} of {total} parts ran" + (f", {skipped} were done already" if skipped else "")
    messages().print(text, highlight=False, markup=False, soft_wrap=True)
    leaderboard = result.as_json()["leaderboard"]
    if leaderboard and any(decision.node == "evaluate" for decision in result.decisions):
        _show_results(result.folder, leaderboard, as_json)


def _show_results(run_folder: Path, leaderboard: dict[str, Any], as_json: bool) -> None:
    from components.reports.tables import print_leaderboard
    from pipelines.driver import REPORT_FILE
    from pipelines.output import messages, results

    console = messages() if as_json else results()
    print_leaderboard(leaderboard, console)
    if (run_folder / REPORT_FILE).is_file():
        console.print(f"report:   {run_folder / REPORT_FILE}", highlight=False, markup=False, soft_wrap=True)
    if (run_folder / "export").is_dir():
        command = f"distilrec serve {shlex.quote(str(run_folder))}"
        console.print(f"endpoint: {command}", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of ``distilrec`` and ``python -m pipelines``."""
    app(prog_name="distilrec")


_register_stages()

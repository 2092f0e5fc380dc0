"""The commands around the endpoint. As in `pipelines.cli`, the heavy parts are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, cast, get_args

import typer

from components.errors import UnknownNameError
from pipelines.arguments import Json, RunArgument, act, finish

app = typer.Typer()
keys_app = typer.Typer(help="API keys of the endpoint.", no_args_is_help=True)
app.add_typer(keys_app, name="key")
LINE: Final = Path("releases/main")
LineOption = Annotated[Path, typer.Option("--line", metavar="FOLDER", help="The line of releases.")]
LineArgument = Annotated[Path, typer.Argument(metavar="[LINE]", help="The line of releases.")]


@app.command()
def serve(
    run_folder: RunArgument,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    proxy: Annotated[str, typer.Option(help="auto, haproxy or plain.")] = "auto",
    histories: Annotated[
        str | None,
        typer.Option(
            envvar="DISTILREC_HISTORIES",
            show_envvar=True,
            help="Where events are kept: a folder, or redis://HOST:PORT/NUMBER. RUN/serving by default.",
        ),
    ] = None,
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="API keys; see `distilrec key new`.")] = None,
    access_log: Annotated[str, typer.Option(help="json (a line per request in RUN/logs) or off.")] = "json",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take.")] = 10.0,
    item_encoders: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="The run that reads texts of new items, where its artifact is served apart."),
    ] = None,
    retrieval: Annotated[str, typer.Option(help="exact, or faiss: an index names candidates.")] = "exact",
    min_recall: Annotated[float, typer.Option(min=0, max=1, help="Of faiss, measured at the start.")] = 0.95,
) -> None:
    """Start the endpoint on the exported model of a run."""

    def start() -> None:
        from components.recommender import Retrieval
        from components.streaming import is_stream
        from pipelines.serving.command import ServeOptions
        from pipelines.serving.command import serve as serve_forever
        from pipelines.serving.endpoint import Proxy
        from pipelines.serving.stream_endpoint import serve_stream
        from serve.settings import AccessLog

        if proxy not in get_args(Proxy):
            raise UnknownNameError("proxy", proxy, get_args(Proxy))
        if access_log not in get_args(AccessLog):
            raise UnknownNameError("access log", access_log, get_args(AccessLog))
        if retrieval not in get_args(Retrieval):
            raise UnknownNameError("retrieval", retrieval, get_args(Retrieval))
        if is_stream(run_folder):
            given = (replicas, cast(Proxy, proxy), histories, keys, cast(AccessLog, access_log), timeout)
            serve_stream(run_folder, host, port, *given)
            return
        options = ServeOptions(
            host,
            port,
            replicas,
            cast(Proxy, proxy),
            histories,
            keys,
            cast(AccessLog, access_log),
            timeout,
            item_encoders,
            cast(Retrieval, retrieval),
            min_recall,
        )
        serve_forever(run_folder, options)

    act(start)


@app.command()
def deploy(
    run_folder: RunArgument,
    line: LineOption = LINE,
    policy: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A bound of the release, such as step_seconds=60."),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Without shadow and canary.")] = False,
    as_json: Json = False,
) -> None:
    """Release the exported model of a run: shadow, canary, all traffic; back by itself where a gate fails."""

    def release() -> Any:
        from dataclasses import asdict

        from components.errors import StageError
        from pipelines.output import messages, results
        from pipelines.serving.policy_options import policy_of
        from pipelines.serving.releases import deploy as deploy_to

        done = deploy_to(
            run_folder, line, policy_of(policy or []), lambda text: messages().print(text, markup=False), trial=not now
        )
        if done.outcome != "released":
            raise StageError(f"{done.version} was {done.outcome} {done.reason}")
        if not as_json:
            results().print(
                f"{done.version} serves {line}: {done.reason}", highlight=False, markup=False, soft_wrap=True
            )
        return asdict(done)

    finish(release, as_json)


@app.command()
def rollback(
    line: LineArgument = LINE,
    to: Annotated[str, typer.Option(metavar="VERSION", help="Which version; the one before if not given.")] = "",
    as_json: Json = False,
) -> None:
    """Let the version before serve again, and end a release that is under way."""

    def back() -> Any:
        from dataclasses import asdict

        from pipelines.output import results
        from pipelines.serving.releases import rollback as roll_back

        done = roll_back(line, to)
        if not as_json:
            results().print(
                f"{done.version} serves {line}: {done.reason}", highlight=False, markup=False, soft_wrap=True
            )
        return asdict(done)

    finish(back, as_json)


@app.command()
def releases(line: LineArgument = LINE, as_json: Json = False) -> None:
    """Show the versions of a line, what serves, and why each release ended as it did."""

    def show() -> Any:
        from pipelines.output import results
        from pipelines.serving.releases import overview
        from pipelines.serving.releases_table import history_table

        document = overview(line)
        if not as_json:
            results().print(history_table(document))
        return document

    finish(show, as_json)


@keys_app.command("new")
def new_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; logs show it.")],
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="Append its line to this file.")] = None,
) -> None:
    """Print a fresh API key, once: only its hash is kept."""

    def make() -> None:
        from pipelines.output import messages, results
        from serve.keys import new_key

        key, line = new_key(name, keys)
        results().print(key, highlight=False, markup=False, soft_wrap=True)
        about = f"added to {keys}; running endpoints accept the key in two seconds:" if keys else "for the file:"
        messages().print(f"{about}\n{line}", highlight=False, markup=False, soft_wrap=True)

    act(make)


@app.command()
def batch(
    run_folder: RunArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to; RUN/recommendations by default.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items per user.")] = 100,
    users: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Histories of your own: a log, or Parquet with a list column `history`."),
    ] = None,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out the items of the history.")] = True,
    reproducible: Annotated[
        bool, typer.Option(help="The endpoint's scores to the last bit; several times slower.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that rank; one per core by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write the best items for every user as Parquet; killed, the same command goes on where it was."""

    def write() -> Any:
        from pipelines.output import results
        from pipelines.serving.batch import batch as write_batch
        from pipelines.serving.batch_worker import Ranking

        written = write_batch(run_folder, out, Ranking(k, exclude_seen, reproducible), users, workers)
        if not as_json:
            for line in written.lines():
                results().print(line, highlight=False, markup=False, soft_wrap=True)
        return written.as_json()

    finish(write, as_json)

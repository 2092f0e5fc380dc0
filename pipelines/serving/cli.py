"""The commands around the endpoint. As in `pipelines.cli`, the heavy parts are imported inside them."""

from __future__ import annotations

from typing import Annotated, cast, get_args

import typer

from components.errors import UnknownNameError
from pipelines.arguments import RunArgument, act

app = typer.Typer()


@app.command()
def serve(
    run_folder: RunArgument,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    proxy: Annotated[str, typer.Option(help="auto, haproxy or plain.")] = "auto",
) -> None:
    """Start the endpoint on the exported model of a run."""

    def start() -> None:
        from pipelines.serving.endpoint import Proxy
        from pipelines.serving.endpoint import serve as serve_forever

        if proxy not in get_args(Proxy):
            raise UnknownNameError("proxy", proxy, get_args(Proxy))
        serve_forever(run_folder, host, port, replicas, proxy=cast(Proxy, proxy))

    act(start)

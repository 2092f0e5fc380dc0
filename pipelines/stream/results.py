"""From finished streams to documents, pictures and what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors.numpy import load_file

from components.artifacts.format import read_json, write_json
from components.reports.stream import Finished, Streams, grids, stream_document
from components.reports.stream_pictures import stream_pictures
from components.reports.svg import standalone
from components.schema import MANIFEST_FILE
from pipelines.cache import write_atomically
from pipelines.config import RunConfig
from pipelines.stages import SEED_MARK
from pipelines.stream.artifact import USER_METRICS_FILE, read_metrics

DOCUMENT_FILE: Final = "stream.json"


def read_finished(folder: Path) -> Finished:
    """What a finished stream measured."""
    return Finished(read_metrics(folder), load_file(folder / USER_METRICS_FILE)["users"])


def streams_of(config: RunConfig) -> Streams:
    """Every finished stream of a run, by method and task, by seed."""
    section = config.stream_section
    found: dict[tuple[str, str], dict[int, Finished]] = {}
    for method in section.methods:
        for seed in config.seeds:
            folder = served_folder(config, method, seed)
            if (folder / MANIFEST_FILE).is_file():
                found.setdefault((method, section.task), {})[seed] = read_finished(folder)
    return found


def served_folder(config: RunConfig, method: str, seed: int) -> Path:
    """Where a finished stream lies."""
    return config.folder / "stream" / f"{method}{SEED_MARK}{seed}"


def stream_facts(config: RunConfig) -> dict[str, Any]:
    """What the table says of the data and the setting."""
    manifest = read_json(config.folder / "prepare" / MANIFEST_FILE)
    section = config.stream_section
    return {
        **{name: manifest[name] for name in ("ratings", "users", "num_items", "positive", "order")},
        "test_fraction": section.test_fraction,
        "model": section.model().model_dump(mode="json", exclude={"task"}),
    }


def write_stream(config: RunConfig) -> tuple[dict[str, Any], list[Path]]:
    """Write ``stream.json`` and the pictures beside it; returns the document and the files."""
    document = stream_document(config.name, streams_of(config), {}, stream_facts(config))
    return document, write_document(document, config.folder, DOCUMENT_FILE, "stream-")


def write_document(document: Mapping[str, Any], folder: Path, name: str, prefix: str) -> list[Path]:
    """Write a document and its pictures; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / name, document)
    written = [folder / name]
    for title, drawn in stream_pictures(document).items():
        written.append(folder / f"{prefix}{title}.svg")
        write_atomically(written[-1], standalone(drawn))
    return written


def print_tables(document: Mapping[str, Any], console: Console) -> None:
    """Both tables on the terminal."""
    for grid in grids(document):
        table = Table(title=Text(f"{document['dataset']} · {grid.title}"), title_justify="left")
        for place, name in enumerate(grid.header):
            table.add_column(Text(name), justify="right" if place > 1 else "left", overflow="fold")
        for row in grid.rows:
            table.add_row(*map(Text, row))
        console.print(table)

"""The history of a line as a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.table import Table


def history_table(document: Mapping[str, Any]) -> Table:
    """What `pipelines.serving.releases.overview` found, latest last."""
    current = next((row["version"] for row in document["versions"] if row["current"]), "none")
    models = {row["version"]: row["model"] or "" for row in document["versions"]}
    table = Table(title=f"{document['line']}: {current} serves", title_justify="left")
    for title in ("when", "version", "model", "what", "why"):
        table.add_column(title, overflow="fold")
    for entry in document["history"]:
        when = datetime.fromtimestamp(entry["time"]).strftime("%Y-%m-%d %H:%M:%S")
        mark = f"{entry['version']} ●" if entry["version"] == current else entry["version"]
        table.add_row(when, mark, models.get(entry["version"], ""), entry["event"], entry["reason"])
    if document["under_way"]:
        table.caption = f"{document['under_way']['version']} is on trial: {document['under_way']['step']}"
    return table

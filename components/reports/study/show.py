"""The tables of any study on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.reports.study.cells import table_grids
from components.reports.study.cprec import cprec_grids


def print_document(document: Mapping[str, Any], console: Console) -> None:
    """Print the tables of one document; names are never read as markup."""
    for grid in cprec_grids(document) if document.get("study") == "cprec" else table_grids(document):
        title = " · ".join(part for part in (document["dataset"], document["table"], grid.title) if part)
        table = Table(title=Text(title), title_justify="left")
        for place, name in enumerate(grid.header):
            table.add_column(Text(name), justify="right" if place else "left", overflow="fold")
        for row in grid.rows:
            table.add_row(*map(Text, row))
        console.print(table)

"""The files of a study: a document and a picture per table, and the texts that reproductions are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.artifacts.format import write_json
from components.reports.study.cprec import cprec_markdown, cprec_picture
from components.reports.study.markdown import replace_part, study_markdown
from components.reports.study.pictures import study_picture
from components.reports.svg import Picture, standalone
from pipelines.cache import write_atomically
from pipelines.study.command import Outcome
from pipelines.study.cprec_results import cprec_documents, cprec_facts
from pipelines.study.results import study_documents, study_facts
from pipelines.study.trials import STUDY_FOLDER

Document = dict[str, Any]


@dataclass(frozen=True)
class Writing:
    """How a study becomes files.

    Attributes:
        prefix: of their names, and behind the data set's name in a document of many.
        documents: one per table.
        facts: what the text says beside the tables, with the command.
        picture: of one document, None where there is nothing to draw.
        markdown: of facts and documents; True where the pictures lie beside it.
    """

    prefix: str
    documents: Callable[[Outcome], list[Document]]
    facts: Callable[[Outcome, str], dict[str, Any]]
    picture: Callable[[Mapping[str, Any]], Picture | None]
    markdown: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]], bool], str]


WRITINGS: Final = {
    "prm-kd": Writing("", study_documents, study_facts, study_picture, study_markdown),
    "cprec": Writing("cprec-", cprec_documents, cprec_facts, cprec_picture, cprec_markdown),
}


def documents_of(outcome: Outcome) -> list[Document]:
    """One document per table of whichever study it is."""
    return WRITINGS[outcome.study.kind.name].documents(outcome)


def write_results(outcome: Outcome, documents: list[Document], command: str, other: Path | None = None) -> list[Path]:
    """Write ``TABLE.json``, ``TABLE.svg``, ``reproduction.md``, and the run's part of another document.

    Args:
        outcome: what the start did.
        documents: see `documents_of`; each gets the title of its picture.
        command: what a person types to get this.
        other: a Markdown document that holds several data sets' parts.

    Returns:
        The files that were written.

    Raises:
        UserError: the marks in the other document are damaged.
    """
    writing, folder = WRITINGS[outcome.study.kind.name], outcome.study.run / STUDY_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for document in documents:
        drawn = writing.picture(document)
        document["picture"] = drawn.title if drawn else None
        file = folder / f"{writing.prefix}{document['table']}.json"
        write_json(file, document)
        written.append(file)
        if drawn:
            write_atomically(file.with_suffix(".svg"), standalone(drawn))
            written.append(file.with_suffix(".svg"))
    facts = writing.facts(outcome, command)
    own = folder / f"{writing.prefix}reproduction.md"
    write_atomically(own, writing.markdown(facts, documents, True))
    written.append(own)
    if other:
        text = other.read_text(encoding="utf-8") if other.is_file() else ""
        part = writing.markdown(facts, documents, False)
        other.parent.mkdir(parents=True, exist_ok=True)
        name = f"{writing.prefix}{outcome.study.config.name}"
        write_atomically(other, replace_part(text, name, part, str(other)))
        written.append(other)
    return written

"""The study as Markdown: one section per table, and one data set's part of a document that holds several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from components.errors import UserError
from components.reports.study.cells import markdown_table, table_grids
from components.reports.study.paper import BATCH_SIZE, CLAIMS, DIM, TABLE_2

HEADINGS: Final = {
    "main": "Main results (Table 3)",
    "cost": "Cost (Table 4)",
    "teachers": "Teachers (Figure 3)",
    "students": "Students (Figure 4 and beyond)",
    "sweeps": "Parameters (Figure 5)",
}
Row = Mapping[str, Any]


def study_markdown(facts: Row, documents: Sequence[Row], pictures: bool) -> str:
    """A data set's part of the reproduction.

    Args:
        facts: see `differences`, with the command that made it and the seeds.
        documents: what `pipelines.study` writes as ``TABLE.json``.
        pictures: whether ``TABLE.svg`` lie beside the text.
    """
    parts = [f"## {facts['dataset']}", f"`{facts['command']}`; seeds {', '.join(map(str, facts['seeds']))}."]
    parts.append("What differs from the paper:\n\n" + "\n".join(f"- {line}" for line in differences(facts)))
    for document in documents:
        parts += _table_section(document, pictures)
    return "\n\n".join(parts) + "\n"


def _table_section(document: Row, pictures: bool) -> list[str]:
    table = document["table"]
    parts = [f"### {HEADINGS[table]}", f"The paper: {CLAIMS[table]}"]
    for grid in table_grids(document):
        parts += [f"**{grid.title}**"] if grid.title else []
        parts.append(markdown_table(grid))
    if pictures and document.get("picture"):
        parts.append(f"![{document['picture']}]({table}.svg)")
    return parts


def differences(facts: Row) -> list[str]:
    """What is known beforehand to differ from the paper, one line each.

    Args:
        facts: paper (its name of the data set, or None), users, items, interactions, student, dim, training,
            distillation, teachers (kind, arguments and whether pre-trained, by name), encoder, mask_history.
    """
    return [line for line in (_data(facts), *_models(facts), _protocol(facts)) if line]


def _data(facts: Row) -> str:
    ours = f"{facts['users']:,} users, {facts['items']:,} items, {facts['interactions']:,} interactions"
    if not facts["paper"]:
        return f"Data: {ours}; the paper has no results on this set."
    users, items, interactions = TABLE_2[facts["paper"]]
    return (
        f"Data: {ours}; the paper's {facts['paper'].capitalize()} has {users:,}, {items:,} and {interactions:,}: "
        "another version, or another filter, of the same log. Numbers of the two are not comparable in themselves."
    )


def _models(facts: Row) -> list[str]:
    student = f"Student: {facts['student']}"
    if facts["dim"] != DIM:
        student += f" of width {facts['dim']}; the paper's has {DIM}"
    training = facts["training"]
    lines = [
        f"{student}. Batches of {training['batch_size']} users with all their targets; the paper's have {BATCH_SIZE} "
        f"single instances. At most {training['epochs']} epochs."
    ]
    lines += [_teacher(name, teacher, facts["encoder"]) for name, teacher in facts["teachers"].items()]
    chosen = facts["distillation"]
    tau, direction = chosen["temperature"], chosen["direction"]
    lines.append(
        f"Distillation as tuned for this configuration: weight {chosen['weight']:g}, temperature {tau:g}, "
        f"KL({direction}), candidates: {chosen['candidates']}, weights: {chosen['weights']}, and at most "
        f"{chosen['max_instances']} instances of a batch. The paper: KL(p||q), in-batch items, all "
        "instances; it prints no weight or temperature."
    )
    return lines


def _teacher(name: str, teacher: Row, encoder: str | None) -> str:
    arguments, kind = teacher["arguments"], teacher["kind"]
    reads = f", item texts through {encoder}" if encoder and kind in ("unisrec", "unim2rec") else ""
    width = f", width {arguments['dim']}" if arguments.get("dim") else ""
    elsewhere = "pre-trained on other domains"
    start = elsewhere if teacher["pretrained"] else f"not {elsewhere}, as the paper's is"
    note = {
        "unim2rec": "; a reconstruction, because the published model came without code",
        "recformer": f"; {arguments.get('num_layers') or 'all'} layers and the last {arguments.get('max_length')} "
        "items, where the paper's is a whole Longformer",
    }.get(kind, "")
    return f"Teacher {name}: {kind}{reads}{width}, {start}{note}."


def _protocol(facts: Row) -> str:
    chosen = "leaves out" if facts["mask_history"] else "ranks"
    return (
        f"Protocol: all items are ranked. Validation {chosen} the items of the history; the paper does not say what it "
        "does, so the main table shows both ways. Ties count against the model."
    )


def marks(name: str) -> tuple[str, str]:
    """The lines between which a data set's part stands."""
    return f"<!-- study {name}: begin, written by distilrec study -->", f"<!-- study {name}: end -->"


def replace_part(text: str, name: str, part: str, file: str) -> str:
    """The document with the part of `name` replaced, or added at the end; all else stays as it is.

    Args:
        text: the document.
        name: which part.
        part: its new content.
        file: what errors call the document.

    Raises:
        UserError: one of the two marks is missing, they stand in the wrong order, or more than once.
    """
    begin, end = marks(name)
    block = f"{begin}\n\n{part.strip()}\n\n{end}"
    counts = (text.count(begin), text.count(end))
    if counts == (0, 0):
        return f"{text.rstrip()}\n\n{block}\n" if text.strip() else f"{block}\n"
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise UserError(
            f"{file}: expected {begin!r} once and {end!r} once behind it, found {counts[0]} and {counts[1]}; put them "
            "right, or remove both"
        )
    before, after = text[: text.index(begin)], text[text.index(end) + len(end) :]
    return f"{before}{block}{after}"

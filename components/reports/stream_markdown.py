"""The study of ESAPN as Markdown: one data set's part of a document that holds several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from components.reports.stream import LOSS, grids
from components.reports.stream_paper import CLAIMS, NAMES
from components.reports.study.cells import markdown_table

ORDER: Final = ("fixed", "darts", "autoemb", "esapn")
Row = Mapping[str, Any]


def stream_markdown(document: Row, command: str, pictures: Sequence[str]) -> str:
    """A data set's part of the reproduction.

    Args:
        document: see `components.reports.stream.stream_document`.
        command: what repeats it.
        pictures: files that lie beside the text.
    """
    seeds = sorted({seed for row in document["rows"] for seed in row["seeds"]})
    parts = [
        f"## ESAPN: {document['dataset']}",
        f"`{command}`; seeds {', '.join(map(str, seeds))}.",
        f"The paper: {CLAIMS}",
    ]
    parts.append(
        "What differs from the paper:\n\n" + "\n".join(f"- {line}" for line in _differences(document["facts"]))
    )
    for grid in grids(document):
        parts += [f"**{grid.title}**", markdown_table(grid)]
    parts.append("Read from these numbers:\n\n" + "\n".join(f"- {line}" for line in findings(document)))
    parts += [f"![{name}]({name})" for name in pictures]
    if document["missing"]:
        parts.append("Missing: " + "; ".join(f"{name}: {reason}" for name, reason in document["missing"].items()) + ".")
    return "\n\n".join(parts) + "\n"


def _differences(facts: Row) -> list[str]:
    model = facts["model"]
    order = "time" if facts["order"] == "time" else "a random order, as in the authors' code"
    return [
        f"Data: {facts['ratings']:,} ratings of {facts['users']:,} users and {facts['num_items']:,} items in the order "
        f"of {order}, {100 * facts['positive']:.1f} % positive; the paper streams 20 and 27 million in a random order.",
        f"{facts['ratings'] // model['batch_size']:,} steps of {model['batch_size']} ratings, where the paper has "
        "40,000 and more: all methods are far from what they could learn.",
        f"The last {100 * facts['test_fraction']:g} % of the ratings test; methods go on learning there.",
        f"ESAPN normalizes by `{model['bn_mode']}` unless its row says otherwise; p: paired t-test over users of the "
        "test part against FIXED, after averaging over seeds.",
        "Entities are those that occur; the paper's Table 2 counts all of the catalog.",
    ]


def findings(document: Row) -> list[str]:
    """What the numbers say of the paper's claims, as they fall."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in document["rows"]):
        rows = {row["name"]: row for row in document["rows"] if row["task"] == task}
        lines += _order(rows, task)
        if "fixed" in rows:
            lines += [_against(row, rows["fixed"], task) for name, row in rows.items() if row["method"] == "esapn"]
    return lines


def _order(rows: Mapping[str, Row], task: str) -> list[str]:
    known = [name for name in ORDER if name in rows]
    if len(known) < len(ORDER):
        return []
    lines = []
    for metric, sign in (("accuracy", -1), ("loss", 1)):
        ranked = sorted(known, key=lambda name: sign * rows[name][metric])
        holds = "as in the paper" if ranked == list(reversed(ORDER)) else "not the paper's order"
        best = " > ".join(NAMES[name] for name in ranked)
        lines.append(
            f"{task}, by {metric if metric == 'accuracy' else LOSS[task] + ' loss'}, best first: {best}; {holds}."
        )
    return lines


def _against(row: Row, fixed: Row, task: str) -> str:
    accuracy, loss = 100 * (row["accuracy"] - fixed["accuracy"]), row["loss"] - fixed["loss"]
    ratio = 100 * row["memory"]["ratio"]
    good = accuracy >= 0 and loss <= 0
    return (
        f"{task}: {NAMES.get(row['name'], row['name'])} against FIXED: accuracy {accuracy:+.2f} points, {LOSS[task]} "
        f"{loss:+.4f}, with {ratio:.1f} % of its embedding memory: {'at least equal' if good else 'worse'} in "
        f"{'both' if good else 'one or both'}."
    )

"""The study of CpRec as tables, a picture and Markdown: quality, size and speed beside the whole student and the paper.

Source of the printed numbers: "A Generic Network Compression Framework for Sequential Recommender Systems", Sun et al.,
SIGIR 2020, Tables 2, 3 and 5, MRR@5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from components.evaluation.significance import stars
from components.reports.plots import PLAIN_NUMBERS, metric_title
from components.reports.study.cells import NONE, Grid, markdown_table
from components.reports.svg import COLORS, INK, MUTED, Picture, picture

METRICS: Final = ("mrr@5", "recall@5", "ndcg@5", "mrr@20", "recall@20", "ndcg@20")
MAIN_METRIC: Final = "mrr@5"
HEADINGS: Final = {
    "main": "Main results (Table 2)",
    "blocks": "Input, output, or both in blocks (Tables 3 and 5)",
    "sharing": "Shared layers alone (Table 4)",
    "transfer": "Networks taken over from another catalog (Table 6)",
}
CLAIMS: Final = {
    "main": "CpRec is 4 to 8 times smaller, answers up to 9.4 times as fast, and is at least as good; Cl alone loses.",
    "blocks": "both in blocks are at least as good as the whole student, one low rank for all items is clearly worse.",
    "sharing": "neighboring blocks that share are as good as none that do; one kernel for all layers is worse.",
    "transfer": "after pre-training, shared layers recommend as well for short histories (HR@5 .3507 to .3540) as "
    "layers of their own (.3496).",
}
PRINTED: Final[Mapping[str, Mapping[str, float]]] = {  # MRR@5
    "weishi": {"nextitnet": 0.1053, "nextitnet CpRec-Ab": 0.1069, "gru4rec": 0.1008, "nextitnet B1": 0.0959}
    | {"nextitnet Bio": 0.1068, "gru4rec Bio": 0.1045},
    "ml20": {"nextitnet": 0.1057, "nextitnet CpRec-Ab": 0.1063, "nextitnet CpRec-Cl": 0.1011}
    | {"nextitnet CpRec-Cb": 0.1049, "nextitnet CpRec-Al": 0.1040, "gru4rec": 0.0946, "nextitnet B1": 0.0958}
    | {"nextitnet Bio": 0.1064},
    "tiktok": {"nextitnet": 0.0120, "nextitnet CpRec-Ab": 0.0129, "gru4rec": 0.0110, "nextitnet B1": 0.0109}
    | {"nextitnet Bio": 0.0123},
    "ml100": {"nextitnet": 0.1090, "nextitnet CpRec-Ab": 0.1111, "nextitnet CpRec-Cl": 0.1020}
    | {"nextitnet CpRec-Cb": 0.1070, "nextitnet CpRec-Al": 0.1076, "gru4rec": 0.0986, "nextitnet B1": 0.0917}
    | {"nextitnet Bio": 0.1109, "gru4rec Bio": 0.1025},
}
Row = Mapping[str, Any]


def cprec_grids(document: Row) -> list[Grid]:
    """The table of one document.

    Args:
        document: what `pipelines.study` writes as ``cprec-TABLE.json``.
    """
    shown = METRICS[:3]
    paper = PRINTED.get(document["paper"] or "", {})
    header = ("model", "parameters", "smaller ×", *map(metric_title, shown), f"gain in {metric_title(MAIN_METRIC)}")
    header += ("p", "by seed", "minutes to best", "ms a request", "faster ×", "paper's MRR@5")
    rows = []
    for row in document["rows"]:
        metrics = [NONE] * len(shown)
        if row["metrics"]:
            metrics = [f"{row['metrics'][name]:.4f}" for name in shown]
        gain = (row.get("gain") or {}).get(MAIN_METRIC)
        compared = ["", "", ""]
        if gain is not None:
            p_value = row["p_value"][MAIN_METRIC]
            compared = [f"{100 * gain:+.1f} % {stars(p_value)}".rstrip(), f"{p_value:.2g}", row["signs"][MAIN_METRIC]]
        reasons = "; ".join(f"seed {seed} missing: {reason}" for seed, reason in row["missing"].items())
        sizes = [_number(row["parameters"], ","), _number(row["smaller"], ".1f")]
        times = [_number(row["minutes"], ".1f"), _number(row["latency_ms"], ".2f"), _number(row["faster"], ".2f")]
        name = f"{row['name']} ({reasons})" if reasons else row["name"]
        rows.append([name, *sizes, *metrics, *compared, *times, _number(paper.get(row["name"]), ".4f")])
    return [Grid("", header, rows)]


def cprec_picture(document: Row) -> Picture | None:
    """Quality over the number of parameters, one color per kind of student; None without a finished trial."""
    rows = [row for row in document["rows"] if row["metrics"] and row["parameters"]]
    if not rows:
        return None
    families = list(dict.fromkeys(row["model"] for row in rows))

    def draw(axes: list[Axes]) -> None:
        axis = axes[0]
        for row in rows:
            color = COLORS[families.index(row["model"]) % len(COLORS)]
            height = row["metrics"][MAIN_METRIC]
            axis.plot([row["parameters"] / 1e6] * 2, row["interval"][MAIN_METRIC], color=MUTED, linewidth=0.8)
            axis.scatter(row["parameters"] / 1e6, height, color=color, s=26, zorder=3)
            axis.annotate(row["name"], (row["parameters"] / 1e6, height), (5, 3), textcoords="offset points", color=INK)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(PLAIN_NUMBERS)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("million parameters (log scale)")
        axis.set_ylabel(metric_title(MAIN_METRIC))

    alt = f"{metric_title(MAIN_METRIC)} of {len(rows)} models against their number of parameters."
    caption = "Up and to the left is better; the thin line is the 95 % interval over users."
    return picture(HEADINGS[document["table"]], alt, draw, height=4.0, caption=caption)


def cprec_markdown(facts: Row, documents: Sequence[Row], pictures: bool) -> str:
    """A data set's part of the reproduction.

    Args:
        facts: dataset, command, seeds, users (sequences), items, interactions, blocks (ends and ranks by student),
            training, split, chunk_length, shares (that validate, that test), transfer (the other run's name, if any).
        documents: what `pipelines.study` writes as ``cprec-TABLE.json``.
        pictures: whether ``cprec-TABLE.svg`` lie beside the text.
    """
    parts = [f"## {facts['dataset']}: CpRec", f"`{facts['command']}`; seeds {', '.join(map(str, facts['seeds']))}."]
    parts.append("What differs from the paper:\n\n" + "\n".join(f"- {line}" for line in differences(facts)))
    for document in documents:
        parts += [f"### {HEADINGS[document['table']]}", f"The paper: {CLAIMS[document['table']]}"]
        parts += [markdown_table(grid) for grid in cprec_grids(document)]
        if pictures and document.get("picture"):
            parts.append(f"![{document['picture']}](cprec-{document['table']}.svg)")
    return "\n\n".join(parts) + "\n"


def differences(facts: Row) -> list[str]:
    """What is known beforehand to differ from the paper, one line each."""
    training = facts["training"]
    blocks = "; ".join(f"{name}: {text}" for name, text in facts["blocks"].items())
    lines = [
        f"Data: {facts['users']:,} sequences, {facts['items']:,} items, {facts['interactions']:,} interactions; "
        f"{_split(facts)}.",
        f"Blocks (last items and widths): {blocks}.",
        f"Training: batches of {training['batch_size']}, at most {training['epochs']} epochs, stopped by validation "
        "NDCG@10; the paper trains until convergence and tunes on the test part.",
        "Positions of padding are not trained on, layer norms are never shared, and the five best items are found by "
        "branch and bound, which is exact.",
        "Time: minutes until the best epoch, while other trainings may have run beside it; a request is one history on "
        "one thread of the CPU, median, process by process in turn.",
    ]
    if facts["transfer"]:
        lines.append(
            f"Transfer: networks come from the study {facts['transfer']}, item vectors begin anew, and ids are not "
            "compared; the paper keeps the source's items as the input and replaces the output alone."
        )
    return lines


def _split(facts: Row) -> str:
    """How sequences were made and divided, and what of this is not as in the paper."""
    chunk = facts["chunk_length"]
    made = (
        f"histories are cut into chunks of {chunk} from their end, as in the paper; tests take the chunks of a user "
        "for independent, so that p-values are too small; "
        if chunk
        else ""
    )
    whole = "" if chunk else "; the paper cuts histories into chunks"
    if facts["split"] == "sequences":
        valid, test = facts["shares"]
        return f"{made}{test:.0%} of the sequences test with their last item, of {valid:.0%} it validates{whole}"
    if facts["split"] == "global_time":
        return f"{made}two points in time divide all histories, the paper tests on a fifth of the sequences{whole}"
    return (
        f"{made}each sequence's last item tests, the one before validates, the paper tests on a fifth of the "
        f"sequences{whole}"
    )


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)

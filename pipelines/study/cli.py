"""What `distilrec study` prints and returns."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from components.errors import UnknownNameError, UserError
from components.reports.study.show import print_document
from pipelines.interrupt import interruptible
from pipelines.load_config import load_config
from pipelines.output import messages, results
from pipelines.stream.study import NAME as ESAPN
from pipelines.stream.study import study_esapn
from pipelines.study.command import Outcome, plan_study, run_study
from pipelines.study.kinds import STUDIES
from pipelines.study.write import documents_of, write_results


def split_words(words: Sequence[str], only: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides, and names of tables: those given with ``--only`` and, behind it, words without ``=``.

    >>> split_words(["student.dim=8", "teachers"], ["main,cost"])
    (['student.dim=8'], ['main', 'cost', 'teachers'])
    """
    tables = [name for words_of_one in only for name in words_of_one.split(",") if name]
    if not tables:
        return list(words), []
    return [word for word in words if "=" in word], [*tables, *(word for word in words if "=" not in word)]


def study(
    name: str,
    file: Path,
    words: Sequence[str],
    only: Sequence[str],
    *,
    dry_run: bool = False,
    as_json: bool = False,
    write: Path | None = None,
) -> dict[str, Any]:
    """Do the command's work; returns what ``--json`` prints.

    Args:
        name: which study.
        file: the configuration.
        words: overrides, and names of tables behind ``--only``.
        only: names of tables.
        dry_run: only say what would run.
        as_json: keep stdout for the document.
        write: a Markdown document whose part of this data set is replaced.

    Raises:
        DistilrecError: the input is wrong, or the run failed.
    """
    if name not in (*STUDIES, ESAPN):
        raise UnknownNameError("study", name, (*STUDIES, ESAPN))
    if name == ESAPN:
        if only:
            raise UserError(
                "the study esapn has one table, and all it shows comes of the same trials; leave --only out"
            )
        command, chosen = command_line(name, file, words), load_config(file, words)
        return study_esapn(chosen, command, dry_run=dry_run, as_json=as_json, write=write)
    overrides, tables = split_words(words, only)
    config, kind = load_config(file, overrides), STUDIES[name]
    if dry_run:
        plan = plan_study(config, tables, kind)
        if not as_json:
            _print_plan(plan)
        return plan
    outcome = run_study(config, tables, kind)
    with interruptible():
        documents = documents_of(outcome)
        written = write_results(outcome, documents, command_line(name, file, overrides), write)
    _print_end(outcome, documents, written, as_json)
    return {
        "run": str(config.folder),
        "ran": outcome.ran,
        "failed": outcome.failures,
        "tables": {document["table"]: document for document in documents},
        "files": [str(path) for path in written],
    }


def command_line(name: str, file: Path, overrides: Sequence[str]) -> str:
    """The command that repeats the study, without what differs from machine to machine.

    >>> command_line("prm-kd", Path("configs/a.yaml"), ["data=/home/me/data", "seeds=[0, 1]"])
    "distilrec study prm-kd configs/a.yaml 'seeds=[0, 1]'"
    """
    kept = [word for word in overrides if word.partition("=")[0] not in ("data", "output")]
    return shlex.join(["distilrec", "study", name, str(file), *kept])


def _print_plan(plan: dict[str, Any]) -> None:
    console = results()
    waiting = [node["node"] for node in plan["nodes"] if node["run"]]
    if waiting:
        console.print(f"first, in the run itself: {', '.join(waiting)}", highlight=False, markup=False, soft_wrap=True)
    table = Table(
        title="Trials",
        title_justify="left",
        caption="a trial of several tables counts at the first",
        caption_justify="left",
    )
    for title in ("table", "student", "alone", "after the teachers", "done", "to run"):
        table.add_column(title, justify="left" if title in ("table", "student") else "right")
    trials = plan["trials"]
    for first, student in dict.fromkeys((trial["tables"][0], trial["student"]) for trial in trials):
        own = [trial for trial in trials if (trial["tables"][0], trial["student"]) == (first, student)]
        taught = Counter(trial["distilled"] for trial in own)
        done = sum(trial["done"] for trial in own)
        table.add_row(first, student, *map(str, (taught[False], taught[True], done, len(own) - done)))
    console.print(table)
    done = sum(trial["done"] for trial in trials)
    ranked = sum(not teacher["done"] for teacher in plan["teachers"])
    text = f"{len(trials)} trials: {done} done, {len(trials) - done} to run; {ranked} teachers to rank"
    console.print(text, highlight=False)


def _print_end(outcome: Outcome, documents: list[dict[str, Any]], written: list[Path], as_json: bool) -> None:
    console = messages() if as_json else results()
    for document in documents:
        print_document(document, console)
    if not outcome.ran:
        messages().print("nothing to run: every trial was done already", highlight=False)
    for name, reason in outcome.failures.items():
        messages().print(f"failed: {reason or name}", style="red", highlight=False, markup=False, soft_wrap=True)
    if outcome.failures:
        text = f"{len(outcome.failures)} failed; the same command tries them again, the tables show what is there"
        messages().print(text, highlight=False)
    listed = [path for path in written if path.suffix == ".md"]
    console.print(f"written:  {', '.join(map(str, listed))}", highlight=False, markup=False, soft_wrap=True)

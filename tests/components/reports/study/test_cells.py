"""Tables of a study as text."""

from __future__ import annotations

import io

from rich.console import Console

from components.reports.study.cells import markdown_table, table_grids
from components.reports.study.show import print_document
from tests.components.reports.study.documents import cost_rows, document, quality_rows


def test_ours_stands_above_the_papers_numbers() -> None:
    grid = table_grids(document("main", quality_rows()))[0]
    assert grid.header[:4] == ("model", "Recall@5", "Recall@10", "Recall@20")
    by_name = {row[0]: row for row in grid.rows}
    assert by_name["plain, in the paper"][1:7] == ["0.0783", "0.1064", "0.1408", "0.0457", "0.0549", "0.0635"]
    assert by_name["prm-kd, in the paper"][5] == "0.0627"
    assert by_name["text, in the paper"][2] == "0.1215"
    assert by_name["plain"][2] == "1.0000 ±.0000"
    assert by_name["text"][2] == "1.0000"  # one seed has no deviation
    assert all(len(row) == len(grid.header) for row in grid.rows)
    assert list(by_name)[:3] == ["plain", "plain, in the paper", "prm-kd"]


def test_the_gain_names_what_it_is_over() -> None:
    grid = table_grids(document("main", quality_rows()))[0]
    gain, over, p_value, signs = {row[0]: row for row in grid.rows}["prm-kd"][-4:]
    assert gain.startswith("+")
    assert gain.endswith("***")
    assert (over, signs) == ("plain", "++")
    assert float(p_value) < 0.001


def test_a_failed_row_says_so_and_holds_no_zero() -> None:
    grid = table_grids(document("main", quality_rows()))[0]
    failed = {row[0]: row for row in grid.rows}["gru4rec"]
    assert failed[1] == "missing: out of memory | twice"
    assert set(failed[2:7]) == {"–"}
    assert not any(character.isdigit() for cell in failed[1:] for character in cell)
    partly = {row[0]: row for row in grid.rows}["text"]
    assert partly[-1] == "+ seed 1 missing: not run"


def test_a_set_that_the_paper_lacks_shows_ours_alone() -> None:
    grid = table_grids({**document("main", quality_rows()), "paper": None})[0]
    assert not [row for row in grid.rows if "paper" in row[0]]


def test_other_tables_show_two_metrics_and_no_printed_numbers() -> None:
    grid = table_grids(document("teachers", quality_rows()))[0]
    assert grid.header[1:3] == ("Recall@10", "NDCG@10")
    assert not [row for row in grid.rows if "paper" in row[0]]


def test_cost_shows_ratios_beside_the_papers() -> None:
    rows = {row[0]: row for row in table_grids(document("cost", cost_rows()))[0].rows}
    assert rows["fm"] == ["fm", "2,000", "3.00", "300", "1.50", "75", "2.00", "20.0", "2.00", ""]
    assert rows["text"] == ["text", "–", "5.00", "–", "2.50", *["–"] * 4, "two arrays, no model"]
    assert rows["text, in the paper"][4:9] == ["2.7", "", "1.9", "", "51.5"]


def test_markdown_escapes_what_would_break_a_cell() -> None:
    text = markdown_table(table_grids(document("main", quality_rows()))[0])
    lines = text.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "out of memory \\| twice" in text


def test_names_are_not_markup_on_the_terminal() -> None:
    rows = quality_rows()
    rows[0]["name"] = "[red]plain"
    console = Console(file=io.StringIO(), width=200)
    print_document(document("students", rows), console)
    assert "[red]plain" in console.file.getvalue()  # type: ignore[attr-defined]

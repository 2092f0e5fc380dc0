"""The study as Markdown, and one data set's part of a document of several."""

from __future__ import annotations

from typing import Any

import pytest

from components.errors import UserError
from components.reports.study.markdown import differences, marks, replace_part, study_markdown
from tests.components.reports.study.documents import cost_rows, document, quality_rows

FACTS: dict[str, Any] = {
    "dataset": "mine",
    "command": "distilrec study prm-kd configs/mine.yaml",
    "seeds": [0, 1],
    "paper": "scientific",
    "users": 8317,
    "items": 4344,
    "interactions": 58492,
    "student": "SASRec",
    "dim": 64,
    "training": {"batch_size": 128, "epochs": 60},
    "distillation": {
        "weight": 10.0,
        "temperature": 0.07,
        "direction": "q||p",
        "candidates": "all",
        "weights": "consistency",
        "max_instances": 256,
    },
    "teachers": {
        "text": {"kind": "unisrec", "arguments": {"dim": 256}, "pretrained": False},
        "pictures": {"kind": "unim2rec", "arguments": {"dim": 256}, "pretrained": True},
        "words": {"kind": "recformer", "arguments": {"num_layers": 2, "max_length": 4}, "pretrained": False},
    },
    "encoder": "MiniLM",
    "mask_history": True,
}


def test_a_section_per_table_with_what_the_paper_says() -> None:
    text = study_markdown(FACTS, [document("main", quality_rows()), document("cost", cost_rows())], pictures=False)
    assert text.startswith("## mine\n\n`distilrec study prm-kd configs/mine.yaml`; seeds 0, 1.")
    assert text.index("### Main results (Table 3)") < text.index("### Cost (Table 4)")
    assert "The paper: PRM-KD beats SASRec on most metrics" in text
    assert ".svg" not in text


def test_pictures_are_linked_where_they_lie_beside_the_text() -> None:
    shown = {**document("main", quality_rows()), "picture": "Ranking quality"}
    assert "![Ranking quality](main.svg)" in study_markdown(FACTS, [shown], pictures=True)


def test_what_differs_is_said_with_both_numbers() -> None:
    lines = "\n".join(differences(FACTS))
    assert "8,317 users, 4,344 items, 58,492 interactions" in lines
    assert "the paper's Scientific has 11,041, 5,327 and 76,896" in lines
    assert "width 64; the paper's has 300" in lines
    assert "Teacher text: unisrec, item texts through MiniLM, width 256, not pre-trained on other domains" in lines
    assert (
        "Teacher pictures: unim2rec, item texts through MiniLM, width 256, pre-trained on other domains; a recon"
        in lines
    )
    assert "2 layers and the last 4 items" in lines
    assert "weight 10, temperature 0.07, KL(q||p), candidates: all" in lines
    assert "Validation leaves out the items of the history" in lines


def test_a_set_that_the_paper_lacks() -> None:
    assert "the paper has no results on this set" in "\n".join(differences({**FACTS, "paper": None}))


def test_a_part_is_replaced_and_all_else_stays() -> None:
    text = replace_part("# Introduction\n", "mine", "first", "file.md")
    text = replace_part(text, "yours", "other", "file.md")
    assert text.startswith("# Introduction\n\n")
    again = replace_part(text, "mine", "second", "file.md")
    assert again == text.replace("first", "second")
    assert replace_part(again, "mine", "second", "file.md") == again


def test_an_empty_document_gets_its_first_part() -> None:
    begin, end = marks("mine")
    assert replace_part("", "mine", "text", "file.md") == f"{begin}\n\ntext\n\n{end}\n"


@pytest.mark.parametrize("damaged", ["{0}\n", "{1}\n", "{1}\n{0}\n", "{0}\n{1}\n{0}\n{1}\n"])
def test_damaged_marks_are_refused(damaged: str) -> None:
    with pytest.raises(UserError, match=r"file\.md: expected .*mine: begin.* once behind it, found \d and \d"):
        replace_part(damaged.format(*marks("mine")), "mine", "text", "file.md")


def test_marks_of_one_set_are_not_those_of_a_longer_name() -> None:
    text = replace_part("", "mine", "first", "file.md")
    assert replace_part(text, "mine-too", "second", "file.md").count("first") == 1

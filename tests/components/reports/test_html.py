from __future__ import annotations

import doctest
import re
from html.parser import HTMLParser

import pytest

from components.reports import html
from components.reports.html import curve_metric, render_report, report_pictures
from tests.components.reports.sample import MODELS, sample_leaderboard, sample_report

VOID = {"meta", "br", "link", "img", "hr", "input"}
EVIL = '<script>alert(1)</script><img src=x onerror="x">'


class Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page_text() -> str:
    return render_report(sample_report(), sample_leaderboard(400))


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(html).failed == 0


def test_the_page_is_well_formed_and_loads_nothing(page_text: str) -> None:
    page = Page(page_text)
    assert page.open == []
    assert all(reference.startswith("#") for reference in page.references)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "http://" not in page_text
    assert "https://" not in page_text
    assert "@import" not in page_text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page_text))
    assert len(page.ids) == len(set(page.ids))


def test_everything_is_in_it(page_text: str) -> None:
    page = Page(page_text)
    for expected in (
        *MODELS,
        "95\u00a0% interval",
        "vs plain",
        "Beyond accuracy",
        "2.13.0",
        "0, 1, 2",
        "training interactions lie",
    ):
        assert expected in page.text, expected
    assert page.tags.count("svg") == 6
    assert page_text.count('role="img" aria-label=') == 6
    assert "prefers-color-scheme: dark" in page_text


def test_what_users_name_is_escaped() -> None:
    report, leaderboard = sample_report(), sample_leaderboard(100)
    leaderboard["rows"][0]["name"] = leaderboard["dataset"] = leaderboard["baseline"] = EVIL
    report |= {"name": EVIL, "config": {EVIL: EVIL}, "counts": {EVIL: EVIL}, "versions": {EVIL: EVIL}}
    report["audit"]["findings"][0]["message"] = EVIL
    report["curves"] = {EVIL: report["curves"]["plain"]}
    report["distillation"] = {EVIL: {**report["distillation"]["prm-kd"], "teachers": [EVIL]}}
    page = Page(render_report(report, leaderboard))
    assert page.open == []
    assert page.handlers == []
    assert not {"script", "img"} & set(page.tags)
    assert EVIL in page.text


def test_secrets_in_addresses_are_not_shown(page_text: str) -> None:
    assert "s3://***@bucket/logs" in page_text
    assert "secret" not in page_text


@pytest.mark.parametrize("report", [{}, {"curves": {}, "distillation": {}, "data": {}, "audit": {}}])
def test_a_run_with_little_to_show(report: dict) -> None:  # type: ignore[type-arg]
    leaderboard = sample_leaderboard(50)
    minimal = {"rows": leaderboard["rows"][-1:], "cutoffs": [5, 10, 20]}
    assert Page(render_report(report, minimal)).open == []
    assert Page(render_report(report, {"rows": [], "cutoffs": [10]})).open == []
    assert [found.title for found in report_pictures(report, {"rows": [], "cutoffs": [10]})] == []


def test_the_same_input_gives_the_same_page(page_text: str) -> None:
    assert render_report(sample_report(), sample_leaderboard(400)) == page_text


def test_curves_show_the_metric_that_training_watched() -> None:
    assert curve_metric({"curves": {"a": [[{"epoch": 1, "valid_recall@20": 0.1}]]}}, "ndcg@10") == "valid_recall@20"
    assert curve_metric({}, "ndcg@10") == "valid_ndcg@10"

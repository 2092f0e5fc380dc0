"""What the page looks like and to whom: phones, light and dark, screen readers, motion; and what its policy refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Site
from tests.browser.page import Page

pytestmark = pytest.mark.browser
SETTINGS: list[dict[str, str]] = [{}, {"teachers": "1"}, {"versus": "v0002"}, {"versus": "v0002", "teachers": "1"}]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "+".join(one) or "plain")
@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_is_wider_than_the_screen(page: Page, site: Site, width: int, settings: dict[str, str]) -> None:
    page.emulate(width, 640)
    page.open(site.url, "id-2", "id-3", **settings)
    assert page.sideways() <= 0
    page.script("document.querySelector('#access').open = true")
    assert page.sideways() <= 0
    small = page.script(
        "return [...document.querySelectorAll('button, summary, select, input, a')].filter(one => {"
        " const box = one.getBoundingClientRect(); return box.width && (box.width < 18 || box.height < 18) &&"
        " one.type != 'checkbox' && one.id != 'skip' }).map(one => one.outerHTML)"
    )
    assert not small, "too small for a finger"


def test_a_phone_can_click_a_history_together(page: Page, site: Site) -> None:
    page.emulate(320, 640)
    page.open(site.url)
    before = page.ids()
    page.click("#found .row:nth-child(4) button")
    page.until(lambda: page.history() == ["id-4"] and page.ids() != before)
    assert page.sideways() <= 0


def test_dark_is_dark_and_light_is_light(page: Page, site: Site) -> None:
    def lightness() -> float:
        color = page.script("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(","))) / 3

    page.open(site.url)
    assert lightness() > 230
    page.emulate(prefers_color_scheme="dark")
    assert lightness() < 40


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[3]], ids=["plain", "everything"])
def test_contrast_names_and_structure(page: Page, site: Site, scheme: str, settings: dict[str, str]) -> None:
    axe: Any = pytest.importorskip("axe_core_python.selenium", reason="axe is not installed: pip install '.[browser]'")
    page.emulate(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    page.open(site.url, "id-2", "id-3", **settings)
    if settings:
        page.until(lambda: len(page.texts(".teachers:not([hidden])")) == 24)
    page.script("document.querySelector('#access').open = true")
    found = axe.Axe().run(page.browser, options={"runOnly": RULES})
    told = [(one["id"], one["nodes"][0]["html"], one["nodes"][0]["failureSummary"]) for one in found["violations"]]
    assert not told
    assert "color-contrast" in {one["id"] for one in found["passes"]}


def test_changes_are_said_to_who_does_not_see_them(page: Page, site: Site) -> None:
    page.open(site.url)
    assert page.one("#status").get_attribute("role") == "status"
    assert page.one("#problem").get_attribute("role") == "alert"
    page.click("#found .row:nth-child(3) button")
    page.until(lambda: page.status().startswith("12 items; first "))
    assert page.one(".item button").accessible_name.startswith("Add ")
    assert page.one("#history .remove").accessible_name == "Remove Film 3"


@pytest.mark.parametrize(("motion", "moves"), [("no-preference", True), ("reduce", False)])
def test_who_wants_no_motion_gets_none(page: Page, site: Site, motion: str, moves: bool) -> None:
    page.emulate(prefers_reduced_motion=motion)
    page.open(site.url)
    page.script(
        "window.moved = 0; const real = Element.prototype.animate;"
        "Element.prototype.animate = function (...given) { window.moved += 1; return real.apply(this, given) }"
    )
    before = page.ids()
    page.click("#found .row:nth-child(3) button")
    page.until(lambda: page.ids() != before)
    assert (page.script("return window.moved") > 0) == moves


def test_the_policy_holds(page: Page, site: Site) -> None:
    page.expected += ["Content Security Policy", "Refused to"]
    page.open(site.url)
    page.script(
        "const script = document.createElement('script'); script.textContent = 'window.inline = 1';"
        "document.body.append(script);"
        "const link = document.createElement('button'); link.setAttribute('onclick', 'window.inline = 2');"
        "document.body.append(link); link.click()"
    )
    assert page.script("return window.inline") is None
    refused = page.browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "fetch('http://127.0.0.2:9/').then(() => done('sent'), error => done(error.name))"
    )
    assert refused == "TypeError"
    assert any("violates" in line for line in page.console())


def test_the_page_asks_its_own_host_alone(page: Page, site: Site) -> None:
    page.open(site.url, "id-3", versus="v0002", teachers="1")
    page.until(lambda: len(page.texts(".teachers:not([hidden])")) == 24)
    asked = page.requests()
    assert len(asked) > 10
    assert {url.startswith(site.url) for url in asked} == {True}

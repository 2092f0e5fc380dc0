"""A person at the demo page: clicks, keys, versions, teachers, trouble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from components.artifacts.opinions import OPINIONS_FILE, opinions_of, read_opinions
from components.recommender import Recommender
from serve.backend import LocalBackend
from serve.errors import ApiError
from serve.models import Served
from tests.browser.conftest import Site
from tests.browser.page import Page
from tests.exhibits import HOSTILE, TEACHERS

pytestmark = pytest.mark.browser
ENTER, DOWN, UP, TAB, ALL = "\ue007", "\ue015", "\ue013", "\ue004", "\ue009a\ue009"


def ranking(model: Recommender, *history: str, k: int = 12, exclude_seen: bool = True) -> list[str]:
    return [item.item_id for item in model.recommend([list(history)], k, exclude_seen)[0].items]


def test_the_page_opens_with_the_popular_items(page: Page, site: Site) -> None:
    page.open(site.url)
    page.ranks([f"id-{number}" for number in range(1, 13)])
    assert page.status() == "No item yet, so the most popular ones: 12 items."
    assert "plain@" in page.one("#about").text
    assert "60 interactions" in page.texts(".score")[0]
    assert page.one("#no-history").is_displayed()


def test_searching_and_clicking_changes_the_ranking_at_once(page: Page, site: Site) -> None:
    page.open(site.url)
    page.search("film 17")
    page.until(lambda: page.texts("#found .title") == ["Film 17"])
    page.click("#found button")
    page.ranks(ranking(site.first, "id-17"))
    scores = [item.score for item in site.first.recommend([["id-17"]], 12)[0].items]
    assert page.texts(".score > span:nth-child(2)") == [f"{score:.3f}" for score in scores]
    assert "ms round trip, of which the endpoint" in page.one(".latency").text
    page.click(".ranking .item:nth-child(3) button")  # from the ranking into the history
    third = ranking(site.first, "id-17")[2]
    after = ranking(site.first, "id-17", third)
    page.ranks(after)
    assert page.history() == ["id-17", third]
    before = ranking(site.first, "id-17")
    new = [item for item in after if item not in before]
    assert page.texts(".moved.new") == ["new"] * len(new)
    ups = [before.index(item) - place for place, item in enumerate(after) if item in before]
    assert page.texts(".moved.up > [aria-hidden]") == [f"▲ {up}" for up in ups if up > 0]
    assert page.texts(".moved.down > [aria-hidden]") == [f"▼ {-up}" for up in ups if up < 0]


def test_removing_clearing_and_choosing_again(page: Page, site: Site) -> None:
    page.open(site.url, "id-7", "id-8")
    page.ranks(ranking(site.first, "id-7", "id-8"))
    page.click("#history .row:first-child .remove")
    page.ranks(ranking(site.first, "id-8"))
    assert page.focused() == "Remove Film 8"
    page.search("Film 8")
    page.until(lambda: page.texts("#found .title") == ["Film 8"])
    assert page.one("#found button").get_attribute("aria-pressed") == "true"
    page.click("#found button")  # a second click takes it back
    page.until(lambda: page.history() == [])
    page.click("#found button")
    page.ranks(ranking(site.first, "id-8"))
    page.click("#clear")
    page.ranks([f"id-{number}" for number in range(1, 13)])
    assert page.browser.current_url == site.url


def test_options(page: Page, site: Site) -> None:
    page.open(site.url, "id-9")
    page.one("#k").send_keys(ALL, "5", ENTER)
    page.ranks(ranking(site.first, "id-9", k=5))
    page.click("#exclude")
    page.ranks(ranking(site.first, "id-9", k=5, exclude_seen=False))
    page.one("#k").send_keys(ALL, "100000", TAB)
    page.ranks(ranking(site.first, "id-9", k=100, exclude_seen=False))
    assert page.one("#k").get_attribute("value") == "100"


def test_everything_can_be_done_with_keys_alone(page: Page, site: Site) -> None:
    page.open(site.url)
    page.keys("/")
    assert page.focused() == "Search items"
    page.keys("film 2", ENTER)  # Enter adds the first at once, whether or not the list was shown meanwhile
    page.until(lambda: page.history() == ["id-20"])
    page.until(lambda: len(page.texts("#found .title")) == 10)
    page.keys(DOWN, DOWN)
    assert page.focused() == "Film 21, in the history"
    page.keys(ENTER)
    page.ranks(ranking(site.first, "id-20", "id-21"))
    assert page.focused() == "Film 21, in the history", "the focus stays where it was"
    page.keys(UP, UP)
    assert page.focused() == "Search items"
    steps = 0
    while not page.focused().startswith("Add "):
        page.keys(TAB)
        steps += 1
        assert steps < 40, "the ranking cannot be reached"
    first = ranking(site.first, "id-20", "id-21")[0]
    page.keys(ENTER)
    page.ranks(ranking(site.first, "id-20", "id-21", first))
    assert page.focused().startswith("Add "), "the item left the ranking, the focus did not"
    page.script("document.querySelector('#history .remove').focus()")
    page.keys(ENTER)
    page.until(lambda: page.history() == ["id-21", first])
    assert page.focused() == "Remove Film 21"
    outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_first_tab_stop_leads_to_the_recommendations(page: Page, site: Site) -> None:
    page.open(site.url, "id-4")
    page.keys(TAB)
    assert page.focused() == "Skip to the recommendations"
    page.keys(ENTER)
    assert page.script("return document.activeElement.id") == "results-title"
    assert page.history() == ["id-4"]


def test_two_versions_side_by_side(page: Page, site: Site) -> None:
    page.open(site.url, "id-11", "id-30")
    page.choose("#versus", "v0002")
    left, right = (ranking(model, "id-11", "id-30") for model in (site.first, site.second))
    page.ranks(right, column=1)
    page.ranks(left)
    assert left != right
    common = len(set(left) & set(right))
    assert page.status().startswith(f"{common} of 12 items in both rankings.")
    assert [text.split("@")[0] for text in page.texts(".column h3")] == ["v0001 · plain", "v0002 · taught"]
    assert page.texts(".column:nth-child(1) .moved") == ["only here"] * (12 - common)
    expected = []
    for place, item in enumerate(right):
        change = left.index(item) - place if item in left else None
        if change != 0:
            expected.append("only here" if change is None else f"{'▲' if change > 0 else '▼'} {abs(change)}")
    shown = "return [...document.querySelectorAll('.column:nth-child(2) .moved')].map(m => (m.firstChild).textContent)"
    assert page.script(shown) == expected
    page.choose("#model", "v0002")
    page.ranks(right)
    page.choose("#versus", "")
    page.until(lambda: len(page.texts(".column")) == 1)
    page.ranks(right)


def test_which_teacher_liked_what(page: Page, site: Site) -> None:
    page.open(site.url, "id-3", "id-14")
    page.click("#teachers")
    page.until(lambda: len(page.texts(".teachers:not([hidden])")) == 12)
    rows = read_opinions(site.first.folder / OPINIONS_FILE)
    items = [site.first.number(item) or 0 for item in page.ids()]
    found = {name: opinions_of(table, [3, 14], items) for name, table in rows.items()}
    for place, texts in enumerate(
        page.script(
            "return [...document.querySelectorAll('.teachers')].map(list => [...list.children].map(li => li.innerText))"
        )
    ):
        opinions = {name: found[name][place] for name in TEACHERS}
        best = min(one.position for one in opinions.values() if one)
        for text, name in zip(texts, rows, strict=True):
            one = opinions[name]
            assert one is not None
            assert text.startswith(f"{name} № {one.position}")
            near, _, cosine = text.partition("close to ")[2].split("\n")[0].rpartition(" ")
            assert (near, float(cosine)) == (f"Film {one.nearest}", pytest.approx(one.similarity, abs=0.006))
            assert ("likes it most" in text) == (one.position == best)


def test_an_older_artifact_hides_what_it_does_not_have(page: Page, bare_site: Site) -> None:
    page.open(bare_site.url, "id-3", teachers="1", versus="v9")
    page.ranks(ranking(bare_site.first, "id-3"))
    for field in ("#teachers-field", "#versus-field", "#model-field", "#teachers-note"):
        assert not page.one(field).is_displayed()
    assert page.texts(".portrait") == []
    assert not [url for url in page.requests() if "picture" in url or "opinions" in url]


def test_pictures_and_drawn_tiles(page: Page, site: Site) -> None:
    page.open(site.url)
    loaded = "const i = document.querySelector(`.item[data-id=${arguments[0]}] img`); return i ? i.naturalWidth : -1"
    page.until(lambda: page.script(loaded, "id-1") == 80)
    page.until(lambda: page.script("return Boolean(document.querySelector('.item[data-id=id-5] svg'))"))
    assert page.script("return document.querySelector('.item[data-id=id-5] svg').textContent") == "F5"


def test_titles_are_never_markup(page: Page, site: Site) -> None:
    page.open(site.url, "id-2")
    assert page.texts("#history .title") == [HOSTILE]
    assert HOSTILE in page.texts("#found .title")
    assert page.script("return window.hacked") is None


def test_the_address_restores_the_page(page: Page, site: Site) -> None:
    page.open(site.url, "id-31", "id-1", k="4", seen="1", versus="v0002", teachers="1")
    page.ranks(ranking(site.second, "id-31", "id-1", k=4, exclude_seen=False), column=1)
    assert page.texts("#history .title") == ["Film 31", "Film 1"]
    assert page.one("#k").get_attribute("value") == "4"
    assert not page.one("#exclude").is_selected()
    page.click("#history .remove")
    page.ranks(ranking(site.first, "id-1", k=4, exclude_seen=False))
    address = page.browser.current_url
    page.browser.get("about:blank")
    page.browser.get(address)
    page.ranks(ranking(site.first, "id-1", k=4, exclude_seen=False))
    page.script("location.hash = 'item=id-50&k=3'")
    page.ranks(ranking(site.first, "id-50", k=3))


def test_items_that_the_catalogue_does_not_hold_are_named(page: Page, site: Site) -> None:
    page.open(site.url, "gone", "id-6")
    page.ranks(ranking(site.first, "id-6"))
    assert page.status().endswith("The catalogue does not hold gone.")
    page.search("nothing like it")
    page.until(lambda: "Nothing holds “nothing like it”" in page.one("#found-note").text)


def test_a_key_is_asked_for_and_kept_nowhere(page: Page, locked_site: Site) -> None:
    page.expected.append("401")
    page.open(locked_site.url, "id-3", ready=False)
    page.until(lambda: page.one("#problem-text").text == "This endpoint asks for an API key. Enter it above.")
    assert page.focused() == "API key"
    page.keys("wrong", ENTER)
    page.until(lambda: "not accepted" in page.one("#problem-text").text)
    page.one("#key").send_keys(ALL, "secret", ENTER)
    page.ranks(ranking(locked_site.first, "id-3"))
    assert not page.one("#problem").is_displayed()
    page.until(
        lambda: page.script(
            "const i = document.querySelector('.item img'); return i.naturalWidth == 80 && i.src.startsWith('blob:')"
        )
    )
    kept = page.script("return JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert "secret" not in kept
    assert not [url for url in page.requests() if "secret" in url]
    page.browser.refresh()
    page.until(lambda: "asks for an API key" in page.one("#problem-text").text)


class Busy(LocalBackend):
    """Sheds the first requests."""

    refusals = 2

    async def answer(self, model: Served, query: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            raise ApiError(429, "too many requests", headers={"Retry-After": "1"})
        return await super().answer(model, query)


def test_a_busy_endpoint_is_asked_again(
    page: Page, start_site: Callable[..., Site], two_versions: LocalBackend
) -> None:
    page.expected.append("429")
    backend = Busy(None)
    backend.models = replace(two_versions.models)
    site = start_site(backend)
    page.open(site.url, "id-3", ready=False)
    page.until(lambda: "trying again in 1 s" in page.status())
    page.ranks(ranking(site.first, "id-3"))
    assert not page.one("#problem").is_displayed()
    backend.refusals = 4
    page.click("#exclude")
    page.until(lambda: "overloaded" in page.one("#problem-text").text)
    page.click("#retry")
    page.until(lambda: not page.one("#problem").is_displayed())


def test_an_endpoint_that_is_gone_is_said_and_can_be_tried_again(page: Page, site: Site) -> None:
    page.expected.append("ERR_INTERNET_DISCONNECTED")
    page.open(site.url, "id-3")
    page.offline(True)
    page.click("#clear")
    page.until(lambda: "The endpoint does not answer" in page.one("#problem-text").text)
    page.offline(False)
    page.click("#retry")
    page.ranks([f"id-{number}" for number in range(1, 13)])
    assert not page.one("#problem").is_displayed()


def test_the_page_of_the_api_sends_a_request(page: Page, site: Site) -> None:
    page.open(site.url, ready=False)
    page.browser.get(f"{site.url}docs")
    page.until(lambda: len(page.texts("details")) >= 9)
    page.script("document.querySelector('details').open = true")
    page.click("details[open] button")
    page.until(lambda: page.one("details[open] pre").text.startswith("200"))

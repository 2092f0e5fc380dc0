"""What the tests do with the page, and what they see."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

WAIT_S = 40
READY = "return document.querySelectorAll('.ranking .item').length > 0 && !document.querySelector('[aria-busy=true]')"


class Page:
    """The demo page in a browser.

    Attributes:
        expected: parts of console lines that a test provokes.
    """

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.expected = ["/picture"]  # an item without one: 404 is what the page draws a tile for
        self.hosts = {""}

    def reset(self) -> None:
        self.browser.get("about:blank")
        self.emulate()
        self.browser.execute_cdp_cmd("Network.enable", {})
        self.offline(False)
        self.console()
        self.requests()

    def emulate(self, width: int = 1200, height: int = 900, **features: str) -> None:
        """Screen size, and media features such as prefers_color_scheme="dark"."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        given = {"prefers_color_scheme": "light", "prefers_reduced_motion": "no-preference"} | features
        media = [{"name": name.replace("_", "-"), "value": value} for name, value in given.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})

    def offline(self, is_off: bool) -> None:
        conditions = {"offline": is_off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def open(self, url: str, *items: str, ready: bool = True, **settings: str) -> None:
        """Open the page anew with a history and settings in its address."""
        self.hosts.add(urlsplit(url).netloc)
        self.browser.get("about:blank")
        self.browser.get(f"{url}#{urlencode([*(('item', item) for item in items), *settings.items()])}")
        if ready:
            self.until(lambda: self.script(READY))

    # -- seeing ------------------------------------------------------------------------------------------------------

    def script(self, text: str, *arguments: Any) -> Any:
        return self.browser.execute_script(text, *arguments)

    def until(self, condition: Callable[[], Any]) -> Any:
        """What `condition` says once it is true."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, WAIT_S, 0.05, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """The words that are seen in each such element."""
        found: list[str] = self.script(
            "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText.trim())", selector
        )
        return found

    def ids(self, column: int = 0) -> list[str]:
        """Item ids of a ranking."""
        found: list[str] = self.script(
            "const list = document.querySelectorAll('.ranking')[arguments[0]];"
            "return list ? [...list.children].map(row => row.dataset.id) : []",
            column,
        )
        return found

    def history(self) -> list[str]:
        found: list[str] = self.script(
            "return [...document.querySelectorAll('#history .row')].map(row => row.dataset.id)"
        )
        return found

    def focused(self) -> str:
        """Accessible name of what has the focus."""
        return str(self.browser.switch_to.active_element.accessible_name)

    def status(self) -> str:
        return str(self.one("#status").text)

    def sideways(self) -> int:
        """Pixels that the page is wider than the screen."""
        return int(self.script("return document.documentElement.scrollWidth - window.innerWidth"))

    # -- doing -------------------------------------------------------------------------------------------------------

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def keys(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def search(self, text: str) -> None:
        self.one("#query").clear()
        self.one("#query").send_keys(text)

    def choose(self, selector: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one(selector)).select_by_value(value)

    def ranks(self, expected: list[str], column: int = 0) -> None:
        """Wait for a ranking."""
        try:
            self.until(lambda: self.ids(column) == expected)
        except Exception as error:
            raise AssertionError(f"{self.ids(column)} is shown, {expected} was expected: {self.status()}") from error

    # -- afterwards --------------------------------------------------------------------------------------------------

    def console(self) -> list[str]:
        """Errors and warnings of the console since the last call."""
        return [line["message"] for line in self.browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call."""
        events = [json.loads(line["message"])["message"] for line in self.browser.get_log("performance")]
        sent = (event["params"] for event in events if event["method"] == "Network.requestWillBeSent")
        asked = [event["request"]["url"] for event in sent]
        return [url for url in asked if not url.startswith(("data:", "about:"))]

    def check_quiet(self) -> None:
        """No error in the console but the expected ones, and no request to another host."""
        bad = [line for line in self.console() if not any(part in line for part in self.expected)]
        assert not bad
        foreign = [url for url in self.requests() if urlsplit(url.removeprefix("blob:")).netloc not in self.hosts]
        assert not foreign

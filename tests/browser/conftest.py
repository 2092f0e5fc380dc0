"""A real headless Chromium, and the application on a free loopback port of this process."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from components.recommender import Recommender
from serve.app import create_app
from serve.backend import LocalBackend
from serve.models import Models, Served
from serve.settings import Settings, hash_key
from tests.browser.page import Page
from tests.exhibits import write_exhibits
from tests.tiny_artifact import write_artifact

DEADLINE_S = 60
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
)


@dataclass(frozen=True)
class Site:
    """A running application."""

    url: str
    backend: LocalBackend

    @property
    def first(self) -> Recommender:
        return self.backend.models.loaded[0].recommender

    @property
    def second(self) -> Recommender:
        return self.backend.models.loaded[1].recommender


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of `app`, served by a thread until the block is left."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        listener.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the server does not start"
        pause.wait(0.02)


@pytest.fixture(scope="session")
def start_site() -> Iterator[Callable[..., Site]]:
    """Serves a backend for the rest of the session."""
    with ExitStack() as stack:

        def start(backend: LocalBackend, key: str | None = None) -> Site:
            app = create_app(backend, Settings(key_hash=hash_key(key) if key else None))
            return Site(stack.enter_context(running(app)), backend)

        yield start


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    """Two versions that rank differently, with titles, pictures and teachers."""
    folder = tmp_path_factory.mktemp("versions")
    first, second = (
        Served(f"v000{number}", Recommender(write_exhibits(folder / name, seed=number, name=name)))
        for number, name in ((1, "plain"), (2, "taught"))
    )
    backend = LocalBackend(None)
    backend.models = Models(first, others=(second,))
    return backend


@pytest.fixture(scope="session")
def site(start_site: Callable[..., Site], two_versions: LocalBackend) -> Site:
    return start_site(two_versions)


@pytest.fixture(scope="session")
def locked_site(start_site: Callable[..., Site], two_versions: LocalBackend) -> Site:
    """The same behind a key, which is ``secret``."""
    return start_site(two_versions, key="secret")


@pytest.fixture(scope="session")
def bare_site(start_site: Callable[..., Site], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One version without pictures and teachers, as older exports are."""
    return start_site(LocalBackend(Recommender(write_artifact(tmp_path_factory.mktemp("bare") / "artifact"))))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser with a fresh profile; tests skip where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[browser]'")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """The browser on an empty page of desktop size; afterwards nothing may have gone wrong in it or left the host."""
    page = Page(browser)
    page.reset()
    yield page
    page.check_quiet()

"""A real Chromium, one context a test, and what must never happen on the page."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect, sync_playwright

from tests.page.chat_page import ChatPage
from tests.page.sites import Site, real_site, stub_site

REPORTS = Path(__file__).resolve().parents[2] / "reports" / "page"
SIZES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 1,
    },
}
NO_BROWSER = (
    "The page's tests need a Chromium that starts: run `make test-tools`, or install chromium"
)
# Chromium's own background traffic is refused by a closed network, slowly.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
# A condition counts as soon as it is true; the time is for a busy machine.
expect.set_options(timeout=15_000)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        made = None
        with contextlib.suppress(Error):
            made = playwright.chromium.launch(executable_path=found, args=FLAGS)
        if made is None:
            pytest.fail(NO_BROWSER, pytrace=False)
        yield made
        made.close()


@dataclass
class Guard:
    """What the page did that it must not do."""

    origin: str
    faults: list[str] = field(default_factory=list)
    # Failed requests that a test brings about on purpose are logged by the browser.
    allowed: str = r"Failed to load resource"
    foreign: bool = False

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("console", self._on_console)
        page.on("dialog", self._on_dialog)
        page.on("request", lambda request: self._on_request(request.url))
        page.on("popup", lambda popup: self.faults.append(f"popup: {popup.url}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not re.search(self.allowed, message.text):
            self.faults.append(f"console: {message.text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, url: str) -> None:
        address = urlsplit(url)
        if self.foreign:
            return
        if address.scheme not in ("data", "blob") and not url.startswith(f"{self.origin}/"):
            self.faults.append(f"request: {url}")


Opener = Callable[..., ChatPage]
Shot = Callable[[ChatPage, str], None]


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def opener(browser: Browser, size: str) -> Iterator[Opener]:
    """Opens a page in a context of its own; afterwards nothing forbidden has happened in any."""
    opened: list[tuple[Any, Guard]] = []

    def open_page(url: str, path: str = "/", **options: Any) -> ChatPage:
        context = browser.new_context(
            **(SIZES[size] | {"locale": "en-GB", "reduced_motion": "reduce"} | options)
        )
        context.set_default_timeout(10_000)
        guard = Guard(url)
        page = context.new_page()
        guard.watch(page)
        opened.append((context, guard))
        page.goto(f"{url}{path}")
        return ChatPage(page, url, phone=size == "phone", guard=guard)

    yield open_page
    faults = [fault for _, guard in opened for fault in guard.faults]
    for context, _ in opened:
        context.close()
    assert not faults


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with stub_site(tmp_path_factory.mktemp("stub")) as site:
        yield site


@pytest.fixture
def site(stub: Site) -> Iterator[Site]:
    """The module's servers, with no fault left from the test before."""
    stub.host.faults, stub.host.always = [], None
    stub.host.seen.clear()
    yield stub
    stub.host.faults, stub.host.always = [], None


@pytest.fixture(scope="package")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_site(tmp_path_factory.mktemp("real")) as url:
        yield url


@pytest.fixture
def shot(size: str) -> Shot:
    """Keeps a picture for people to look at."""
    REPORTS.mkdir(parents=True, exist_ok=True)

    def take(chat: ChatPage, name: str) -> None:
        chat.page.screenshot(path=REPORTS / f"{name}-{size}.png", animations="disabled")

    return take

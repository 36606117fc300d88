"""The book's tools, its built pages, and a browser that reaches nothing but them."""

import functools
import http.server
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "book" / "_build" / "html"
CLOSED = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
sys.path.insert(0, str(ROOT / "book" / "tools"))


def missing(what: str, remedy: str) -> None:
    """Skip with a reason a person sees; in CI, where nothing may be left out, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}; {remedy}", pytrace=False)
    pytest.skip(f"{what}; {remedy}")


@pytest.fixture(scope="session")
def course():
    """The course as it lies in this checkout."""
    from course import Course

    return Course(ROOT)


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book."""
    if not (HTML / "book" / "intro.html").exists():
        missing("the book is not built", "run `make book` first")
    return HTML


@pytest.fixture(scope="session")
def site(html):
    """The built book on a web server of this machine; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium of the system."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing("there is no Chromium", "install the system's package `chromium`")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=CLOSED)
        yield chromium
        chromium.close()


class Visit:
    """A page that notes what went wrong while it was read, and what it asked of other machines."""

    def __init__(self, browser, origin: str, **options):
        self.origin = origin
        self.errors: list[str] = []
        self.remote: list[str] = []
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(180_000)  # milliseconds: a machine may be busy
        self.context.route("**/*", self._only_local)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("requestfailed", self._failed)

    def _only_local(self, route):
        if route.request.url.startswith((self.origin, "data:", "blob:")):
            route.continue_()
        else:
            self.remote.append(route.request.url)
            route.abort()

    def _failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # left behind by going to the next page
            self.errors.append(f"{request.failure}: {request.url[:120]}")

    def _heard(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text}")

    def go(self, name: str):
        """Open one page of the book and wait until it stands, formulas included."""
        self.errors.clear()
        self.remote.clear()
        self.page.goto(f"{self.origin}/{name}", wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self.page


@pytest.fixture
def visit(browser):
    """Open visits with `visit(origin, **context options)`; they are closed afterwards."""
    opened = []

    def start(origin: str, **options) -> Visit:
        opened.append(Visit(browser, origin, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.context.close()

"""report.html in a real browser: it asks nobody, reports no error, and fits the screen."""

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from offramp.report.offline_page import as_html

#: Names under which Debian, Fedora, Google and Arch install it.
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not IN_CI, reason="needs Chromium: apt-get install chromium"
)


class Tab:
    """A tab of a headless browser, spoken to in the DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self.methods():
            self.events.append(json.loads(self._socket.recv(timeout=60)))

    def methods(self) -> list[str]:
        return [event["method"] for event in self.events]

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives; whatever it reported before has arrived."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    @property
    def requests(self) -> list[str]:
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[Any]:
        methods = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [event["params"] for event in self.events if event["method"] in methods]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert CHROMIUM is not None, "CI needs Chromium: apt-get install chromium"
    home = tmp_path_factory.mktemp("chromium")
    process = subprocess.Popen(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--user-data-dir={home}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_address(process, home / "DevToolsActivePort"), max_size=None) as socket:
            tab = Tab(socket)
            yield tab
            # So that its processes end, too, and let go of its folder.
            tab.ask("Page.close")
    finally:
        process.terminate()
        process.wait()


def _address(process: "subprocess.Popen[bytes]", file: Path) -> str:
    """Where the browser listens, once it does."""
    until = time.monotonic() + 60
    while not file.exists() or len(file.read_text().split()) < 2:
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < until, "the browser does not start"
        time.sleep(0.05)
    port, path = file.read_text().split()[:2]
    return f"ws://127.0.0.1:{port}{path}"


@pytest.fixture(params=["report.html", "page.html"])
def page(trained: Any, request: pytest.FixtureRequest) -> Path:
    """The report of a run, and its page in Markdown as that of a sweep or comparison is shown."""
    path: Path = trained.results / request.param
    if path.name == "page.html":
        text = (trained.results / "report.md").read_text()
        path.write_text(as_html(text, "a run", trained.results))
    return path


def test_the_check_sees_requests_errors_and_pages_that_are_too_wide(
    tab: Tab, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><meta name=viewport content='width=device-width'>"
        "<img src='http://127.0.0.1:9/x.png'><div style='width:2000px'>wide</div>"
        "<script>console.error('no')</script>"
    )
    tab.open(bad, 390)
    assert tab.value("document.scrollingElement.scrollWidth") > 390
    assert "http://127.0.0.1:9/x.png" in tab.requests
    assert tab.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1440])
def test_it_fits_and_asks_nobody_and_reports_no_error(
    width: int, scheme: str, tab: Tab, page: Path
) -> None:
    tab.open(page, width, scheme)
    # All of it: what is folded, too.
    tab.value("document.querySelectorAll('details').forEach(it => it.open = true)")
    assert tab.value("document.scrollingElement.scrollWidth") <= width
    assert tab.value("document.scrollingElement.scrollHeight") > 2000
    assert [url for url in tab.requests if not url.startswith("data:")] == [page.as_uri()]
    assert tab.complaints == []
    shown = "[...document.images].map(it => it.complete && it.naturalWidth > 0 && it.width >= 200)"
    assert set(tab.value(shown)) == {True}


def test_light_and_dark_differ(tab: Tab, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.open(page, 1440, "light")
    light = tab.value(ground)
    tab.open(page, 1440, "dark")
    assert (light, tab.value(ground)) == ("rgb(253, 253, 251)", "rgb(20, 22, 24)")


def test_numbers_stay_in_their_lines_and_inside_their_boxes(tab: Tab, page: Path) -> None:
    tab.open(page, 390)
    lines = "[...document.querySelectorAll('td.figure')].map(it => it.getClientRects().length)"
    assert set(tab.value(lines)) == {1}
    outside = (
        "[...document.querySelectorAll('main p, main li, h1, h2, h3, .scroll, .drawing')]"
        ".filter(it => it.getBoundingClientRect().right > innerWidth + 0.5).length"
    )
    assert tab.value(outside) == 0


def test_long_names_do_not_widen_the_page(
    tab: Tab, trained: Any, tmp_path: Path, long_names: Callable[[Path], Path]
) -> None:
    page = long_names(Path(shutil.copytree(trained.results, tmp_path / "long")))
    tab.open(page, 390)
    assert tab.value("document.scrollingElement.scrollWidth") <= 390
    assert tab.complaints == []


@pytest.fixture
def long_names() -> Callable[[Path], Path]:
    """Gives a results folder a scenario whose name and description know no spaces."""
    from offramp.report.html import write_html
    from offramp.report.results import differences, read_results, summary

    def change(folder: Path) -> Path:
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["scenario"] |= {"name": "n" * 300, "description": "d" * 300}
        manifest["source"] = "s" * 300
        (folder / "manifest.json").write_text(json.dumps(manifest))
        results = read_results(folder)
        return write_html(results, summary(results), differences(results), {}, folder)

    return change

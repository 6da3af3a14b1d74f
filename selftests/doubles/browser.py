"""A real browser without a window: Chromium, spoken to over two pipes in its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/; over ``--remote-debugging-pipe`` its
messages are JSON that ends with a zero byte, to its file descriptor 3 and from its 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ANSWER_S = 60.0
"""For the browser to start, or to answer: the machine may be busy."""


def program() -> str | None:
    """The path of a Chromium; None: there is none here."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@dataclass
class Page:
    """A tab. ``requests``: addresses that were asked for; ``messages``: errors and the console."""

    to_browser: int
    from_browser: int
    session: str = ""
    number: int = 0
    buffer: bytes = b""
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def open(self, path: Path, anchor: str = "") -> None:
        """Load a file, and return when all of it has been."""
        self.do("Page.navigate", url="about:blank")
        self.requests.clear()
        self.messages.clear()
        self.do("Page.navigate", url=path.as_uri() + (f"#{anchor}" if anchor else ""))
        self.evaluate(
            "new Promise((done) => document.readyState === 'complete' ? done(true) :"
            " addEventListener('load', () => done(true)))"
        )

    def size(self, width: int, height: int = 900) -> None:
        """Of the window, in pixels."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, scheme: str, media: str = "screen") -> None:
        """``light`` or ``dark``; ``media``: ``screen`` or ``print``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.do("Emulation.setEmulatedMedia", media=media, features=features)

    def evaluate(self, script: str) -> Any:
        """The value of an expression, or of its promise; AssertionError if it throws."""
        said = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def screenshot(self, selector: str = "html") -> bytes:
        """An element as a PNG."""
        self.settle()
        box = self.evaluate(
            f"(({{x, y, width, height}}) => ({{x: x + scrollX, y: y + scrollY, width, height}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        said = self.do(
            "Page.captureScreenshot", captureBeyondViewport=True, clip={**box, "scale": 1}
        )
        return base64.b64decode(said["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        said = self.do("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        return base64.b64decode(said["data"])

    def settle(self) -> None:
        """Until what was changed is drawn."""
        self.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() =>"
            " done(true))))"
        )

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer; events that come meanwhile are noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + ANSWER_S
        while (said := self._next(until)).get("id") != self.number:
            self._note(said)
        assert "error" not in said, f"{method}: {said['error']}"
        return dict(said["result"])

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.from_browser], [], [], until - time.monotonic())
            assert ready, "the browser does not answer"
            read = os.read(self.from_browser, 1 << 20)
            assert read, "the browser has ended"
            self.buffer += read
        said, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(said))

    def _note(self, said: dict[str, Any]) -> None:
        about = said.get("params", {})
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.messages.append(json.dumps(about["args"]))
            case "Log.entryAdded":
                self.messages.append(about["entry"]["text"])


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a browser of its own, which ends with the block."""
    path = program()
    assert path is not None, "there is no Chromium here"
    with ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        read_end, to_browser = _pipe(stack)
        from_browser, write_end = _pipe(stack)
        options = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"),
            *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        )
        process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read_end} 4>&{write_end}', "bash", path, *options],
            pass_fds=(read_end, write_end),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, process)
        os.close(write_end)  # so that the browser's end shows
        page = Page(to_browser, from_browser)
        target = page.do("Target.createTarget", url="about:blank")["targetId"]
        attached = page.do("Target.attachToTarget", targetId=target, flatten=True)
        page.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.do(f"{domain}.enable")
        yield page


def _pipe(stack: ExitStack) -> tuple[int, int]:
    """Both ends, above those that a shell can name by one digit."""
    ends = []
    for end in os.pipe():
        ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
        stack.callback(_close, ends[-1])
    return ends[0], ends[1]


def _close(end: int) -> None:
    with suppress(OSError):
        os.close(end)


def _end(process: subprocess.Popen[bytes]) -> None:
    """All of the browser's processes: they are a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

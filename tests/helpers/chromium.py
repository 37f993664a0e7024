"""Drive Chromium as a user would: type, click, drop files. Its DevTools protocol over a pipe needs no library."""

import base64
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers.browser import CHROMIUM, QUIET_FLAGS

FLAGS = ("--headless=new", *QUIET_FLAGS, "--disable-extensions", "--remote-debugging-pipe")
PATIENCE = 30.0


class Page:
    """A tab."""

    def __init__(self, chromium: "Chromium", session: str, context: str) -> None:
        self._chromium, self._session, self._context = chromium, session, context
        self.problems: list[str] = []
        """What the page wrote as errors: exceptions, refused scripts, files that do not load."""

        chromium.pages[session] = self
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol."""
        return self._chromium.call(method, values, self._session)

    def open(self, url: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of an expression; promises are awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        ends = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < ends, f"not true after {PATIENCE:.0f} s: {condition}\n{self.text('body')[-2000:]}"
            time.sleep(0.02)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true outside the page."""
        ends = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < ends, f"not true after {PATIENCE:.0f} s"
            time.sleep(0.02)

    def close(self) -> None:
        """Close the tab."""
        self._chromium.call("Target.disposeBrowserContext", {"browserContextId": self._context})

    def text(self, selector: str) -> str:
        """Return the visible text of the first element of a CSS selector."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with the mouse."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Insert text where the focus is, as an input method does."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int, modifiers: int = 0) -> None:
        """Press a key. modifiers: 2 is Ctrl, 8 is Shift."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
                **text,
            )

    def drop(self, selector: str, path: Path) -> None:
        """Drag a file over an element, and drop it there."""
        self.run(
            f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})"
        )
        x, y = self._middle(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def emulate(self, *, width: int = 1280, height: int = 900, dark: bool = False, language: str | None = None) -> None:
        """Set the size of the screen, light or dark colors, and the languages of the browser."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        schemes = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=schemes)
        if language is not None:
            agent = self._chromium.call("Browser.getVersion", {})["userAgent"]
            self.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)

    def picture(self, path: Path) -> None:
        """Save a picture of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _middle(self, selector: str) -> tuple[float, float]:
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        script = f"(r => [r.x + r.width / 2, r.y + r.height / 2])({box})"
        x, y = self.run(script)
        return x, y

    def note(self, event: dict[str, Any]) -> None:
        """Keep what a page wrote as an error."""
        values = event["params"]
        if event["method"] == "Runtime.exceptionThrown":
            self.problems.append(values["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif event["method"] == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.problems.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
        elif event["method"] == "Runtime.consoleAPICalled" and values["type"] == "error":
            self.problems.append(str(values["args"]))


class Chromium:
    """A browser, which answers over a pipe: JSON texts that end in NUL, on its file descriptors 3 and 4."""

    def __init__(self, profile: Path, downloads: Path) -> None:
        self.pages: dict[str, Page] = {}
        self._number = 0
        self._downloads = downloads
        self._rest = b""
        down, up = os.pipe(), os.pipe()
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        moves = [(down[0], 100), (up[1], 101), (100, 3), (101, 4)]  # by way of numbers that nobody has
        actions = [
            *((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)),
            *((os.POSIX_SPAWN_DUP2, *move) for move in moves),
            *((os.POSIX_SPAWN_CLOSE, number) for number in (100, 101)),
        ]
        self._process = os.posix_spawn(command[0], command, dict(os.environ), file_actions=actions)
        os.close(down[0])
        os.close(up[1])
        self._writes, self._reads = down[1], up[0]

    def page(self) -> Page:
        """Open a tab of its own, without what others stored."""
        context = self.call("Target.createBrowserContext", {})["browserContextId"]
        place = {"behavior": "allow", "downloadPath": str(self._downloads), "browserContextId": context}
        self.call("Browser.setDownloadBehavior", place)
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        return Page(self, session, context)

    def call(self, method: str, values: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Call a method, and return its result."""
        self._number += 1
        wanted = {"id": self._number, "method": method, "params": values}
        os.write(self._writes, json.dumps(wanted | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (found := self._receive()).get("id") != self._number:
            page = self.pages.get(found.get("sessionId", ""))
            if page is not None and "method" in found:
                page.note(found)
        assert "error" not in found, f"{method}: {found['error']}"
        return dict(found["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._reads, 1 << 20)
            assert piece, "the browser ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError, AssertionError):
            self.call("Browser.close", {})
        os.waitpid(self._process, 0)
        os.close(self._writes)
        os.close(self._reads)


@contextlib.contextmanager
def chromium(downloads: Path) -> Iterator[Chromium]:
    """Start a browser, and end it."""
    with tempfile.TemporaryDirectory() as profile:
        browser = Chromium(Path(profile), downloads)
        try:
            yield browser
        finally:
            browser.close()

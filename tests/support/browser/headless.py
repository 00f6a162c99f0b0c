"""A headless Chromium, driven through Debian's chromedriver by the W3C WebDriver protocol (w3.org/TR/webdriver2)."""

import base64
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

REQUIRED = "PLUMBOB_NEEDS_BROWSER"
"""Set where the tests in a browser must not be skipped, as CI sets it."""

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions"),
    # A container's /dev/shm may be too small for a page.
    "--disable-dev-shm-usage",
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps"),
    # Whatever a page would load from elsewhere fails, and is seen in the console.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Escape": "\ue00c", "Space": " "} | {
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
}
"""Name of a key -> its letter in the protocol (w3.org/TR/webdriver2/#keyboard-actions); others are their own."""

START_S = 60
END_S = 10
POLL_S = 0.05


def find_browser() -> tuple[str, str]:
    """Paths of Chromium and its driver; where one is missing the test is skipped, or fails where it must not be."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        _cannot("there is no Chromium with its driver: `make test-browser` installs Debian's")
    return browser, driver


def _cannot(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}; {REQUIRED} is set, so that this is no reason to skip", pytrace=False)
    pytest.skip(reason)


class HeadlessBrowser:
    """One window. `session` is the address of its session at the driver."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._client = httpx.Client(timeout=START_S, trust_env=False)

    def close(self) -> None:
        self._client.delete(self._session)
        self._client.close()

    def open(self, url: str) -> None:
        self._post("url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What the body of a function in JavaScript returns, or its promise; it finds its arguments in `arguments`."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """The expression's first value that counts as true; while an element is missing that it reads, it has none."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.run(
                f"try {{ return {expression} }} catch (e) {{ if (!(e instanceof TypeError)) throw e }}"
            ):
                return value
            time.sleep(POLL_S)
        shown = self.run("return document.body.innerText")
        raise AssertionError(f"{expression} is not so after {seconds} s; the page says: {shown[:2000]}")

    def press(self, *keys: str) -> None:
        """Press one key after the other: a letter, or a name as of `KeyboardEvent.key`."""
        letters = [KEYS.get(key, key) for key in keys]
        moves = [{"type": kind, "value": letter} for letter in letters for kind in ("keyDown", "keyUp")]
        self._post("actions", actions=[{"type": "key", "id": "keyboard", "actions": moves}])

    def click(self, selector: str) -> None:
        """In the middle of the first element that fits, as a pointer does."""
        x, y = self.run(
            "const e = document.querySelector(arguments[0]); e.scrollIntoView({block: 'center'});"
            "const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]",
            selector,
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self._devtools("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def drag(self, selector: str, begin: float, end: float) -> None:
        """Across the first element that fits, from one share of its width to another."""
        left, width, y = self.run(
            "const r = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [r.left, r.width, r.top + r.height / 2]",
            selector,
        )
        for kind, share in (
            ("mouseMoved", begin),
            ("mousePressed", begin),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            button = "left" if kind != "mouseMoved" or share == end else "none"
            place = {"x": left + share * width, "y": y}
            self._devtools("Input.dispatchMouseEvent", type=kind, button=button, clickCount=1, **place)

    def look(self, width: int, scheme: str, height: int = 900) -> None:
        """A screen of that width in CSS pixels, of somebody who prefers `light` or `dark`."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self._devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._get("screenshot")))

    def console(self) -> list[str]:
        """Warnings and errors since the last call: of scripts, of the network, of the security policy."""
        return [entry["message"] for entry in self._post("se/log", type="browser")]

    def _devtools(self, command: str, **parameters: Any) -> Any:
        return self._post("goog/cdp/execute", cmd=command, params=parameters)

    def _post(self, command: str, **content: Any) -> Any:
        return _value(self._client.post(f"{self._session}/{command}", json=content))

    def _get(self, command: str) -> Any:
        return _value(self._client.get(f"{self._session}/{command}"))


def _value(answer: httpx.Response) -> Any:
    value = answer.json()["value"]
    assert answer.is_success, f"{value['error']}: {value['message']}"
    return value


@contextmanager
def headless_browser(folder: Path) -> Iterator[HeadlessBrowser]:
    """A browser whose profile lies in `folder`, until the block ends."""
    chromium, driver = find_browser()
    with (folder / "chromedriver.log").open("w+b") as log:
        process = subprocess.Popen([driver, "--port=0"], stdout=log, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{_port(folder / 'chromedriver.log', process)}"
            options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "WARNING"},
            }
            content = {"capabilities": {"alwaysMatch": wanted}}
            answer = httpx.post(f"{address}/session", json=content, timeout=START_S, trust_env=False)
            browser = HeadlessBrowser(f"{address}/session/{_value(answer)['sessionId']}")
            try:
                yield browser
            finally:
                browser.close()
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"started successfully on port (\d+)", log.read_text()):
            return int(found[1])
        time.sleep(POLL_S)
    raise AssertionError(f"chromedriver did not start: {log.read_text()}")

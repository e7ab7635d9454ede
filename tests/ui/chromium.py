"""A real Chromium, controlled by its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--password-store=basic",
    # A name that resolves to this machine, as with DNS rebinding.
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
)


class Chromium:
    """A browser, as an async context manager.

    Args:
        folder: for its profile.

    Raises:
        FileNotFoundError: no ``chromium`` is on the PATH.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._tabs: dict[str, Tab] = {}

    async def __aenter__(self) -> Self:
        program = shutil.which("chromium")
        if program is None:
            raise FileNotFoundError("no chromium on the PATH: install it, e.g. with apt-get install chromium")
        options = [*_OPTIONS, f"--user-data-dir={self._folder}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # root has none
        null, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(program, *options, stdin=null, stdout=null, stderr=pipe)
        assert self._process.stderr is not None
        said = b""
        while not said.startswith(b"DevTools listening on "):
            said = await self._process.stderr.readline()
            assert said, "chromium has ended"
        self._draining = asyncio.create_task(self._process.stderr.read())
        self._session = aiohttp.ClientSession()
        self._line = await self._session.ws_connect(said.split()[-1].decode(), max_msg_size=0)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await self._line.close()
        await self._session.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._draining

    async def _read(self) -> None:
        async for message in self._line:
            said = json.loads(message.data)
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if "error" in said:
                    answer.set_exception(RuntimeError(said["error"]))
                else:
                    answer.set_result(said["result"])
            elif said.get("sessionId") in self._tabs:
                self._tabs[said["sessionId"]].events[said["method"]].append(said["params"])

    async def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._line.send_json(
            {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        )
        return await self._answers[number]

    async def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Tab:
        """Open a page in a new tab, and wait until it is loaded."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = self._tabs[attached["sessionId"]] = Tab(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await tab.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.call("Emulation.setEmulatedMedia", features=[scheme])
        await tab.resize(width, height)
        await tab.go(url)
        return tab


class Tab:
    """A page.

    Attributes:
        events: the protocol's events about it, by name.
    """

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: defaultdict[str, list[Any]] = defaultdict(list)

    async def call(self, method: str, **params: Any) -> Any:
        return await self._browser.call(method, self._session, **params)

    async def resize(self, width: int, height: int = 900) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        """Evaluate an expression, and await its value if it is a promise."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(30):
            while True:
                # A navigation ends the promises of the earlier page.
                with contextlib.suppress(RuntimeError):
                    await self.evaluate(
                        f"new Promise((done) => {{const look = () => ({condition}) ? done(true) : setTimeout(look, 20);"
                        " look()})"
                    )
                    return

    async def screenshot(self, path: Path) -> None:
        """Save a picture of the whole page."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        area = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=area)
        path.write_bytes(base64.b64decode(shot["data"]))

    @property
    def complaints(self) -> list[Any]:
        """Console messages, exceptions, and issues that the browser found."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Audits.issueAdded")
        return [event for name in names for event in self.events[name]]

    @property
    def requested(self) -> list[str]:
        """The requested URLs."""
        return [event["request"]["url"] for event in self.events["Network.requestWillBeSent"]]

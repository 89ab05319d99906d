"""A headless Chromium of its own, driven over the Chrome DevTools Protocol: pages, their scripts, and what they tell.

The page's times are performance.now(); Chromium reads them off CLOCK_MONOTONIC, so one offset, taken from round trips
as `WallOffset` is, makes them ours.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

from harness.clients.programs import Program
from harness.clock import now_ns
from harness.command import TimedOut, wait_for
from harness.errors import InfrastructureError

PAGE = "file:///opt/client/page.html"
BINDING = "toHarness"
START_S = 20.0
ASK_S = 15.0
NS_PER_MS = 1_000_000
_LOADED = "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))"
_LISTENING = re.compile(r"DevTools listening on (ws://127\.0\.0\.1:\d+/\S+)")
_ARGV = (
    "chromium-headless-shell",
    "--no-sandbox",  # in a container without the capabilities that its own sandbox needs
    "--remote-debugging-port=0",
    "--user-data-dir=/tmp/profile",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-audio-output",  # plays to a clock of its own: there is no sound card
    "--ignore-certificate-errors",  # a cell's certificate is self-signed
    "--autoplay-policy=no-user-gesture-required",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-component-update",
    "--disable-renderer-backgrounding",
    "--no-first-run",
    "about:blank",
)


@dataclass(frozen=True, kw_only=True)
class PageClock:
    """`offset_ns` is our time when the page's own clock reads zero, `error_ns` what the reading may be off."""

    offset_ns: int
    error_ns: int

    def ns(self, page_ms: float) -> int:
        """CLOCK_MONOTONIC of a stamp of the page."""
        return self.offset_ns + round(page_ms * NS_PER_MS)


class Browser:
    """One Chromium; its pages are clients of their own. Once it has died everything raises `InfrastructureError`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._http = aiohttp.ClientSession()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._listening: asyncio.Task[None] | None = None
        self._pages: dict[str, Page] = {}
        self._asked = 0
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}

    @classmethod
    async def start(cls) -> Browser:
        """Start it in our network namespace; `InfrastructureError` with Chromium's last words when that fails."""
        program = await asyncio.to_thread(Program.start, "browser", _ARGV)
        browser = cls(program)
        try:
            await browser._connect()
        except BaseException:
            await browser.close()
            raise
        return browser

    @property
    def dead(self) -> bool:
        return self._listening is None or self._listening.done()

    async def open(self, *, script: str, on_told: Callable[[dict[str, Any]], None]) -> Page:
        """A new page with `script`; `on_told(row)` gets what it tells."""
        target = await self.ask("Target.createTarget", url="about:blank")
        attached = await self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"], on_told=on_told)
        self._pages[page.session] = page
        await page.load(script)
        return page

    async def close(self) -> None:
        """Idempotent; the browser is killed, as one whose machine is switched off."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        with suppress(aiohttp.ClientError, OSError):
            await self._http.close()
        await asyncio.to_thread(self._program.stop)

    async def ask(
        self, method: str, *, session: str | None = None, timeout_s: float = ASK_S, **parameters: Any
    ) -> dict[str, Any]:
        """One command of the protocol, to the browser or to the page of `session`."""
        if self._socket is None or self.dead:
            raise InfrastructureError("the browser is gone")
        self._asked += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[self._asked] = answer
        request: dict[str, Any] = {"id": self._asked, "method": method, "params": parameters}
        if session is not None:
            request["sessionId"] = session
        try:
            await self._socket.send_str(json.dumps(request))
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            raise InfrastructureError(f"the browser did not answer {method} within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise InfrastructureError(f"the browser is gone: {error}") from error

    async def _connect(self) -> None:
        try:
            url = await asyncio.to_thread(wait_for, "Chromium to listen", self._url, timeout_s=START_S, every_s=0.05)
            self._socket = await self._http.ws_connect(url, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=1))
        except (TimedOut, aiohttp.ClientError, OSError) as error:
            words = await asyncio.to_thread(self._program.last_words)
            raise InfrastructureError(f"Chromium did not start: {error}; {words}") from error
        self._listening = asyncio.create_task(self._listen(self._socket))

    def _url(self) -> str | None:
        found = _LISTENING.search(self._program.said())
        if found is None and not self._program.running:
            raise InfrastructureError(f"Chromium ended: {self._program.last_words()}")
        return found.group(1) if found else None

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._take(json.loads(message.data))
        finally:
            for answer in self._pending.values():
                if not answer.done():
                    answer.set_exception(InfrastructureError("the browser is gone"))

    def _take(self, row: dict[str, Any]) -> None:
        if "id" in row:
            answer = self._pending.pop(row["id"], None)
            if answer is None or answer.done():
                return
            if "error" in row:
                answer.set_exception(InfrastructureError(f"the browser: {row['error'].get('message')}"))
            else:
                answer.set_result(row["result"])
        elif (page := self._pages.get(row.get("sessionId", ""))) is not None:
            page.take(row)


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str, *, on_told: Callable[[dict[str, Any]], None]) -> None:
        self.session = session
        self.clock = PageClock(offset_ns=0, error_ns=0)
        self._browser = browser
        self._on_told = on_told
        self._crashed = False

    @property
    def dead(self) -> bool:
        return self._crashed or self._browser.dead

    async def run(self, expression: str, *, timeout_s: float = ASK_S) -> Any:
        """The value of a JavaScript expression, a promise's once it is kept; `InfrastructureError` when it throws."""
        given = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self._browser.ask("Runtime.evaluate", session=self.session, timeout_s=timeout_s, **given)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text")
            raise InfrastructureError(f"the browser's page: {text}")
        return answer["result"].get("value")

    async def load(self, script: str) -> None:
        for domain in ("Page", "Runtime", "Inspector"):
            await self._browser.ask(f"{domain}.enable", session=self.session)
        await self._browser.ask("Runtime.addBinding", session=self.session, name=BINDING)
        await self._browser.ask("Page.navigate", session=self.session, url=PAGE)
        await self.run(_LOADED)
        await self.run(script)
        self.clock = await self._read_clock()

    def take(self, row: dict[str, Any]) -> None:
        """An event of this page."""
        if row["method"] == "Runtime.bindingCalled" and row["params"]["name"] == BINDING:
            self._on_told(json.loads(row["params"]["payload"]))
        elif row["method"] == "Inspector.targetCrashed":
            self._crashed = True

    async def _read_clock(self) -> PageClock:
        """The tightest of 20 readings."""
        best: PageClock | None = None
        for _ in range(20):
            before_ns = now_ns()
            page_ms = float(await self.run("performance.now()"))
            after_ns = now_ns()
            offset_ns = (before_ns + after_ns) // 2 - round(page_ms * NS_PER_MS)
            reading = PageClock(offset_ns=offset_ns, error_ns=(after_ns - before_ns) // 2 + 1)
            if best is None or reading.error_ns < best.error_ns:
                best = reading
        assert best is not None
        return best

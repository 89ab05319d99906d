"""One call of a page in a browser, held until it is told to stop: its ops, and the help at the end.

What the page tells comes in as it happens; nothing here helps the call before `unaided` is written.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from harness.clients.browser.chromium import Browser, Page, PageClock
from harness.clients.browser.hearing import SHARE, Arrival, Hearing, Sample
from harness.clients.real_calls import Who
from harness.clients.recorder import Recorder
from harness.clients.story import Story
from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError

GLUE = Path(__file__).with_name("glue.js")
SAMPLE_MS = 100
RECONNECT_S = (2, 30)
"""JsSIP's own defaults for `connection_recovery_min_interval` and `…_max_interval`."""

REGISTER_S = 10.0
SETUP_S = 8.0
SILENT_NS = 700_000_000
"""No packet for 0.5 s, and what the ear is behind."""

ANSWER_S = 3.0
"""How long the answer to a re-INVITE or BYE is waited for."""

RECONNECTED_S = 5.0
"""How long JsSIP is given to come back and register when the re-INVITE is what found its flow dead."""

LOST = "connection lost"
AUDIO_S = 2.5
"""How long audio is waited for after help: ICE and DTLS of a new connection take a second or two."""

_PASSED_ON = {
    "flow_up", "flow_down", "registered", "register_failed", "ringing", "confirmed", "failed", "reinvite_received",
    "update_received", "bye_received", "bye_sent", "ended", "ice", "connection", "complaint",
}  # fmt: skip

_LEG_FIGURES = ("sent", "ice", "dtls", "samples", "concealed", "energy", "discarded")


class Browsers:
    """The one browser of a process, started when the first call needs it."""

    def __init__(self) -> None:
        self._starting: asyncio.Task[Browser] | None = None

    async def get(self) -> Browser:
        if self._starting is None:
            self._starting = asyncio.create_task(Browser.start())
        return await self._starting

    async def close(self) -> None:
        if self._starting is not None and self._starting.done() and self._starting.exception() is None:
            await self._starting.result().close()


class HeldCall:
    """Needs a running event loop."""

    def __init__(self, who: Who, recorder: Recorder, browsers: Browsers) -> None:
        self.story = Story(recorder, call=who.call, side="caller", alive=lambda: not self.dead)
        self._who = who
        self._recorder = recorder
        self._browsers = browsers
        self._page: Page | None = None
        self._hearing: Hearing | None = None
        self._told = True
        self._last: dict[str, Any] = {}
        self._second_ns = 0

    @property
    def dead(self) -> bool:
        """Nobody measures any more."""
        return self._page is None or self._page.dead

    @property
    def heard_ns(self) -> int | None:
        return None if self._hearing is None else self._hearing.first_ns

    def flows(self) -> bool:
        return self._heard_since(now_ns() - SILENT_NS)

    def check(self) -> None:
        """`InfrastructureError` when nobody measures any more."""
        if self.dead:
            raise InfrastructureError("the browser ended while its calls were held")

    async def begin(self) -> str | None:
        """Open a page, register, call, wait for audio."""
        who = self._who
        browser = await self._browsers.get()
        self._page = await browser.open(script=GLUE.read_text(), on_told=self.take)
        options = {
            "wss": f"wss://{who.to[0]}:{who.to[1]}/", "user": who.user, "domain": who.domain, "password": who.password,
            "expiresS": who.expires_s, "reconnectMinS": RECONNECT_S[0], "reconnectMaxS": RECONNECT_S[1],
            "toneHz": who.tone.hz, "expectHz": who.tone.other_hz, "sampleMs": SAMPLE_MS,
        }  # fmt: skip
        await self._page.run(f"phone.start({json.dumps(options)})")
        if not await self.story.until(lambda: "registered" in self.story.seen, REGISTER_S):
            return f"the browser was not registered within {REGISTER_S:g} s: {self.story.latest}"
        called_ns = self.story.invoke(kind=who.kind, transport=who.transport, caller=who.user, callee=who.callee)
        self._hearing = Hearing(opened_ns=called_ns)
        await self._page.run(f"phone.call({json.dumps(who.callee)})")
        await self.story.until(lambda: (self.heard_ns is not None and self.story.up) or self.story.over, SETUP_S)
        return None

    async def help(self) -> None:
        """A re-INVITE with a new offer of the same connection."""
        await self._help("reinvite_sent", "phone.reinvite()")

    async def help_more(self) -> None:
        """A re-INVITE with the offer of a new connection: new ICE, new DTLS, the same dialog."""
        await self._help("new_connection_sent", "phone.reinvite({fresh: true})")

    async def hang_up(self) -> None:
        if self.story.up and await self._run("phone.bye()"):
            await self.story.until(lambda: "bye_sent" in self.story.seen, ANSWER_S)
            if "bye_sent" not in self.story.seen:
                self.story.event("bye_sent", now_ns(), code=None)

    async def call_again(self) -> None:
        """As a person does who hears nothing. What is heard now is none of the held call's."""
        self._tell_leg()
        self.story.forget("confirmed", "failed", "ended", "bye_sent")
        called_ns = now_ns()
        self._hearing = Hearing(opened_ns=called_ns)
        await self._run(f"phone.call({json.dumps(self._who.callee)})")
        await self.story.until(lambda: self.heard_ns is not None or self.story.over, 2 * AUDIO_S)
        helped = self.heard_ns is not None
        more = {"audio_ms": _ms(self.heard_ns - called_ns)} if self.heard_ns else {"reason": self.story.latest}
        self.story.event("new_call_helped", now_ns(), helped=helped, **more)
        await self._run("phone.bye()")

    async def close(self) -> None:
        """The browser is gone, the `media_leg` written."""
        await self._browsers.close()
        self._tell_leg()

    def take(self, row: dict[str, Any]) -> None:
        """Something the page told."""
        if self._page is None:
            return
        event, at_ns = str(row.pop("event")), self._page.clock.ns(row.pop("at"))
        if event == "sample":
            self._take_sample(row, at_ns, self._page.clock)
        elif event in _PASSED_ON:
            self.story.event(event, at_ns, **row)
        self.story.news()

    # -- hearing ------------------------------------------------------------------------------------------------------

    def _take_sample(self, row: dict[str, Any], at_ns: int, clock: PageClock) -> None:
        hearing = self._hearing
        if hearing is None:
            return
        gaps = hearing.take(sample_of(row, at_ns, clock))
        if not self._told:
            return
        self._last |= {name: figure for name, figure in row.items() if figure is not None}  # none once it is closed
        for gap in gaps:
            value = {"call": self._who.call, "side": "caller", "from_ns": gap.from_ns, "to_ns": gap.to_ns}
            value |= {"gap_ms": _ms(gap.length_ns), "lost": gap.lost, "ssrc_changed": gap.ssrc_changed, "held": False}
            self._recorder.note("media_gap", gap.to_ns, value | self._how(hearing))
        if at_ns >= self._second_ns:
            self._second_ns = at_ns + NS_PER_S
            leg = hearing.row(at_ns, jitter_ms=_rounded(row.get("jitterMs")))
            value = {"legs": {f"{self._who.call}/caller": leg}, "pauses_ms": {}}
            self._recorder.note("media_second", at_ns, value)

    def _how(self, hearing: Hearing) -> dict[str, Any]:
        source = "each packet's frame" if hearing.exact else f"getStats every {SAMPLE_MS} ms"
        return {"source": source, "resolution_ms": hearing.resolution_ms}

    def _tell_leg(self) -> None:
        """The held call's `media_leg`, once."""
        hearing, row = self._hearing, self._last
        if hearing is None or not self._told:
            return
        self._told = False
        at_ns = now_ns()
        about = {"call": self._who.call, "side": "caller", **hearing.whole(at_ns), **self._how(hearing)}
        about |= {name: row.get(name) for name in _LEG_FIGURES}
        about["jitter_ms"] = _rounded(row.get("jitterMs"))
        about["rtcp"] = {"rtt_ms": _rounded(row.get("rtt_ms")), "fraction_lost": row.get("fraction_lost")}
        self._recorder.note("media_leg", at_ns, about)

    def _heard_since(self, at_ns: int) -> bool:
        return self._hearing is not None and self._hearing.heard_since(at_ns)

    # -- help ---------------------------------------------------------------------------------------------------------

    async def _help(self, event: str, expression: str) -> None:
        """One attempt, told with the code of its answer and whether audio goes on after it."""
        if not self.story.up:
            return
        before_ns = now_ns()
        answer = await self._run(expression)
        if isinstance(answer, dict) and answer.get("reason") == LOST:  # nothing had told JsSIP that its flow is dead
            await self.story.until(lambda: self.story.seen["registered"] > before_ns, RECONNECTED_S)
            before_ns = now_ns()
            answer = await self._run(expression)
        answered_ns = now_ns()
        answer = answer if isinstance(answer, dict) else {"code": None, "reason": "no answer"}
        code = answer.get("code")
        audio = code is not None and code < 300 and await self._audio_after(answered_ns)
        more = {"audio": audio, "took_ms": _ms(answered_ns - before_ns)}
        if audio:
            more["audio_ms"] = self._audio_ms(answered_ns)
        self.story.event(event, before_ns, code=code, reason=answer.get("reason"), **more)

    async def _audio_after(self, at_ns: int) -> bool:
        """Right audio half a second later: what came before and is played late is not taken for it."""
        later_ns = at_ns + NS_PER_S // 2
        return await self.story.until(lambda: self._heard_since(later_ns), AUDIO_S)

    def _audio_ms(self, since_ns: int) -> float:
        """How long after `since_ns` the silence ended that was there then; 0 where there was none."""
        gap = None if self._hearing is None else self._hearing.last_gap
        return 0.0 if gap is None or gap.to_ns < since_ns else _ms(gap.to_ns - since_ns)

    async def _run(self, expression: str) -> Any:
        """What the page answers; None when it does not in time, or there is no page any more."""
        if self._page is None:
            return None
        try:
            return await self._page.run(expression, timeout_s=ANSWER_S)
        except InfrastructureError as error:
            self.story.event("complaint", now_ns(), text=str(error))
            return None


def sample_of(row: dict[str, Any], at_ns: int, clock: PageClock) -> Sample:
    """A sample of the page in our own time. A packet is (when its frame was seen, its number, its sender, …)."""
    packets = row.get("packets")
    told = None if packets is None else tuple(_arrival(packet, clock) for packet in packets)
    last = row.get("last")
    return Sample(
        at_ns=at_ns,
        connection=int(row["connection"]),
        received=int(row.get("received") or 0),
        lost=int(row.get("lost") or 0),
        ssrc=row.get("ssrc"),
        last_ns=None if last is None else clock.ns(last),
        heard=float(row["share"]) >= SHARE,
        packets=told,
    )


def _arrival(packet: list[Any], clock: PageClock) -> Arrival:
    at_ns = clock.ns(packet[0])
    return Arrival(first_ns=at_ns, last_ns=at_ns, count=1, ssrc=int(packet[2]))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)

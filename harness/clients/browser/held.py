"""One call of a browser, held until it is told to stop, and what becomes of it: its ops, and the help at the end.

What the page tells comes in as it happens; nothing here helps the call before `unaided` is written.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.clients.browser.chromium import Browser, PageClock
from harness.clients.browser.hearing import SHARE, Arrival, Hearing, Sample
from harness.clients.recorder import Recorder
from harness.clients.story import Story
from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError

GLUE = Path(__file__).with_name("glue.js")
SAMPLE_MS = 100
REGISTER_S = 15.0
SETUP_S = 10.0
ANSWER_S = 6.0
"""How long the answer to a helping re-INVITE is waited for."""

AUDIO_S = 4.0
"""How long audio is waited for after help: ICE and DTLS of a new connection take a second or two."""

_PASSED_ON = {
    "flow_up", "flow_down", "registered", "register_failed", "ringing", "confirmed", "failed", "reinvite_received",
    "update_received", "bye_received", "bye_sent", "ended", "ice", "connection", "complaint",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Who:
    """The two ends: `user` calls `callee`, sends a tone of `tone_hz` and is right to hear one of `expect_hz`."""

    wss: str
    domain: str
    user: str
    password: str = field(repr=False)
    callee: str
    call: str
    tone_hz: int
    expect_hz: int
    expires_s: int
    reconnect_s: tuple[int, int]


class HeldCall:
    """Needs a running event loop."""

    def __init__(self, who: Who, recorder: Recorder) -> None:
        self._who = who
        self._recorder = recorder
        self._browser: Browser | None = None
        self._hearing: Hearing | None = None
        self._last: dict[str, Any] = {}
        self._second_ns = 0
        self.story = Story(recorder, call=who.call, side="caller", alive=lambda: not self.dead)

    @property
    def dead(self) -> bool:
        """Nobody measures any more."""
        return self._browser is None or self._browser.dead

    def check(self) -> None:
        """`InfrastructureError` when nobody measures any more."""
        if self.dead:
            raise InfrastructureError("the browser ended while its call was held")

    async def begin(self) -> None:
        """Start the browser, register, call, and wait for audio; whether that came is in the history.

        `InfrastructureError` when the browser does not start or does not get registered.
        """
        who = self._who
        self._browser = await Browser.start(script=GLUE.read_text(), on_told=self.take)
        options = {
            "wss": who.wss, "user": who.user, "domain": who.domain, "password": who.password, "expiresS": who.expires_s,
            "reconnectMinS": who.reconnect_s[0], "reconnectMaxS": who.reconnect_s[1],
            "toneHz": who.tone_hz, "expectHz": who.expect_hz, "sampleMs": SAMPLE_MS,
        }  # fmt: skip
        await self._browser.run(f"phone.start({json.dumps(options)})")
        if not await self.story.until(lambda: "registered" in self.story.seen, REGISTER_S):
            raise InfrastructureError(f"the browser was not registered within {REGISTER_S:g} s: {self.story.latest}")
        called_ns = now_ns()
        self.story.invoke(called_ns, kind="webrtc", transport="wss", caller=who.user, callee=who.callee)
        self._hearing = hearing = Hearing(opened_ns=called_ns)
        await self._browser.run(f"phone.call({json.dumps(who.callee)})")
        await self.story.until(lambda: (hearing.first_ns is not None and self.story.up) or self.story.over, SETUP_S)
        self.story.set_up(called_ns, heard_ns=hearing.first_ns, within_s=SETUP_S)

    async def help(self) -> None:
        """Write `unaided`, then help as a person or a better client would: a re-INVITE, a new connection, a new call.

        Each is tried only where the one before brought no audio; the BYE goes out in any case.
        """
        self.story.unaided()
        if self.story.up and not await self._help("reinvite_sent", "phone.reinvite()") and self.story.up:
            await self._help("new_connection_sent", "phone.reinvite({fresh: true})")
        heard = self._heard_since(now_ns() - NS_PER_S // 2)
        if self.story.up and await self._run("phone.bye()"):
            await self.story.until(lambda: "bye_sent" in self.story.seen, ANSWER_S)
        if "bye_sent" not in self.story.seen and "confirmed" in self.story.seen:
            self.story.event("bye_sent", now_ns(), code=None)
        if not heard:
            await self._call_again()

    async def close(self) -> None:
        """The browser is gone, its `media_leg` written."""
        if self._browser is not None:
            await self._browser.close()
        if self._hearing is not None:
            at_ns = now_ns()
            about = {"call": self._who.call, "side": "caller", "source": self._source, **self._hearing.whole(at_ns)}
            row = self._last
            about |= {"jitter_ms": _rounded(row.get("jitterMs")), "sent": row.get("sent"), "ice": row.get("ice")}
            about |= {"dtls": row.get("dtls"), "samples": row.get("samples"), "concealed": row.get("concealed")}
            about |= {"energy": row.get("energy"), "discarded": row.get("discarded")}
            about["rtcp"] = {"rtt_ms": _rounded(row.get("rtt_ms")), "fraction_lost": row.get("fraction_lost")}
            self._recorder.note("media_leg", at_ns, about)

    def take(self, row: dict[str, Any]) -> None:
        """Something the page told."""
        assert self._browser is not None
        event, at_ns = str(row.pop("event")), self._browser.clock.ns(row.pop("at"))
        if event == "sample":
            self._take_sample(row, at_ns)
        elif event in _PASSED_ON:
            self.story.event(event, at_ns, **row)
        self.story.news()

    # -- hearing ------------------------------------------------------------------------------------------------------

    @property
    def _source(self) -> str:
        assert self._hearing is not None
        return "each packet's frame" if self._hearing.exact else f"getStats every {SAMPLE_MS} ms"

    def _take_sample(self, row: dict[str, Any], at_ns: int) -> None:
        if self._hearing is None or self._browser is None:
            return
        self._last = row
        hearing = self._hearing
        for gap in hearing.take(sample_of(row, at_ns, self._browser.clock)):
            value = {"call": self._who.call, "side": "caller", "from_ns": gap.from_ns, "to_ns": gap.to_ns}
            value |= {"gap_ms": round(gap.length_ns / 1e6, 3), "lost": gap.lost, "ssrc_changed": gap.ssrc_changed}
            value |= {"held": False, "source": self._source, "resolution_ms": hearing.resolution_ms}
            self._recorder.note("media_gap", gap.to_ns, value)
        if at_ns >= self._second_ns:
            self._second_ns = at_ns + NS_PER_S
            leg = hearing.row(at_ns, jitter_ms=_rounded(row.get("jitterMs")))
            value = {"legs": {f"{self._who.call}/caller": leg}, "pauses_ms": {}}
            self._recorder.note("media_second", at_ns, value)

    def _heard_since(self, at_ns: int) -> bool:
        return self._hearing is not None and self._hearing.heard_since(at_ns)

    # -- the call -----------------------------------------------------------------------------------------------------

    async def _help(self, event: str, expression: str) -> bool:
        """One attempt, told with the code of its answer and whether audio came after it."""
        before_ns = now_ns()
        answer = await self._run(expression)
        answered_ns = now_ns()
        answer = answer if isinstance(answer, dict) else {"code": None, "reason": "no answer"}
        code = answer.get("code")
        back = code is not None and code < 300 and await self._audio_after(answered_ns)
        more = {"audio": back, "took_ms": round((answered_ns - before_ns) / 1e6, 3)}
        if back and self._hearing is not None and self._hearing.last_ns is not None:
            more["audio_ms"] = self._audio_ms(answered_ns)
        self.story.event(event, answered_ns, code=code, reason=answer.get("reason"), **more)
        return back

    async def _call_again(self) -> None:
        self.story.forget("confirmed", "failed", "ended")
        called_ns = now_ns()
        await self._run(f"phone.again({json.dumps(self._who.callee)})")
        await self.story.until(lambda: self._heard_since(called_ns) or self.story.over, SETUP_S)
        back = self._heard_since(called_ns)
        more = {"audio_ms": self._audio_ms(called_ns)} if back else {"reason": self.story.latest}
        self.story.event("new_call_helped", now_ns(), helped=back, **more)
        if self.story.up:
            await self._run("phone.bye()")
            await asyncio.sleep(0.1)

    async def _audio_after(self, at_ns: int) -> bool:
        """Right audio that goes on: packets of before, played late, are not taken for it."""
        await self.story.until(lambda: self._heard_since(at_ns + NS_PER_S // 2), AUDIO_S)
        return self._heard_since(at_ns + NS_PER_S // 2)

    def _audio_ms(self, since_ns: int) -> float | None:
        """How long after `since_ns` the first silence ended that was there then; 0 where there was none."""
        hearing = self._hearing
        if hearing is None or hearing.last_gap is None or hearing.last_gap.to_ns < since_ns:
            return 0.0
        return round((hearing.last_gap.to_ns - since_ns) / 1e6, 3)

    async def _run(self, expression: str) -> Any:
        """What the page answers; None when it does not in time, or there is no page any more."""
        if self._browser is None:
            return None
        try:
            return await self._browser.run(expression, timeout_s=ANSWER_S)
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

"""One call of a baresip, held until it is told to stop, and what becomes of it.

Calls are told by ctrl_tcp; registrations, re-INVITEs and the codes of answers by its trace of messages; audio by the
tap on its packets.
"""

from __future__ import annotations

import asyncio
from typing import Any

from harness.clients.real_calls import Who
from harness.clients.recorder import Recorder
from harness.clients.rtp.stats import Gap
from harness.clients.sip.message import Message
from harness.clients.sip.transport import local_address_towards
from harness.clients.softphone.baresip import Account, Baresip, free_ports
from harness.clients.softphone.tap import Tap
from harness.clients.softphone.trace import Trace
from harness.clients.story import Story
from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError

REGISTER_S = 10.0
SETUP_S = 8.0
SILENT_NS = 500_000_000
ANSWER_S = 3.0
AUDIO_S = 1.5
_EVENTS = {
    "REGISTER_FAIL": "register_failed",
    "CALL_RINGING": "ringing",
    "CALL_ESTABLISHED": "confirmed",
    "CALL_CLOSED": "ended",
}
"""ctrl_tcp's names -> ours. Its REGISTER_OK comes before anybody can listen: that is read from the trace."""


class HeldCall:
    """Needs a running event loop."""

    def __init__(self, who: Who, recorder: Recorder) -> None:
        self.story = Story(recorder, call=who.call, side="caller", alive=lambda: not self.dead)
        self._who = who
        self._recorder = recorder
        self._phone: Baresip | None = None
        self._local_ip = local_address_towards(who.to)
        self._trace = Trace(self._local_ip)
        self._ports = free_ports()
        self._tap = Tap(first=self._ports.start, last=self._ports.stop - 1, tone=who.tone)
        self._second_ns = 0
        self._asked: dict[str, int] = {}
        asyncio.get_running_loop().add_reader(self._tap.fileno(), self._listen)

    @property
    def dead(self) -> bool:
        return self._phone is None or self._phone.dead

    @property
    def heard_ns(self) -> int | None:
        return self._tap.reception.first_ns

    def flows(self) -> bool:
        last_ns = self._tap.reception.last_ns
        return last_ns is not None and now_ns() - last_ns < SILENT_NS

    def check(self) -> None:
        """`InfrastructureError` when nobody measures any more."""
        if self.dead:
            raise InfrastructureError("baresip ended while its call was held")

    async def begin(self) -> str | None:
        """Start, register, call, wait for audio."""
        who = self._who
        self._phone = await Baresip.start(
            Account(
                user=who.user, password=who.password, domain=who.domain, transport=who.transport, to=who.to,
                register_s=who.expires_s,
            ),
            local_ip=self._local_ip,
            tone_hz=who.tone.hz,
            ports=self._ports,
            on_event=self._on_event,
            on_output=self._on_output,
        )  # fmt: skip
        if not await self.story.until(lambda: "registered" in self.story.seen, REGISTER_S):
            return f"baresip was not registered within {REGISTER_S:g} s: {self.story.latest}"
        self.story.invoke(kind=who.kind, transport=who.transport, caller=who.user, callee=who.callee)
        await self._command("dial", f"sip:{who.callee}@{who.domain}")
        await self.story.until(lambda: (self.heard_ns is not None and self.story.up) or self.story.over, SETUP_S)
        return None

    async def help(self) -> None:
        """Hold and resume, as a person would who hears nothing: each is a re-INVITE, and the second is told."""
        for command in ("hold", "resume"):
            if not self.story.up:
                return
            self.story.forget("reinvite_sent")
            before_ns = now_ns()
            await self._command(command)
            if not await self.story.until(lambda: "reinvite_sent" in self.story.seen, ANSWER_S):
                self.story.event("reinvite_sent", before_ns, code=None)
        resumed_ns = now_ns()
        audio = await self.story.until(lambda: (self._tap.reception.last_ns or 0) > resumed_ns, AUDIO_S)
        self.story.event("reinvite_helped", now_ns(), audio=audio)

    async def help_more(self) -> None:
        """There is nothing else that its buttons do."""

    async def hang_up(self) -> None:
        if self.story.up:
            await self._command("hangup")
            if not await self.story.until(lambda: "bye_sent" in self.story.seen, ANSWER_S):
                self.story.event("bye_sent", now_ns(), code=None)

    async def call_again(self) -> None:
        """A new call shares nothing with the old one here: the new-call clock measures that."""

    async def close(self) -> None:
        """baresip is gone, its `media_leg` written; idempotent."""
        if self._tap.closed:
            return
        if self._phone is not None:
            await self._phone.close()
        self._listen()
        asyncio.get_running_loop().remove_reader(self._tap.fileno())
        at_ns = now_ns()
        about = {"call": self.story.call, "side": self.story.side, **self._tap.whole(at_ns)}
        self._recorder.note("media_leg", at_ns, about)
        self._tap.close()

    # -- what it tells ------------------------------------------------------------------------------------------------

    def _on_event(self, row: dict[str, Any], at_ns: int) -> None:
        event = _EVENTS.get(str(row.get("type")))
        if event == "ended" and not self.story.up:
            event = "failed"
        if event is not None:
            why = row.get("param") if event in ("ended", "failed", "register_failed") else None
            self.story.event(event, at_ns, reason=why)

    def _on_output(self, data: bytes) -> None:
        at_ns = now_ns()
        for traced in self._trace.feed(data):
            self._on_message(traced.message, sent=traced.sent, at_ns=at_ns)

    def _on_message(self, message: Message, *, sent: bool, at_ns: int) -> None:
        """Registrations, requests within the call, and the answers to ours; a final one ends what its CSeq asked."""
        number, method = message.cseq
        key = f"{message.call_id} {number} {method}"
        if message.is_response:
            if sent or message.code < 200:
                return
            if method == "REGISTER" and message.code < 300:
                self.story.event("registered", at_ns)
            elif self._asked.pop(key, None) is not None:
                event = {"INVITE": "reinvite_sent", "BYE": "bye_sent"}[method]
                self.story.event(event, at_ns, code=message.code)
            elif method == "INVITE" and message.code < 300 and "answered" not in self.story.seen:
                self.story.event("answered", at_ns, code=message.code)
        elif method in ("INVITE", "BYE") and message.to_tag:
            if sent:
                self._asked.setdefault(key, at_ns)
            else:
                self.story.event("reinvite_received" if method == "INVITE" else "bye_received", at_ns)

    def _listen(self) -> None:
        for gap in self._tap.read():
            self._tell_gap(gap)
        at_ns = now_ns()
        if at_ns >= self._second_ns and self._tap.reception.received:
            self._second_ns = at_ns + NS_PER_S
            legs = {f"{self.story.call}/{self.story.side}": self._tap.row(at_ns)}
            self._recorder.note("media_second", at_ns, {"legs": legs, "pauses_ms": {}})
        self.story.news()

    def _tell_gap(self, gap: Gap) -> None:
        value = {"call": self.story.call, "side": self.story.side, "from_ns": gap.from_ns, "to_ns": gap.to_ns}
        value |= {"gap_ms": round(gap.length_ns / 1e6, 3), "lost": gap.lost, "ssrc_changed": gap.ssrc_changed}
        self._recorder.note("media_gap", gap.to_ns, value | {"held": False})

    async def _command(self, command: str, parameters: str = "") -> None:
        assert self._phone is not None
        try:
            await self._phone.command(command, parameters)
        except InfrastructureError as error:
            self.story.event("complaint", now_ns(), text=str(error))

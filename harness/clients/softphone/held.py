"""One call of a baresip, either side of it, held until it is told to stop, and what becomes of it.

Registrations and calls are told by ctrl_tcp, re-INVITEs and the codes of answers by its trace of messages, audio by the
tap on its packets.
"""

from __future__ import annotations

import asyncio
from typing import Any

from harness.clients.recorder import Recorder
from harness.clients.rtp.stats import Gap
from harness.clients.rtp.tone import Tone
from harness.clients.sip.message import Message
from harness.clients.sip.transport import local_address_towards
from harness.clients.softphone.baresip import Account, Baresip, free_ports
from harness.clients.softphone.tap import Tap
from harness.clients.softphone.trace import Trace
from harness.clients.story import Side, Story
from harness.clock import NS_PER_S, now_ns
from harness.errors import InfrastructureError

REGISTER_S = 15.0
SETUP_S = 10.0
ANSWER_S = 6.0
AUDIO_S = 2.0
RIGHT_FRAMES = 2

_EVENTS = {
    "REGISTER_FAIL": "register_failed",
    "CALL_INCOMING": "incoming",
    "CALL_RINGING": "ringing",
    "CALL_ESTABLISHED": "confirmed",
    "CALL_CLOSED": "ended",
}
"""ctrl_tcp's names -> ours."""


class HeldCall:
    """`callee` None: it waits to be called and answers. Needs a running event loop."""

    def __init__(self, account: Account, recorder: Recorder, *, call: str, callee: str | None, tone: Tone) -> None:
        side: Side = "callee" if callee is None else "caller"
        self._account = account
        self._callee = callee
        self._tone = tone
        self._recorder = recorder
        self._phone: Baresip | None = None
        self._local_ip = local_address_towards(account.to)
        self._trace = Trace(self._local_ip)
        self._ports = free_ports()
        self._tap = Tap(first=self._ports.start, last=self._ports.stop - 1, tone=tone)
        self._second_ns = 0
        self._asked: dict[str, int] = {}
        self.story = Story(recorder, call=call, side=side, alive=lambda: not self.dead)
        asyncio.get_running_loop().add_reader(self._tap.fileno(), self._listen)

    @property
    def dead(self) -> bool:
        return self._phone is None or self._phone.dead

    def check(self) -> None:
        """`InfrastructureError` when nobody measures any more."""
        if self.dead:
            raise InfrastructureError("baresip ended while its call was held")

    async def begin(self) -> None:
        """Register; a caller calls and waits for audio too. Whether that came is in the history.

        `InfrastructureError` when baresip does not start or does not get registered.
        """
        self._phone = await Baresip.start(
            self._account,
            local_ip=self._local_ip,
            tone_hz=self._tone.hz,
            ports=self._ports,
            on_event=self._on_event,
            on_output=self._on_output,
        )
        if not await self.story.until(lambda: "registered" in self.story.seen, REGISTER_S):
            raise InfrastructureError(f"baresip was not registered within {REGISTER_S:g} s: {self.story.latest}")
        if self._callee is not None:
            await self._call(self._callee)

    async def help(self) -> None:
        """Write `unaided`; then hold and resume, which are re-INVITEs, and BYE. A callee leaves both to its caller."""
        self.story.unaided()
        if self._callee is None:
            return
        if self.story.up:
            await self._command("hold")
            await self.story.until(lambda: "reinvite_sent" in self.story.seen, ANSWER_S)
            self.story.forget("reinvite_sent")
            resumed_ns = now_ns()
            await self._command("resume")
            if not await self.story.until(lambda: "reinvite_sent" in self.story.seen, ANSWER_S):
                self.story.event("reinvite_sent", now_ns(), code=None)
            await self.story.until(lambda: self._heard_since(resumed_ns), AUDIO_S)
            self.story.event("reinvite_helped", now_ns(), audio=self._heard_since(now_ns() - NS_PER_S // 2))
        if self.story.up:
            await self._command("hangup")
            await self.story.until(lambda: "bye_sent" in self.story.seen, ANSWER_S)
        if "bye_sent" not in self.story.seen and "confirmed" in self.story.seen:
            self.story.event("bye_sent", now_ns(), code=None)

    async def close(self) -> None:
        """baresip is gone, its `media_leg` written."""
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
        if event == "ended" and not self.story.up and "incoming" not in self.story.seen:
            event = "failed"
        if event is not None:
            self.story.event(event, at_ns, reason=row.get("param") or None)

    def _on_output(self, data: bytes) -> None:
        at_ns = now_ns()
        for traced in self._trace.feed(data):
            self._on_message(traced.message, sent=traced.sent, at_ns=at_ns)

    def _on_message(self, message: Message, *, sent: bool, at_ns: int) -> None:
        """In-dialog requests and the answers to ours; a final answer ends what its CSeq asked.

        A registration is read here, too: the first is over before ctrl_tcp has somebody to tell.
        """
        method = message.cseq[1]
        if method == "REGISTER":
            if message.is_response and 200 <= message.code < 300:
                self.story.event("registered", at_ns)
        elif message.is_response:
            key = f"{message.call_id} {message.cseq[0]} {method}"
            if not sent and message.code >= 200 and self._asked.pop(key, None) is not None:
                event = {"INVITE": "reinvite_sent", "BYE": "bye_sent"}[method]
                self.story.event(event, at_ns, code=message.code)
        elif method in ("INVITE", "BYE") and message.to_tag:
            if sent:
                self._asked.setdefault(f"{message.call_id} {message.cseq[0]} {method}", at_ns)
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

    # -- what it is told ----------------------------------------------------------------------------------------------

    async def _call(self, callee: str) -> None:
        called_ns = now_ns()
        account = self._account
        self.story.invoke(called_ns, kind="desktop", transport=account.transport, caller=account.user, callee=callee)
        await self._command("dial", f"sip:{callee}@{account.domain}")
        heard = self._tap.reception
        await self.story.until(lambda: (heard.right >= RIGHT_FRAMES and self.story.up) or self.story.over, SETUP_S)
        heard_ns = heard.first_ns if heard.right >= RIGHT_FRAMES else None
        self.story.set_up(called_ns, heard_ns=heard_ns, within_s=SETUP_S)

    async def _command(self, command: str, parameters: str = "") -> None:
        assert self._phone is not None
        try:
            await self._phone.command(command, parameters)
        except InfrastructureError as error:
            self.story.event("complaint", now_ns(), text=str(error))

    def _heard_since(self, at_ns: int) -> bool:
        last_ns = self._tap.reception.last_ns
        return last_ns is not None and last_ns > at_ns

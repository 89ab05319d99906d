"""The other end of a real client's call: a plain phone on UDP that answers at once, sends its tone, hears the client's.

Its audio is the media engine's, so that the direction to it is measured like that of any phone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.clients.kinds import kind
from harness.clients.recorder import Recorder
from harness.clients.rtp.control import Leg, MediaEngine
from harness.clients.rtp.tone import Tone
from harness.clients.sip.agent import UserAgent
from harness.clients.sip.behaviour import Account
from harness.clients.sip.reply import Answer, Event
from harness.clients.sip.sdp import BadSdp, audio_address, describe
from harness.clients.sip.session import Session
from harness.clients.sip.transport import Address
from harness.clients.story import Story
from harness.clock import now_ns

ASK_S = 3.0
SILENT_MS = 500.0


class Partner:
    """Needs a running event loop and a media engine. `tone` is the one it sends.

    A second call, after the first, is heard as "<call>-again": its audio is none of the first one's.
    """

    def __init__(
        self,
        account: Account,
        *,
        to: Address,
        local_ip: str,
        engine: MediaEngine,
        call: str,
        tone: Tone,
        recorder: Recorder,
    ) -> None:
        self.story = Story(recorder, call=call, side="callee", alive=lambda: True)
        self._engine = engine
        self._tone = tone
        self._local_ip = local_ip
        self._session: Session | None = None
        self._legs: list[Leg] = []
        self._agent = UserAgent(
            account=account,
            to=to,
            local_ip=local_ip,
            behaviour=kind("ip_phone").behaviour,
            on_event=self._on_event,
            on_call=self._on_call,
        )

    @property
    def call_id(self) -> str | None:
        """The Call-ID of the call that it took last; None while nobody called."""
        return self._session.call_id if self._session is not None else None

    async def start(self) -> None:
        """Returns once it is registered. Bound it."""
        await self._agent.start()

    async def flows(self) -> bool:
        """Whether the client's tone arrives just now."""
        if len(self._legs) != 1:
            return False
        state = await self._engine.state(self._legs[0])
        return state.since_last_ms is not None and state.since_last_ms < SILENT_MS

    async def heard(self, timeout_s: float) -> int:
        """Wait for the client's tone; when it first came. `TimeoutError` when it does not."""
        if not await self.story.until(lambda: bool(self._legs), timeout_s):
            raise TimeoutError
        return await self._engine.heard(self._legs[0], timeout_s=timeout_s)

    async def help(self) -> None:
        """A re-INVITE from this end."""
        session = self._session
        if session is not None and session.state == "up":
            reply = await session.reinvite(timeout_s=ASK_S)
            self.story.event("reinvite_sent", reply.sent_ns, code=reply.code, took_ms=reply.took_ms)
            if reply.ok:
                self._connect(session)

    async def stop(self) -> None:
        """Silent and gone; what it heard is written."""
        for leg in self._legs:
            await self._engine.close(leg)
        self._legs.clear()
        await self._agent.stop()

    def _on_event(self, event: Event) -> None:
        if event.kind in ("flow_up", "flow_down", "registered", "register_failed"):
            self.story.event(event.kind, event.time_ns, **event.detail)

    async def _on_call(self, session: Session) -> Answer | None:
        leg = Leg(call=self.story.call if not self._legs else f"{self.story.call}-again", side="callee")
        if leg in self._legs:
            return Answer(code=486, reason="Busy Here")
        local = await self._engine.open(leg, local_ip=self._local_ip, mark=self._tone)
        self._legs.append(leg)
        self._session = session
        session.on_reinvite = self._told("reinvite_received", then=lambda: self._connect(session))
        session.on_update = self._told("update_received")
        session.on_bye = self._told("bye_received", then=lambda: self._engine.hold(leg))
        self._connect(session)
        self.story.news()
        return Answer(sdp=describe(local, session=self.story.call))

    def _told(self, event: str, *, then: Callable[[], Any] = lambda: None) -> Callable[[int], None]:
        def told(at_ns: int) -> None:
            self.story.event(event, at_ns)
            then()

        return told

    def _connect(self, session: Session) -> None:
        """Send audio where the other side wants it."""
        try:
            self._engine.send(self._legs[-1], audio_address(session.remote_sdp))
        except BadSdp as error:
            self.story.event("complaint", now_ns(), text=f"no usable audio: {error}")

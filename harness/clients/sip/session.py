"""One call of a user agent, from either side: the INVITE dialog (RFC 3261 12-15) and what happens inside it.

A session keeps the dialog's state and builds its requests; its user agent carries them. `on_reinvite`, `on_bye` and
`on_update` are called with the time when the other side asked. A re-INVITE is answered with the session description
that this side has; one that meets an own re-INVITE is answered 491 (14.1). Session timers are RFC 4028.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from harness.clients.sip.message import Header, Message, tag_of, uri_of
from harness.clients.sip.reply import Reply
from harness.clients.sip.transaction import ServerTransaction
from harness.fates import Side

if TYPE_CHECKING:
    from harness.clients.sip.agent import UserAgent

State = Literal["inviting", "ringing", "up", "ended"]
EndedBy = Literal["local", "remote", "refused", "timeout"]
ALLOW: Header = ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, REFER, NOTIFY, INFO")
SDP: Header = ("Content-Type", "application/sdp")


def _nothing(at_ns: int) -> None:
    """What a session does when nobody asked to be told."""


class Session:
    """`answered` is done when a call of ours has its final answer. `code` is that answer's, of either side."""

    def __init__(self, agent: UserAgent, *, side: Side, call_id: str, local: str, remote: str, target: str) -> None:
        self.side = side
        self.call_id = call_id
        self.state: State = "inviting" if side == "caller" else "ringing"
        self.ended_by: EndedBy | None = None
        self.code: int | None = None
        self.local_sdp = b""
        self.remote_sdp = b""
        self.held = False
        self.answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.on_reinvite: Callable[[int], None] = _nothing
        self.on_bye: Callable[[int], None] = _nothing
        self.on_update: Callable[[int], None] = _nothing
        self.on_refer: Callable[[int, str], None] = lambda at_ns, target: None
        self.local = local
        """Our side's header value, with its tag."""
        self.remote = remote
        """Theirs, with its tag once there is a dialog."""
        self.target = target
        self.routes: tuple[str, ...] = ()
        self.cseq = 0
        self.remote_cseq = 0
        self.pending_invite = False
        self.invite_server: ServerTransaction | None = None
        self.branch = ""
        self._agent = agent
        self._expires: Any = None

    # --- what this side asks for -------------------------------------------------------------------------------------

    async def reinvite(self, sdp: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        """Offer again, with another description or with the same; also refreshes the target (12.2)."""
        offer = self.local_sdp if sdp is None else sdp
        self.pending_invite = True
        try:
            reply = await self._agent.in_dialog(
                self,
                "INVITE",
                headers=[self.contact, SDP, ALLOW, *self.timer_headers()],
                body=offer,
                timeout_s=timeout_s,
            )
        finally:
            self.pending_invite = False
        if reply.ok and reply.message is not None:
            self.local_sdp = offer
            self.refresh(reply.message)
            self.arm_timer(reply.message)
        return reply

    async def update(self, sdp: bytes = b"", *, timeout_s: float | None = None) -> Reply:
        """UPDATE (RFC 3311)."""
        headers = [self.contact, *([SDP] if sdp else []), *self.timer_headers()]
        reply = await self._agent.in_dialog(self, "UPDATE", headers=headers, body=sdp, timeout_s=timeout_s)
        if reply.ok and reply.message is not None:
            self.local_sdp = sdp or self.local_sdp
            self.refresh(reply.message)
            self.arm_timer(reply.message)
        return reply

    async def hold(self, *, timeout_s: float | None = None) -> Reply:
        """Put the other side on hold: an offer that only sends (RFC 3264 8.4)."""
        reply = await self.reinvite(_directed(self.local_sdp, b"sendonly"), timeout_s=timeout_s)
        self.held = self.held or reply.ok
        return reply

    async def resume(self, *, timeout_s: float | None = None) -> Reply:
        reply = await self.reinvite(_directed(self.local_sdp, b"sendrecv"), timeout_s=timeout_s)
        self.held = self.held and not reply.ok
        return reply

    async def refer(self, uri: str, *, timeout_s: float | None = None) -> Reply:
        """Ask the other side to call `uri` (RFC 3515); the outcome comes as NOTIFY."""
        headers = [self.contact, ("Refer-To", f"<{uri}>")]
        return await self._agent.in_dialog(self, "REFER", headers=headers, timeout_s=timeout_s)

    async def bye(self, *, timeout_s: float | None = None) -> Reply:
        """End the call; it is over for this side whatever is answered."""
        self.end("local")
        return await self._agent.in_dialog(self, "BYE", timeout_s=timeout_s)

    async def cancel(self) -> Reply:
        """Take back an INVITE that has no final answer yet (9.1)."""
        return await self._agent.cancel(self)

    # --- what the user agent tells it --------------------------------------------------------------------------------

    @property
    def contact(self) -> Header:
        return self._agent.contact

    @property
    def local_tag(self) -> str:
        return tag_of(self.local)

    @property
    def remote_tag(self) -> str:
        return tag_of(self.remote)

    def established(self, ok: Message) -> None:
        """A 2xx made the dialog (12.1.2)."""
        self.remote = ok.get("to") or self.remote
        self.routes = tuple(reversed(ok.all("record-route")))
        self.state = "up"
        self.refresh(ok)
        self.arm_timer(ok)

    def refresh(self, message: Message) -> None:
        """Target and description that a request or 2xx within the dialog brings (12.2.1.2)."""
        if contact := message.get("contact"):
            self.target = uri_of(contact)
        if message.body:
            self.remote_sdp = message.body

    def end(self, by: EndedBy) -> None:
        if self.state != "ended":
            self.state = "ended"
            self.ended_by = by
            self._disarm()
            if self.invite_server is not None:
                self.invite_server.stop()

    def timer_headers(self) -> Sequence[Header]:
        """Session-Expires of our requests (RFC 4028 7.1); none where this kind of client does not use it."""
        expires_s = self._agent.behaviour.session_expires_s
        if expires_s is None:
            return [("Supported", "timer")]
        return [("Supported", "timer"), ("Session-Expires", f"{expires_s};refresher=uac"), ("Min-SE", "90")]

    def arm_timer(self, ok: Message, *, ours: str = "uac") -> None:
        """Refresh at half time, or expect to be refreshed, as a 2xx of a session says. `ours` is our role in it."""
        self._disarm()
        value = ok.get("session-expires")
        if value is None or self.state != "up":
            return
        seconds, _, parameters = value.partition(";")
        if not (seconds.strip().isascii() and seconds.strip().isdigit() and len(seconds.strip()) < 8):
            return
        expires_s = int(seconds)
        refresher = "uas" if "refresher=uas" in parameters.replace(" ", "").lower() else "uac"
        loop = asyncio.get_running_loop()
        if refresher == ours:
            self._expires = loop.call_later(expires_s / 2, lambda: self._agent.spawn(self._refresh_session()))
        else:  # RFC 4028 10: end it min(32, a third) before it expires
            left_s = expires_s - min(32.0, expires_s / 3)
            self._expires = loop.call_later(left_s, lambda: self._agent.spawn(self._expire()))

    async def _refresh_session(self) -> None:
        reply = await self.update()
        if reply.code in (405, 501):
            await self.reinvite()

    async def _expire(self) -> None:
        if self.state == "up":
            await self.bye()

    def _disarm(self) -> None:
        if self._expires is not None:
            self._expires.cancel()
            self._expires = None


def new_tag() -> str:
    return secrets.token_hex(4)


def _directed(sdp: bytes, direction: bytes) -> bytes:
    """The same description with another direction, and a version of its own (RFC 3264 8)."""
    lines = []
    for line in sdp.split(b"\r\n"):
        if line in (b"a=sendrecv", b"a=sendonly", b"a=recvonly", b"a=inactive"):
            lines.append(b"a=" + direction)
        elif line.startswith(b"o="):
            parts = line.split(b" ")
            parts[2] = str(int(parts[2]) + 1).encode()
            lines.append(b" ".join(parts))
        else:
            lines.append(line)
    return b"\r\n".join(lines)

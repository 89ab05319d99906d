"""One call of a user agent, from either side: the INVITE dialog (RFC 3261 12-15) and what happens inside it.

`on_reinvite`, `on_bye`, `on_update` and `on_cancel` are called with the time when the other side asked, `on_refer` with
the URI it wants called, too. A re-INVITE is answered with the session description that this side has; one that meets an
own re-INVITE is answered 491 (14.1). Session timers are RFC 4028. A 481 to a request does not end the session by itself
(12.2.1.2 says it should): the one who measures asks both ends and decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from harness.clients.sip import sdp, session_timer
from harness.clients.sip.dialog import new_branch, way
from harness.clients.sip.exchange import Exchange
from harness.clients.sip.message import Header, Message, request, tag_of, uri_of
from harness.clients.sip.reply import Reply as Reply
from harness.clients.sip.session_timer import Agreed
from harness.clients.sip.transaction import ServerTransaction
from harness.clock import now_ns
from harness.fates import Side

State = Literal["inviting", "ringing", "up", "ended"]
EndedBy = Literal["local", "remote", "refused", "timeout"]
ALLOW: Header = ("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, REFER, NOTIFY, INFO, MESSAGE")
SDP: Header = ("Content-Type", "application/sdp")
GLARES = 3
"""How often a re-INVITE that meets one of theirs is tried in all."""

OnRefer = Callable[[int, str], Awaitable[Reply | None]]
"""Calls the URI it is given; what came of that is told to who asked. None: declined."""


def _nothing(at_ns: int) -> None:
    """What a session does when nobody asked to be told."""


class Session:
    """`answered` is done when a call of ours has its final answer. `code` is that answer's, of either side."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        side: Side,
        call_id: str,
        local: str,
        remote: str,
        target: str,
        closed: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.side = side
        self.call_id = call_id
        self.state: State = "inviting" if side == "caller" else "ringing"
        self.ended_by: EndedBy | None = None
        self.code: int | None = None
        self.local_sdp = b""
        self.remote_sdp = b""
        self.answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.on_reinvite: Callable[[int], None] = _nothing
        self.on_bye: Callable[[int], None] = _nothing
        self.on_update: Callable[[int], None] = _nothing
        self.on_cancel: Callable[[int], None] = _nothing
        self.on_refer: OnRefer | None = None
        self.on_transfer: Callable[[int, int], None] = lambda at_ns, code: None
        """Told how far a transfer is that this side asked for: the time, and the code of the other call."""
        self.local = local
        """Our side's header value, with its tag."""
        self.remote = remote
        """Theirs, with its tag once there is a dialog."""
        self.target = target
        self.routes: tuple[str, ...] = ()
        self.cseq = 0
        self.remote_cseq = -1
        self.pending_invite = False
        self.referring = False
        self.unacknowledged: dict[int, ServerTransaction] = {}
        """Our answers to their INVITEs that wait for an ACK, by number."""
        self.take_back: Callable[[], None] = lambda: None
        """Answers the INVITE of a call that rings here and is not wanted any more."""
        self._exchange = exchange
        self._closed = closed
        self._expires_s = exchange.behaviour.session_expires_s
        self._may_update = False
        self._refreshing = True
        self._timer: Any = None
        self._sdp_version = 1
        self._last_sdp = b""
        self._invite_branch = ""
        self._invite_authorization: Sequence[Header] = ()
        self._proceeding = asyncio.Event()

    # --- what this side asks for -------------------------------------------------------------------------------------

    async def invite(self, headers: Sequence[Header] = ()) -> Reply:
        """The INVITE that makes the dialog; `answered` gets its reply."""
        reply = await self._timed("INVITE", [*headers, SDP], self.local_sdp)
        self.code = reply.code
        if not reply.ok:
            self.end("timeout" if reply.code is None else "refused")
        elif self.state == "ended":  # taken back, but answered all the same (9.1)
            await self._request("BYE")
        if not self.answered.done():
            self.answered.set_result(reply)
        return reply

    async def reinvite(self, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        """Offer again, with another description or with the same; also refreshes the target (12.2). Where it meets
        their re-INVITE it is tried again after a while (14.1)."""
        offer = self.local_sdp if body is None else body
        reply = await self._offer("INVITE", offer, timeout_s)
        for _ in range(GLARES - 1):
            if reply.code != 491 or self.state != "up":
                break
            await asyncio.sleep(glare_wait_s(self.side, random.random))
            reply = await self._offer("INVITE", offer, timeout_s)
        if reply.ok:
            self.local_sdp = offer
        return reply

    async def update(self, body: bytes = b"", *, timeout_s: float | None = None) -> Reply:
        """UPDATE (RFC 3311), with an offer or without."""
        reply = await self._offer("UPDATE", body, timeout_s)
        if reply.ok and body:
            self.local_sdp = body
        return reply

    async def hold(self, way: sdp.Direction = "sendonly", *, timeout_s: float | None = None) -> Reply:
        """Put the other side on hold: an offer that does not take its audio (RFC 3264 8.4)."""
        return await self.reinvite(sdp.directed(self.local_sdp, way), timeout_s=timeout_s)

    async def resume(self, *, timeout_s: float | None = None) -> Reply:
        return await self.reinvite(sdp.directed(self.local_sdp, "sendrecv"), timeout_s=timeout_s)

    @property
    def held(self) -> bool:
        """Whether this side does not want their audio."""
        return sdp.direction(self.local_sdp) in ("sendonly", "inactive")

    async def refer(self, uri: str, *, timeout_s: float | None = None) -> Reply:
        """Ask the other side to call `uri` (RFC 3515); what comes of it is told to `on_transfer`."""
        headers = [self.contact, ("Refer-To", f"<{uri}>"), ("Referred-By", f"<{uri_of(self.local)}>")]
        return await self._request("REFER", headers=headers, timeout_s=timeout_s)

    async def notify_refer(self, code: int, reason: str) -> Reply:
        """How far the call is that a REFER asked for (RFC 3515 2.4.5)."""
        state = "active;expires=60" if code < 200 else "terminated;reason=noresource"
        headers = [self.contact, ("Event", "refer"), ("Subscription-State", state)]
        headers.append(("Content-Type", "message/sipfrag;version=2.0"))
        return await self._request("NOTIFY", headers=headers, body=f"SIP/2.0 {code} {reason}\r\n".encode())

    async def bye(self, *, timeout_s: float | None = None) -> Reply:
        """End the call; it is over for this side whatever is answered."""
        self.end("local")
        return await self._request("BYE", timeout_s=timeout_s)

    async def cancel(self) -> Reply:
        """Take back an INVITE that has no final answer yet (9.1): not before something was heard of it. A 2xx that
        crosses it is acknowledged and ended."""
        began_ns = now_ns()
        if self.state not in ("inviting", "ringing") or self.side == "callee":
            return Reply.none(sent_ns=began_ns, after_ns=began_ns, why="nothing to take back")
        self.end("local")
        await self._proceeding.wait()
        if self.answered.done() or self.code is not None:
            return Reply.none(sent_ns=began_ns, after_ns=now_ns(), why="answered meanwhile")
        data = self._bytes("CANCEL", self._invite_branch, self.cseq, uri=self.target, routes=())
        return await self._exchange.once("CANCEL", self._invite_branch, data)

    # --- what others tell it -----------------------------------------------------------------------------------------

    @property
    def contact(self) -> Header:
        return self._exchange.contact

    @property
    def local_tag(self) -> str:
        return tag_of(self.local)

    @property
    def remote_tag(self) -> str:
        return tag_of(self.remote)

    @property
    def offering(self) -> bool:
        """Whether an offer of ours waits for its answer."""
        return self.pending_invite or self.state == "inviting"

    def refresh(self, message: Message) -> None:
        """Target and description that a request or 2xx within the dialog brings (12.2.1.2)."""
        if (contact := message.all("contact")) and (target := uri_of(contact[0])):
            self.target = target
        if message.body:
            self.remote_sdp = message.body
        if allow := message.all("allow"):
            self._may_update = "UPDATE" in allow

    def described(self, body: bytes) -> bytes:
        """A description of ours as it goes out: numbered anew when it differs from the last one."""
        plain = sdp.numbered(body, 0)
        if body and plain != self._last_sdp:
            self._sdp_version += 1
            self._last_sdp = plain
        return sdp.numbered(body, self._sdp_version)

    def answer_sdp(self) -> bytes:
        """What this side says to the offer that the other side made last."""
        return self.described(sdp.answering(self.local_sdp, self.remote_sdp))

    def end(self, by: EndedBy) -> None:
        """Over: no timer, no repeated answer. Idempotent."""
        if self.state == "ended":
            return
        self.state, self.ended_by = "ended", by
        self._disarm()
        for server in self.unacknowledged.values():
            server.forget()
        self.unacknowledged.clear()
        self._closed(self)

    def arm_timer(self, agreed: Agreed | None, *, role: session_timer.Role) -> None:
        """Refresh in time, or expect to be refreshed; `role` is ours in the request that agreed it."""
        self._disarm()
        if agreed is None or self.state == "ended":
            return
        ours = agreed.refresher == role
        after_s = agreed.refresh_after_s() if ours else agreed.expire_after_s()
        work = self._refresh_session if ours else self._expire
        self._expires_s = agreed.interval_s
        self._refreshing = ours
        self._timer = self._exchange.loop.call_later(after_s, lambda: self._exchange.spawn(work()))

    def unheard(self) -> None:
        """Nobody acknowledged a 2xx of ours (13.3.1.4)."""
        if self.state == "up":
            self.end("timeout")
            self._exchange.spawn(self._request("BYE"))

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _offer(self, method: str, body: bytes, timeout_s: float | None) -> Reply:
        self.pending_invite = self.pending_invite or bool(body)
        try:
            return await self._timed(method, [SDP] if body else [], body, timeout_s=timeout_s)
        finally:
            self.pending_invite = False

    async def _timed(
        self, method: str, headers: Sequence[Header], body: bytes, *, timeout_s: float | None = None
    ) -> Reply:
        """A request that may begin or refresh a session timer; once more with the interval that a 422 demands."""
        refresher: session_timer.Role | None = None
        if self.state == "up":  # whoever refreshes goes on to (RFC 4028 7.4)
            refresher = "uac" if self._refreshing else "uas"
        body = self.described(body)
        for _ in range(2):
            own = [self.contact, ALLOW, *session_timer.ask(self._expires_s, refresher=refresher), *headers]
            reply = await self._request(method, headers=own, body=body, timeout_s=timeout_s)
            wanted = session_timer.min_se(reply.message)
            if wanted is None or wanted <= (self._expires_s or 0):
                break
            self._expires_s = wanted
        if reply.ok and reply.message is not None:
            self.refresh(reply.message)
            self.arm_timer(session_timer.agreed(reply.message), role="uac")
        return reply

    async def _request(
        self, method: str, *, headers: Sequence[Header] = (), body: bytes = b"", timeout_s: float | None = None
    ) -> Reply:
        uri, routes = way(self.target, self.routes)

        def build(branch: str, authorization: Sequence[Header]) -> bytes:
            self.cseq += 1
            if method == "INVITE":
                self._invite_branch, self._invite_authorization = branch, authorization
            return self._bytes(method, branch, self.cseq, [*headers, *authorization], body, uri=uri, routes=routes)

        def ack(final: Message) -> bytes:
            """Of a refusal: the INVITE's own branch, number, URI and route (17.1.1.3)."""
            to = final.get("to") or self.remote
            return self._bytes("ACK", final.branch, final.cseq[0], uri=uri, routes=routes, to=to)

        reply = await self._exchange.transact(
            method,
            uri,
            build,
            timeout_s=timeout_s,
            ack=ack if method == "INVITE" else None,
            provisional=self._on_provisional if method == "INVITE" else lambda message: None,
            late=self._on_late,
        )
        if method == "INVITE":
            if reply.ok and reply.message is not None:
                self._acknowledge(reply.message)
            self.code = self.code if reply.code is None else reply.code
            self._proceeding.set()
        return reply

    def _on_provisional(self, message: Message) -> None:
        self._proceeding.set()
        if message.code > 100 and self.state == "inviting":
            self.state = "ringing"

    def _on_late(self, message: Message) -> None:
        """An INVITE was answered after nobody waited any more."""
        if message.cseq[1] == "INVITE" and 200 <= message.code < 300:
            self._acknowledge(message)
            if self.state == "ended" and self._exchange.up:
                self._exchange.spawn(self._request("BYE"))

    def _acknowledge(self, ok: Message) -> None:
        """A 2xx makes the dialog (12.1.2) or refreshes it, and is acknowledged where its Contact says (13.2.2.4)."""
        if not self.remote_tag:
            self.remote = ok.get("to") or self.remote
            self.routes = tuple(reversed(ok.all("record-route")))
        if self.state in ("inviting", "ringing"):
            self.state = "up"
        self.refresh(ok)
        uri, routes = way(self.target, self.routes)
        ack = self._bytes("ACK", new_branch(), ok.cseq[0], self._invite_authorization, uri=uri, routes=routes)
        self._exchange.acknowledged(ok, ack)

    def _bytes(
        self,
        method: str,
        branch: str,
        cseq: int,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        *,
        uri: str,
        routes: Sequence[str],
        to: str | None = None,
    ) -> bytes:
        fixed = [
            self._exchange.via(branch),
            *(("Route", route) for route in routes),
            ("Max-Forwards", "70"),
            ("From", self.local),
            ("To", to or self.remote),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]
        return request(method, uri, [*fixed, *headers], body)

    async def _refresh_session(self) -> None:
        """Tried again until it works or the session has expired; 481 and 408 end it at once (RFC 4028 10)."""
        while self.state == "up":
            reply = await (self.update() if self._may_update else self.reinvite())
            if reply.ok:
                return
            if reply.code in (405, 501) and self._may_update:
                self._may_update = False
                continue
            if reply.code in (408, 481):
                await self._expire()
            await asyncio.sleep((self._expires_s or session_timer.MIN_SE_S) / 10)

    async def _expire(self) -> None:
        if self.state == "up":
            self.end("timeout")
            await self._request("BYE")

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def glare_wait_s(side: Side, random: Callable[[], float]) -> float:
    """How long to wait after a 491 (RFC 3261 14.1): the one who made the Call-ID longer, so that they do not meet."""
    low_s, high_s = (2.1, 4.0) if side == "caller" else (0.0, 2.0)
    return low_s + round(random() * (high_s - low_s), 2)

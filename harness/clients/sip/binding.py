"""A client's registration, kept: REGISTER and its refresh (RFC 3261 10.2), and the flow below (RFC 5626 4.4, 4.5)."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from harness.clients.sip.exchange import Exchange, new_tag
from harness.clients.sip.flow import Flow, FlowFailed, Inbox, UdpFlow
from harness.clients.sip.message import Header, Message, request, uri_of
from harness.clients.sip.reply import Event, Reply
from harness.clients.sip.stream import StreamFlow
from harness.clients.sip.transport import Address
from harness.clients.sip.websocket import WssFlow
from harness.clock import now_ns
from harness.results import TransportName

OPEN_S = 5.0
"""How long a flow may take to open before that counts as a failure."""

PONG_S = 10.0
"""A keep-alive ping without a pong for this long ends the flow (RFC 5626 4.4.1)."""

_EXPIRES = re.compile(r";\s*expires\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)


class Binding:
    """Comes up, stays up, and tells what happens. `came_back` is called when a later flow is registered, too."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        to: Address,
        inbox: Inbox,
        on_event: Callable[[Event], None],
        came_back: Callable[[], None],
    ) -> None:
        self.registered = False
        self.running = False
        self._exchange = exchange
        self._behaviour = exchange.behaviour
        self._to = to
        self._inbox = inbox
        self._on_event = on_event
        self._came_back = came_back
        self._changed = asyncio.Event()
        self._call_id = secrets.token_hex(8)
        self._tag = new_tag()
        self._cseq = 0
        self._expires_s = exchange.behaviour.expires_s
        self._old_contact: str | None = None
        self._flows = 0
        self._away_until = 0.0
        self._timer: Any = None

    async def start(self) -> None:
        """Come up and stay up; returns when the PBX has accepted the first registration. `FlowFailed` when stopped."""
        self.running = True
        first: asyncio.Future[None] = self._exchange.loop.create_future()
        task = self._exchange.spawn(self._stay(first))

        def over(task: asyncio.Task[Any]) -> None:
            if not first.done():
                first.set_exception(FlowFailed("the user agent was stopped"))

        task.add_done_callback(over)
        await first

    def stop(self) -> None:
        self.running = False
        if self._timer is not None:
            self._timer.cancel()

    async def register(self, *, expires_s: int | None = None, timeout_s: float | None = None) -> Reply:
        """REGISTER, once more where the registrar wants a longer interval (423). A binding of an earlier flow is taken
        back in the same request."""
        reply = await self._register(self._expires_s if expires_s is None else expires_s, timeout_s)
        wanted = (reply.message.get("min-expires") if reply.message is not None else None) or ""
        if reply.code == 423 and expires_s is None and re.fullmatch("[0-9]{1,6}", wanted):
            self._expires_s = max(self._expires_s, int(wanted))
            reply = await self._register(self._expires_s, timeout_s)
        return reply

    def lose(self, why: str, *, away_s: float = 0.0) -> None:
        """The flow is given up; a new one is opened, at the earliest after `away_s`."""
        self._away_until = self._exchange.loop.time() + away_s
        if self._exchange.flow is not None and self._exchange.up:
            self._exchange.flow.close()
            self.on_down(why, now_ns())

    def on_down(self, why: str, at_ns: int) -> None:
        """The flow is gone, and with it every request that waits."""
        self.registered = False
        if self._timer is not None:
            self._timer.cancel()
        self._tell("flow_down", at_ns, reason=why)
        self._changed.set()
        self._exchange.layer.abandon()

    async def _register(self, expires_s: int, timeout_s: float | None) -> Reply:
        exchange = self._exchange
        account = exchange.account
        aor = f"<{account.uri}>"
        own = exchange.contact_uri
        contacts = [("Contact", f"<{own}>")]
        if expires_s and self._old_contact not in (None, own):
            contacts.append(("Contact", f"<{self._old_contact}>;expires=0"))

        def build(branch: str, authorization: Sequence[Header]) -> bytes:
            self._cseq += 1
            fixed = [
                exchange.via(branch),
                ("Max-Forwards", "70"),
                ("From", f"{aor};tag={self._tag}"),
                ("To", aor),
                ("Call-ID", self._call_id),
                ("CSeq", f"{self._cseq} REGISTER"),
                *contacts,
                ("Expires", str(expires_s)),
            ]
            return request("REGISTER", f"sip:{account.domain}", [*fixed, *authorization])

        reply = await exchange.transact("REGISTER", f"sip:{account.domain}", build, timeout_s=timeout_s)
        if reply.ok:
            self._old_contact = own
        return reply

    async def _stay(self, first: asyncio.Future[None]) -> None:
        failures = 0
        while self.running:
            self._changed.clear()
            if not self._exchange.up:
                await self._pause(failures)
                if not await self._open():
                    failures += 1
                    continue
            reply = await self.register()
            if reply.ok:
                failures = 0
                self._accepted(reply, first)
                await self._wait(granted_s(reply.message, self._exchange.contact_uri, self._expires_s))
                continue
            failures += 1
            self.registered = False
            self._tell("register_failed", reply.received_ns, code=reply.code, reason=reply.reason)
            if reply.code is None and self._behaviour.reliable:
                self.lose("no answer to REGISTER")
            if self._exchange.up:
                wait_s = self._behaviour.backoff.wait_s(failures, random.random)
                await self._wait_exactly(max(wait_s, retry_after_s(reply.message)))

    def _accepted(self, reply: Reply, first: asyncio.Future[None]) -> None:
        again = not self.registered and first.done()
        self.registered = True
        bound = accepted(reply.message, self._old_contact or "", self._expires_s)
        self._tell("registered", reply.received_ns, took_ms=reply.took_ms, **bound)
        if not first.done():
            first.set_result(None)
        if again:
            self._came_back()

    async def _pause(self, failures: int) -> None:
        """Before the next flow: back-off, and the time a client is away."""
        if self._flows or failures:
            await asyncio.sleep(self._behaviour.backoff.wait_s(failures, random.random))
        while (left_s := self._away_until - self._exchange.loop.time()) > 0:
            await asyncio.sleep(left_s)

    async def _wait(self, granted: float) -> None:
        """Until it is time to refresh: somewhere in the second half, so that many clients do not come at once."""
        await self._wait_exactly(granted * random.uniform(0.5, 0.9))

    async def _wait_exactly(self, seconds: float) -> None:
        """For so long, or until something has changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _open(self) -> bool:
        exchange = self._exchange
        flow = make_flow(self._behaviour.transport, to=self._to, local_ip=exchange.local_ip, inbox=self._inbox)
        try:
            await flow.open(timeout_s=OPEN_S)
        except FlowFailed as failed:
            self._tell("flow_failed", now_ns(), reason=str(failed))
            return False
        if not self.running or not flow.up:
            flow.close()
            return False
        exchange.flow = flow
        exchange.seen_as = None
        self._flows += 1
        self._tell("flow_up", now_ns())
        self._keep_alive(flow)
        return True

    def _keep_alive(self, flow: Flow) -> None:
        every_s = self._behaviour.keepalive_s
        if every_s is not None and self._behaviour.keepalive != "none":
            wait_s = max(every_s * random.uniform(0.8, 1.0) - PONG_S, every_s / 2)  # RFC 5626 4.4.1
            self._timer = self._exchange.loop.call_later(wait_s, self._ping, flow)

    def _ping(self, flow: Flow) -> None:
        if self._exchange.flow is not flow or not flow.up:
            return
        if self._behaviour.keepalive == "options":
            self._exchange.spawn(self._ask_options(flow))
            return
        before = flow.pongs
        if flow.ping():
            self._timer = self._exchange.loop.call_later(PONG_S, self._expect, flow, before)
        else:
            self._keep_alive(flow)

    def _expect(self, flow: Flow, before: int) -> None:
        if self._exchange.flow is not flow or not flow.up:
            return
        if flow.pongs == before:
            self.lose("no pong")
        else:
            self._keep_alive(flow)

    async def _ask_options(self, flow: Flow) -> None:
        """Whatever is answered, somebody is there; where nobody is, register anew."""
        reply = await options(self._exchange)
        if self._exchange.flow is not flow or not flow.up:
            return
        if reply.code is None and self._behaviour.reliable:
            self.lose("no answer to OPTIONS")
            return
        if reply.code is None:
            self._changed.set()
        self._keep_alive(flow)

    def _tell(self, kind: str, time_ns: int, **detail: Any) -> None:
        self._on_event(Event(time_ns=time_ns, kind=kind, detail=detail))


async def options(exchange: Exchange, uri: str | None = None, *, timeout_s: float | None = None) -> Reply:
    """OPTIONS outside any dialog (RFC 3261 11), to the PBX itself unless `uri` says otherwise."""
    account = exchange.account
    target = uri or f"sip:{account.domain}"
    call_id, tag = secrets.token_hex(8), new_tag()
    cseq = 0

    def build(branch: str, authorization: Sequence[Header]) -> bytes:
        nonlocal cseq
        cseq += 1
        fixed = [
            exchange.via(branch),
            ("Max-Forwards", "70"),
            ("From", f"<{account.uri}>;tag={tag}"),
            ("To", f"<{target}>"),
            ("Call-ID", call_id),
            ("CSeq", f"{cseq} OPTIONS"),
            exchange.contact,
            ("Accept", "application/sdp"),
        ]
        return request("OPTIONS", target, [*fixed, *authorization])

    return await exchange.transact("OPTIONS", target, build, timeout_s=timeout_s)


def granted_s(ok: Message | None, own_uri: str, asked_s: int) -> int:
    """How long the registrar keeps the binding: as it says at our contact, else in Expires, else what was asked for
    (RFC 3261 10.2.4). At least 1."""
    if ok is None:
        return asked_s
    for contact in ok.all("contact"):
        if uri_of(contact) == own_uri and (found := _EXPIRES.search(contact.rpartition(">")[2])):
            return max(1, int(found[1]))
    value = ok.get("expires") or ""
    return max(1, int(value)) if re.fullmatch("[0-9]{1,9}", value) else asked_s


def accepted(ok: Message | None, own_uri: str, asked_s: int) -> dict[str, Any]:
    """What a registrar's 2xx acknowledges: for how long (`expires_s`), and `contact`, our own one, where the 2xx lists
    it as a current binding (RFC 3261 10.3): a registrar that rewrites contacts has acknowledged another."""
    bound: dict[str, Any] = {"expires_s": granted_s(ok, own_uri, asked_s)}
    if ok is not None and any(uri_of(contact) == own_uri for contact in ok.all("contact")):
        bound["contact"] = own_uri
    return bound


def retry_after_s(refusal: Message | None) -> float:
    """How long a refusal asks us to wait (RFC 3261 20.33); an hour at most is believed."""
    said = re.match("[0-9]{1,9}", (refusal.get("retry-after") if refusal is not None else None) or "")
    return min(float(said[0]), 3600.0) if said else 0.0


def make_flow(transport: TransportName, *, to: Address, local_ip: str, inbox: Inbox) -> Flow:
    """A flow of this transport, not open yet."""
    if transport == "udp":
        return UdpFlow(to=to, local_ip=local_ip, inbox=inbox)
    if transport == "wss":
        return WssFlow(to=to, local_ip=local_ip, inbox=inbox)
    return StreamFlow(transport=transport, to=to, local_ip=local_ip, inbox=inbox)

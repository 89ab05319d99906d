"""A user agent (RFC 3261) that measures: registers, keeps itself registered, calls and is called, on any transport.

Unlike the single-shot clocks it behaves as a phone does: it repeats requests on UDP, answers challenges, refreshes its
registration, and when its flow is gone it reconnects with back-off (RFC 5626) and registers again. It never re-INVITEs
by itself but to refresh a session it agreed to refresh (RFC 4028).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.clients.sip.authority import Authority
from harness.clients.sip.digest import Credentials
from harness.clients.sip.flow import Flow, FlowFailed, Inbox, UdpFlow
from harness.clients.sip.message import Header, Message, request, response, tag_of, uri_of
from harness.clients.sip.reconnect import Backoff
from harness.clients.sip.reply import Answer, Event, Reply
from harness.clients.sip.serving import Serving
from harness.clients.sip.session import ALLOW, SDP, Session, new_tag
from harness.clients.sip.stream import PING, StreamFlow
from harness.clients.sip.transaction import ClientTransaction, Layer
from harness.clients.sip.transport import Address
from harness.clients.sip.websocket import WssFlow
from harness.clock import now_ns
from harness.results import TransportName

VIA = {"udp": "UDP", "tcp": "TCP", "tls": "TLS", "wss": "WSS"}
CONTACT = {"udp": "", "tcp": ";transport=tcp", "tls": ";transport=tls", "wss": ";transport=ws"}
OPEN_S = 5.0
"""How long a flow may take to open before that counts as a failure."""

PONG_S = 10.0
"""A keep-alive ping without a pong for this long ends the flow (RFC 5626 4.4.1)."""

CHALLENGES = 2
"""How often one request may be challenged: once, and once more for a stale nonce or a second server."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """An extension and its domain; the password is kept out of every representation."""

    user: str
    domain: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How a kind of client behaves towards the PBX; see harness/clients/kinds.py."""

    transport: TransportName
    expires_s: int = 3600
    keepalive_s: float | None = None
    backoff: Backoff = field(default_factory=Backoff)
    session_expires_s: int | None = None


OnCall = Callable[[Session], Awaitable[Answer | None]]
Status = Literal["new", "running", "stopped"]


class UserAgent:
    """One account on one flow at a time. Needs a running event loop.

    `on_event` hears of its flow and its registration; `on_call` is asked how to answer a call (None: 486 Busy Here).
    """

    def __init__(
        self,
        *,
        account: Account,
        to: Address,
        local_ip: str,
        behaviour: Behaviour,
        on_event: Callable[[Event], None] = lambda event: None,
        on_call: OnCall | None = None,
    ) -> None:
        self.account = account
        self.behaviour = behaviour
        self.on_call = on_call
        self.sessions: dict[str, Session] = {}
        self.layer = Layer()
        self.registered = False
        self._to = to
        self._local_ip = local_ip
        self._on_event = on_event
        self.loop = asyncio.get_running_loop()
        self._authority = Authority(Credentials(user=account.user, password=account.password))
        self._serving = Serving(self)
        self._flow: Flow | None = None
        self._status: Status = "new"
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._register_id = (secrets.token_hex(8), new_tag())
        self._register_cseq = 0
        self._old_contact: str | None = None
        self._refresh: Any = None
        self._ping: Any = None

    # --- registration and the flow -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up and stay up; returns when the PBX has accepted the first registration."""
        self._status = "running"
        first: asyncio.Future[None] = self.loop.create_future()
        self.spawn(self._stay_registered(first))
        await first

    async def stop(self) -> None:
        """At once and without a word: calls are not ended, the binding stays until it expires."""
        self._status = "stopped"
        self._drop_flow()
        self.layer.stop()
        for session in self.sessions.values():
            session.end("local")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """Lose the flow, as an app does that is put to sleep or changes its network."""
        if self._flow is not None and self._flow.up:
            self._drop_flow()
            self._on_down("dropped by the client", now_ns())

    async def register(self) -> Reply:
        """One REGISTER; a binding of an earlier flow is taken back in the same request."""
        uri = f"sip:{self.account.domain}"
        aor = f"<sip:{self.account.user}@{self.account.domain}>"
        call_id, tag = self._register_id
        contact = self.contact[1]
        contacts = [("Contact", contact)]
        if self._old_contact not in (None, contact):
            contacts.append(("Contact", f"{self._old_contact};expires=0"))

        def build(branch: str, authorization: Sequence[Header]) -> bytes:
            self._register_cseq += 1
            fixed = [
                self.via(branch), ("Max-Forwards", "70"), ("From", f"{aor};tag={tag}"), ("To", aor),
                ("Call-ID", call_id), ("CSeq", f"{self._register_cseq} REGISTER"), *contacts,
                ("Expires", str(self.behaviour.expires_s)),
            ]  # fmt: skip
            return request("REGISTER", uri, [*fixed, *authorization])

        reply = await self.transact("REGISTER", uri, build)
        if reply.ok:
            self._old_contact = contact
        return reply

    async def _stay_registered(self, first: asyncio.Future[None]) -> None:
        failures = 0
        while self._status == "running":
            self._changed.clear()
            if self._flow is None or not self._flow.up:
                await asyncio.sleep(self.behaviour.backoff.wait_s(failures, random.random) if first.done() else 0)
                if not await self._open_flow():
                    failures += 1
                    continue
            reply = await self.register()
            if not reply.ok:
                failures += 1
                self.registered = False
                self._event("register_failed", reply.received_ns, code=reply.code, reason=reply.reason)
                await self._wait(self.behaviour.backoff.wait_s(failures, random.random))
                continue
            failures = 0
            self.registered = True
            self._event("registered", reply.received_ns, took_ms=reply.took_ms)
            if not first.done():
                first.set_result(None)
            granted_s = _granted(reply.message, self.behaviour.expires_s)
            await self._wait(granted_s * random.uniform(0.5, 0.9))

    async def _wait(self, seconds: float) -> None:
        """For so long, or until the flow is gone."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _open_flow(self) -> bool:
        inbox = Inbox(self._on_message, self._on_down)
        flow = make_flow(self.behaviour.transport, to=self._to, local_ip=self._local_ip, inbox=inbox)
        try:
            await flow.open(timeout_s=OPEN_S)
        except FlowFailed as failed:
            self._event("flow_failed", now_ns(), reason=str(failed))
            return False
        if self._status != "running":
            flow.close()
            return False
        self._flow = flow
        self._event("flow_up", now_ns())
        self._keep_alive()
        return True

    def _keep_alive(self) -> None:
        """CRLF pings (RFC 5626 3.5.1); on UDP nothing would answer them."""
        every_s = self.behaviour.keepalive_s
        if every_s is None or not isinstance(self._flow, StreamFlow):
            return
        flow, pongs = self._flow, self._flow.pongs

        def pinged() -> None:
            if flow.up and self._flow is flow:
                if flow.pongs == pongs:
                    self._drop_flow()
                    self._on_down("no pong", now_ns())
                else:
                    self._keep_alive()

        def ping() -> None:
            if flow.up and self._flow is flow:
                flow.send(PING)
                self._ping = self.loop.call_later(PONG_S, pinged)

        self._ping = self.loop.call_later(max(every_s - PONG_S, 1.0), ping)

    def _on_down(self, why: str, at_ns: int) -> None:
        self.registered = False
        self.layer.abandon()
        self._event("flow_down", at_ns, reason=why)
        self._changed.set()

    def _drop_flow(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
        if self._flow is not None:
            self._flow.close()

    # --- calls -------------------------------------------------------------------------------------------------------

    def call(self, user: str, *, sdp: bytes, headers: Sequence[Header] = ()) -> Session:
        """INVITE an extension; the session's `answered` has the final answer."""
        uri = f"sip:{user}@{self.account.domain}"
        session = Session(
            self,
            side="caller",
            call_id=secrets.token_hex(10),
            local=f"<sip:{self.account.user}@{self.account.domain}>;tag={new_tag()}",
            remote=f"<{uri}>",
            target=uri,
        )
        session.local_sdp = sdp
        self.sessions[session.call_id] = session
        self.spawn(self._invite(session, headers))
        return session

    async def _invite(self, session: Session, headers: Sequence[Header]) -> None:
        own = [self.contact, SDP, ALLOW, *session.timer_headers(), *headers]
        reply = await self.in_dialog(session, "INVITE", headers=own, body=session.local_sdp)
        session.code = reply.code
        if reply.ok and reply.message is not None and session.state != "ended":
            session.established(reply.message)
        elif reply.ok:  # taken back, but answered all the same: it has to be ended (RFC 3261 9.1)
            await session.bye()
        elif not reply.ok:
            session.end("timeout" if reply.code is None else "refused")
        if not session.answered.done():
            session.answered.set_result(reply)

    async def options(self, *, timeout_s: float | None = None) -> Reply:
        """OPTIONS to the PBX itself."""
        uri = f"sip:{self.account.domain}"
        call_id, tag = secrets.token_hex(8), new_tag()

        def build(branch: str, authorization: Sequence[Header]) -> bytes:
            fixed = [
                self.via(branch), ("Max-Forwards", "70"),
                ("From", f"<sip:{self.account.user}@{self.account.domain}>;tag={tag}"), ("To", f"<{uri}>"),
                ("Call-ID", call_id), ("CSeq", "1 OPTIONS"), self.contact,
            ]  # fmt: skip
            return request("OPTIONS", uri, [*fixed, *authorization])

        return await self.transact("OPTIONS", uri, build, timeout_s=timeout_s)

    async def in_dialog(
        self,
        session: Session,
        method: str,
        *,
        headers: Sequence[Header] = (),
        body: bytes = b"",
        timeout_s: float | None = None,
    ) -> Reply:
        """A request of a session, along its route (loose routing, RFC 3261 12.2.1.1)."""
        target = session.target

        def build(branch: str, authorization: Sequence[Header]) -> bytes:
            session.cseq += 1
            if method == "INVITE":
                session.branch = branch
            return self._dialog_request(session, method, branch, session.cseq, [*headers, *authorization], body)

        def ack(final: Message) -> bytes:
            """Of a refusal: the INVITE's own branch, number and target (17.1.1.3)."""
            fixed = [
                self.via(final.branch), *(("Route", route) for route in session.routes), ("Max-Forwards", "70"),
                ("From", final.get("from") or ""), ("To", final.get("to") or ""), ("Call-ID", session.call_id),
                ("CSeq", f"{final.cseq[0]} ACK"),
            ]  # fmt: skip
            return request("ACK", target, fixed)

        def on_provisional(message: Message) -> None:
            if message.code > 100 and session.state == "inviting":
                session.state = "ringing"

        reply = await self.transact(
            method, target, build, timeout_s=timeout_s, ack=ack if method == "INVITE" else None,
            provisional=on_provisional,
        )  # fmt: skip
        if method == "INVITE" and reply.ok and reply.message is not None:
            self._acknowledge(session, reply.message)
        return reply

    async def cancel(self, session: Session) -> Reply:
        """CANCEL of the INVITE that waits: same branch, same number (RFC 3261 9.1)."""
        session.end("local")
        branch, cseq, uri = session.branch, session.cseq, session.target
        fixed = [
            self.via(branch), ("Max-Forwards", "70"), ("From", session.local), ("To", session.remote),
            ("Call-ID", session.call_id), ("CSeq", f"{cseq} CANCEL"),
        ]  # fmt: skip
        return await self._once("CANCEL", branch, request("CANCEL", uri, fixed))

    def _acknowledge(self, session: Session, ok: Message) -> None:
        """ACK a 2xx: a request of its own, to the target it names, again for each repetition (13.2.2.4)."""
        if session.state in ("inviting", "ringing"):
            session.remote = ok.get("to") or session.remote
            session.routes = tuple(reversed(ok.all("record-route")))
        contact = ok.get("contact")
        session.target = uri_of(contact) if contact else session.target
        ack = self._dialog_request(session, "ACK", new_branch(), ok.cseq[0], (), b"")
        self._serving.acks[session.call_id, ok.cseq[0]] = ack
        self.write(ack)

    def _dialog_request(
        self, session: Session, method: str, branch: str, cseq: int, headers: Sequence[Header], body: bytes
    ) -> bytes:
        fixed = [
            self.via(branch), *(("Route", route) for route in session.routes), ("Max-Forwards", "70"),
            ("From", session.local), ("To", session.remote), ("Call-ID", session.call_id),
            ("CSeq", f"{cseq} {method}"),
        ]  # fmt: skip
        return request(method, session.target, [*fixed, *headers], body)

    # --- requests and answers ----------------------------------------------------------------------------------------

    async def transact(
        self,
        method: str,
        uri: str,
        build: Callable[[str, Sequence[Header]], bytes],
        *,
        timeout_s: float | None = None,
        ack: Callable[[Message], bytes] | None = None,
        provisional: Callable[[Message], None] = lambda message: None,
    ) -> Reply:
        """Send a request and wait for its end, answering challenges on the way; never raises."""
        began_ns, sends = now_ns(), 0
        for _ in range(1 + CHALLENGES):
            branch = new_branch()
            data = build(branch, self._authority.headers(method=method, uri=uri))
            reply = await self._once(method, branch, data, timeout_s=timeout_s, ack=ack, provisional=provisional)
            sends += reply.sends
            if reply.message is None or not self._authority.challenged(reply.message):
                break
        return Reply(
            code=reply.code, reason=reply.reason, sent_ns=began_ns, received_ns=reply.received_ns, sends=sends,
            message=reply.message,
        )  # fmt: skip

    async def _once(
        self,
        method: str,
        branch: str,
        data: bytes,
        *,
        timeout_s: float | None = None,
        ack: Callable[[Message], bytes] | None = None,
        provisional: Callable[[Message], None] = lambda message: None,
    ) -> Reply:
        done: asyncio.Future[Message | None] = self.loop.create_future()
        transaction = ClientTransaction(
            request=data,
            method=method,
            reliable=self.behaviour.transport != "udp",
            timers=self.loop,
            write=self.write,
            ended=lambda message: None if done.done() else done.set_result(message),
            provisional=provisional,
            ack=ack,
        )
        sent_ns = now_ns()
        if self._flow is None or not self._flow.up:
            return Reply(code=None, reason="the flow is down", sent_ns=sent_ns, received_ns=sent_ns, sends=0)
        key = (branch, method)
        self.layer.asked[key] = transaction
        transaction.start()
        try:
            async with asyncio.timeout(timeout_s):
                message = await done
        except TimeoutError:
            message = None
        finally:
            transaction.over = True
            linger_s = 32.0 if method == "INVITE" and message_refused(done) else 0.0
            if linger_s:  # its refusal may come again, and wants its ACK again (timer D)
                self.loop.call_later(linger_s, self.layer.asked.pop, key, None)
            else:
                self.layer.asked.pop(key, None)
        at_ns = self._serving.received_ns if message is not None else now_ns()
        code, why = (message.code, message.reason) if message is not None else (None, "no answer")
        return Reply(
            code=code, reason=why, sent_ns=sent_ns, received_ns=max(at_ns, sent_ns), sends=transaction.sends,
            message=message,
        )  # fmt: skip

    def write(self, data: bytes) -> None:
        """Onto the flow that there is; a flow that is down loses it."""
        if self._flow is not None:
            self._flow.send(data)

    def via(self, branch: str) -> Header:
        host, port = self.local
        place = host if port == 0 else f"{host}:{port}"
        return "Via", f"SIP/2.0/{VIA[self.behaviour.transport]} {place};branch={branch};rport"

    @property
    def contact(self) -> Header:
        host, port = self.local
        place = host if port == 0 else f"{host}:{port}"
        return "Contact", f"<sip:{self.account.user}@{place}{CONTACT[self.behaviour.transport]}>"

    @property
    def local(self) -> Address:
        return self._flow.local if self._flow is not None else (self._local_ip, 0)

    def reply_to(self, message: Message, code: int, reason: str, *, headers: Sequence[Header] = ()) -> bytes:
        """The bytes of an answer without a body; To gets a tag of ours where it has none."""
        return response(message, code, reason, to_tag=tag_of(message.get("to") or "") or new_tag(), headers=headers)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run beside; it ends with this user agent."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_message(self, message: Message, received_ns: int) -> None:
        self._serving.take(message, received_ns)

    def _event(self, kind: str, time_ns: int, **detail: Any) -> None:
        self._on_event(Event(time_ns=time_ns, kind=kind, detail=detail))


def make_flow(transport: TransportName, *, to: Address, local_ip: str, inbox: Inbox) -> Flow:
    """A flow of this transport, not open yet."""
    if transport == "udp":
        return UdpFlow(to=to, local_ip=local_ip, inbox=inbox)
    if transport == "wss":
        return WssFlow(to=to, local_ip=local_ip, inbox=inbox)
    return StreamFlow(transport=transport, to=to, local_ip=local_ip, inbox=inbox)


def new_branch() -> str:
    """A transaction's identifier (RFC 3261 8.1.1.7)."""
    return f"z9hG4bK{secrets.token_hex(8)}"


def message_refused(done: asyncio.Future[Message | None]) -> bool:
    """Whether a request was answered with 300 or more."""
    if not done.done() or done.cancelled():
        return False
    message = done.result()
    return message is not None and message.code >= 300


def _granted(ok: Message | None, asked_s: int) -> int:
    """How long the registrar keeps the binding: its Expires header, or what was asked for."""
    value = (ok.get("expires") if ok is not None else None) or ""
    return int(value) if value.isascii() and value.isdigit() and 0 < len(value) < 8 else asked_s

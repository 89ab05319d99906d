"""Requests of one account and their answers, over whatever flow there is: credentials, repetitions, time-outs."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from harness.clients.sip.authority import Authority
from harness.clients.sip.behaviour import Account, Behaviour
from harness.clients.sip.dialog import new_branch
from harness.clients.sip.digest import Credentials
from harness.clients.sip.flow import Flow
from harness.clients.sip.layer import Layer
from harness.clients.sip.message import Header, Message
from harness.clients.sip.reply import Reply
from harness.clients.sip.transaction import ClientTransaction
from harness.clients.sip.transport import CONTACT, VIA, Address
from harness.clock import now_ns

MOST_CHALLENGES = 4
"""Whatever is demanded: one request is sent at most once more than this."""

MOST_ACKS = 32
_SEEN = re.compile(r";\s*(received|rport)\s*=\s*\[?([0-9A-Fa-f.:]+)", re.IGNORECASE)

Build = Callable[[str, Sequence[Header]], bytes]
"""Makes a request from its branch and its credentials; called for each time it is sent as a new transaction."""


class Exchange:
    """What a user agent, its registration and its calls share. Needs a running event loop.

    `acks` has the last ACKs of 2xx answers by Call-ID and number: with the tag they went to.
    """

    def __init__(self, *, account: Account, behaviour: Behaviour, local_ip: str) -> None:
        self.account = account
        self.behaviour = behaviour
        self.local_ip = local_ip
        self.loop = asyncio.get_running_loop()
        self.layer = Layer()
        self.flow: Flow | None = None
        self.seen_as: Address | None = None
        self.acks: OrderedDict[tuple[str, int], tuple[str, bytes]] = OrderedDict()
        self._authority = Authority(Credentials(user=account.user, password=account.password))
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def up(self) -> bool:
        return self.flow is not None and self.flow.up

    @property
    def local(self) -> Address:
        return self.flow.local if self.flow is not None else (self.local_ip, 0)

    @property
    def contact_uri(self) -> str:
        seen = self.seen_as if self.behaviour.contact_as_seen else None
        return f"sip:{self.account.user}@{_place(seen or self.local)}{CONTACT[self.behaviour.transport]}"

    @property
    def contact(self) -> Header:
        return "Contact", f"<{self.contact_uri}>"

    def via(self, branch: str) -> Header:
        transport = VIA[self.behaviour.transport]
        return "Via", f"SIP/2.0/{transport} {_place(self.local)};branch={branch};rport"

    def write(self, data: bytes) -> None:
        """Onto the flow that there is; a flow that is down loses it."""
        if self.flow is not None:
            self.flow.send(data)

    async def transact(
        self,
        method: str,
        uri: str,
        build: Build,
        *,
        timeout_s: float | None = None,
        ack: Callable[[Message], bytes] | None = None,
        provisional: Callable[[Message], None] = lambda message: None,
        late: Callable[[Message], None] = lambda message: None,
    ) -> Reply:
        """Send a request and wait for its end, answering challenges on the way. `late` is given the final answer to an
        INVITE that nobody waited for any more."""
        attempt = self._authority.attempt()
        began_ns = now_ns()
        sends = 0
        reply = Reply.none(sent_ns=began_ns, after_ns=began_ns)
        for _ in range(1 + MOST_CHALLENGES):
            branch = new_branch()
            data = build(branch, attempt.headers(method=method, uri=uri))
            left_s = None if timeout_s is None else timeout_s - (now_ns() - began_ns) / 1e9
            reply = await self.once(method, branch, data, timeout_s=left_s, ack=ack, provisional=provisional, late=late)
            sends += reply.sends
            if reply.message is None or not attempt.challenged(reply.message):
                break
        return Reply(
            code=reply.code,
            reason=reply.reason,
            sent_ns=began_ns,
            received_ns=reply.received_ns,
            sends=sends,
            message=reply.message,
        )

    async def once(
        self,
        method: str,
        branch: str,
        data: bytes,
        *,
        timeout_s: float | None = None,
        ack: Callable[[Message], bytes] | None = None,
        provisional: Callable[[Message], None] = lambda message: None,
        late: Callable[[Message], None] = lambda message: None,
    ) -> Reply:
        """One transaction."""
        sent_ns = now_ns()
        if not self.up:
            return Reply.none(sent_ns=sent_ns, after_ns=sent_ns, why="the flow is down")
        done: asyncio.Future[tuple[Message | None, int | None]] = self.loop.create_future()

        def ended(message: Message | None, received_ns: int | None) -> None:
            if not done.done():
                done.set_result((message, received_ns))
            elif message is not None:
                late(message)

        transaction = ClientTransaction(
            request=data,
            method=method,
            reliable=self.behaviour.reliable,
            timers=self.loop,
            write=self.write,
            ended=ended,
            provisional=provisional,
            ack=ack,
            t1_s=self.behaviour.timer_t1_s,
        )
        self.layer.ask(branch, transaction)
        message, received_ns = None, None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    message, received_ns = await done
        finally:
            if not done.done():
                done.cancel()
            if not transaction.over and method != "INVITE":
                transaction.abandon()
        if message is None:
            return Reply.none(sent_ns=sent_ns, after_ns=now_ns(), sends=transaction.sends)
        return Reply(
            code=message.code,
            reason=message.reason,
            sent_ns=sent_ns,
            received_ns=max(received_ns or now_ns(), sent_ns),
            sends=transaction.sends,
            message=message,
        )

    def response(self, message: Message, received_ns: int) -> None:
        """An answer came in. One with more than our own Via is not for us (RFC 3261 8.1.3.3)."""
        vias = message.all("via")
        if len(vias) != 1:
            return
        seen = {name.lower(): value for name, value in _SEEN.findall(vias[0])}
        if "received" in seen and seen.get("rport", "").isdigit() and len(seen["rport"]) < 6:
            self.seen_as = seen["received"], int(seen["rport"])
        if self.layer.response(message, received_ns):
            return
        number, method = message.cseq
        known = self.acks.get((message.call_id, number))
        if method == "INVITE" and 200 <= message.code < 300 and known is not None and known[0] == message.to_tag:
            self.write(known[1])  # its ACK was lost (13.2.2.4)

    def acknowledged(self, ok: Message, ack: bytes) -> None:
        """Send the ACK of a 2xx, and keep it for the next time that comes."""
        self.acks[ok.call_id, ok.cseq[0]] = ok.to_tag, ack
        while len(self.acks) > MOST_ACKS:
            self.acks.popitem(last=False)
        self.write(ack)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside; it ends with `stop`."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler({"message": "a user agent is broken", "exception": error, "task": task})

    async def stop(self) -> None:
        """At once: nothing is sent, waited for or answered any more."""
        if self.flow is not None:
            self.flow.close()
        self.layer.stop()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def new_tag() -> str:
    return secrets.token_hex(4)


def _place(address: Address) -> str:
    host, port = address
    return host if port == 0 else f"{host}:{port}"

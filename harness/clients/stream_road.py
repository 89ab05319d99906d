"""A road of connections: each attempt of a single-shot clock makes one of its own (TCP, TLS, WSS), and resets it.

A client that comes new, or comes back after a failover, has to connect before it can ask: what it waits for is the
connection, the handshakes and the answer, within one deadline. One connection kept for all attempts would measure
something else, how soon a client finds out that its old one is dead. Each attempt is a first one: no session of TLS is
resumed. Nothing is repeated but what TCP repeats.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from harness.clients.road import Failed, Shots, Started
from harness.clients.sip.binding import make_flow
from harness.clients.sip.flow import Flow, FlowFailed, Inbox
from harness.clients.sip.message import Message
from harness.clients.sip.transport import Address
from harness.clock import now_ns
from harness.results import TransportName

GRACE_S = 1.0
"""How much longer than the deadline a connection may take to open: the deadline is judged by the clock, not here."""


@dataclass(kw_only=True)
class _Attempt:
    flow: Flow
    inbox: Inbox
    opening: asyncio.Task[None] | None = None


class StreamRoad:
    """Needs a running event loop."""

    def __init__(
        self, shots: Shots, *, transport: TransportName, to: Address, local_ip: str, deadline_s: float
    ) -> None:
        self.transport = transport
        self._shots = shots
        self._to = to
        self._local_ip = local_ip
        self._timeout_s = deadline_s + GRACE_S
        self._attempts: dict[int, _Attempt] = {}

    @property
    def connections(self) -> int:
        """How many are open, or being opened."""
        return len(self._attempts)

    def begin(self, n: int, *, started: Started, failed: Failed) -> None:
        inbox = Inbox(lambda message, received_ns: self._take(n, message, received_ns), partial(self._down, n))
        flow = make_flow(self.transport, to=self._to, local_ip=self._local_ip, inbox=inbox)
        attempt = self._attempts[n] = _Attempt(flow=flow, inbox=inbox)
        attempt.opening = asyncio.get_running_loop().create_task(self._open(n, attempt, started, failed))

    def end(self, n: int) -> None:
        attempt = self._attempts.pop(n, None)
        if attempt is None:
            return
        if attempt.opening is not None and attempt.opening is not asyncio.current_task():
            attempt.opening.cancel()
        attempt.flow.close()
        self._shots.unusable(attempt.inbox.bad)

    def read(self) -> None:
        """What has come in is taken in when the loop comes round: there is no time of the kernel for a stream."""

    def close(self) -> None:
        for n in list(self._attempts):
            self.end(n)

    async def _open(self, n: int, attempt: _Attempt, started: Started, failed: Failed) -> None:
        try:
            await attempt.flow.open(timeout_s=self._timeout_s)
        except FlowFailed as error:
            failed(n, now_ns(), str(error))
            return
        if self._attempts.get(n) is attempt:
            started(n, attempt.flow.local, attempt.flow.send)
        else:
            attempt.flow.close()

    def _take(self, n: int, message: Message, received_ns: int) -> None:
        if n in self._attempts:
            reply = self._attempts[n].flow.send
            self._shots.message(message, received_ns=received_ns, seen_ns=now_ns(), reply=reply)

    def _down(self, n: int, why: str, at_ns: int) -> None:
        self._shots.failed(n, at_ns, f"connection lost: {why}")

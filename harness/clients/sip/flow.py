"""A flow: one signalling path of a client to the PBX, the word of RFC 5626. UDP here, streams and WebSocket beside it.

Whatever comes in is handed on as a parsed message with the time it was received; what can't be parsed is counted. A
flow never raises out of its read loop, and a send on a flow that is down says so instead of raising.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from harness.clients.sip.message import BadMessage, Message, parse
from harness.clients.sip.transport import Address, Sent, UdpSocket
from harness.clock import now_ns
from harness.results import TransportName

OnMessage = Callable[[Message, int], None]
"""Called with a message and when it was received (CLOCK_MONOTONIC, ns)."""

OnDown = Callable[[str, int], None]
"""Called once with why a flow that was up is gone, and when that was noticed."""


class FlowFailed(Exception):
    """A flow that could not be opened; the message says why, in a few words."""


class Flow(Protocol):
    """`local` goes into Via and Contact; `send` is `Sent` with an error when the flow is down."""

    @property
    def transport(self) -> TransportName: ...

    @property
    def local(self) -> Address: ...

    @property
    def up(self) -> bool: ...

    async def open(self, *, timeout_s: float) -> None: ...

    def send(self, data: bytes) -> Sent: ...

    def close(self) -> None: ...


class Inbox:
    """Where a flow delivers: it parses, and counts what is no message."""

    def __init__(self, on_message: OnMessage, on_down: OnDown) -> None:
        self.bad = 0
        self._on_message = on_message
        self._on_down = on_down

    def take(self, data: bytes, received_ns: int) -> None:
        try:
            message = parse(data)
        except BadMessage:
            self.bad += 1
            return
        self._on_message(message, received_ns)

    def down(self, why: str) -> None:
        self._on_down(why, now_ns())


class UdpFlow:
    """A UDP socket of the client's own; it is up as long as it is open."""

    transport: TransportName = "udp"

    def __init__(self, *, to: Address, local_ip: str, inbox: Inbox) -> None:
        self.local: Address = (local_ip, 0)
        self._to = to
        self._inbox = inbox
        self._udp: UdpSocket | None = None

    @property
    def up(self) -> bool:
        return self._udp is not None

    async def open(self, *, timeout_s: float) -> None:
        try:
            self._udp = UdpSocket(self.local)
        except OSError as error:
            raise FlowFailed(error.strerror or str(error)) from None
        self.local = self._udp.local
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._read)

    def send(self, data: bytes) -> Sent:
        return down() if self._udp is None else self._udp.send(data, self._to)

    def close(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
            self._udp.close()
            self._udp = None

    def _read(self) -> None:
        if self._udp is None:
            return
        for datagram in self._udp.receive():
            if datagram.data.strip(b"\r\n\0"):  # a keep-alive (RFC 5626 3.5, RFC 6223) is no message
                self._inbox.take(datagram.data, datagram.received_ns)
            if self._udp is None:
                return
        for _ in self._udp.refusals():
            pass


def down() -> Sent:
    """The send that did not happen."""
    now = now_ns()
    return Sent(before_ns=now, after_ns=now, error="the flow is down")

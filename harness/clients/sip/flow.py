"""A flow: one signalling path of a client to the PBX, the word of RFC 5626. UDP here, streams and WebSocket beside it.

Whatever comes in is handed on as a parsed message with the time it was received; what can't be parsed is counted. A
flow never raises out of its read loop, and a send on a flow that is down says so instead of raising.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from harness.clients.sip.message import BadMessage, BadRequest, Message, parse
from harness.clients.sip.transport import Address, Sent, UdpSocket
from harness.clock import now_ns
from harness.results import TransportName

OnMessage = Callable[[Message, int], None]
"""Called with a message and when it was received (CLOCK_MONOTONIC, ns)."""

OnDown = Callable[[str, int], None]
"""Called once with why a flow that was up is gone, and when that was noticed."""

MOST_READS = 32
"""Reads in a row for one flow; then others have their turn."""


class FlowFailed(Exception):
    """A flow that could not be opened; the message says why, in a few words."""


class Flow(Protocol):
    """`local` goes into Via and Contact; `send` is `Sent` with an error when the flow is down. `ping` asks whether the
    PBX is there, False where nothing would answer; `pongs` counts what came back. `on_down` is not called for a
    `close`."""

    @property
    def transport(self) -> TransportName: ...

    @property
    def local(self) -> Address: ...

    @property
    def up(self) -> bool: ...

    @property
    def pongs(self) -> int: ...

    async def open(self, *, timeout_s: float) -> None: ...

    def send(self, data: bytes) -> Sent: ...

    def ping(self) -> bool: ...

    def close(self) -> None: ...


def _nobody(bad: BadRequest) -> None:
    """Nobody answers what can't be parsed."""


class Inbox:
    """Where a flow delivers: parses, counts what is no message, and keeps the receiver's errors out of the read loop.

    `bad` counts what was no message, `broken` the errors of the receiver: each is told to the loop's exception handler,
    and any is a defect.
    """

    __slots__ = ("_on_bad", "_on_down", "_on_message", "bad", "broken")

    def __init__(self, on_message: OnMessage, on_down: OnDown, *, on_bad: Callable[[BadRequest], None] = _nobody):
        self.bad = 0
        self.broken = 0
        self._on_message = on_message
        self._on_down = on_down
        self._on_bad = on_bad

    def take(self, data: bytes, received_ns: int) -> None:
        try:
            try:
                message = parse(data)
            except BadMessage as bad:
                self.bad += 1
                if isinstance(bad, BadRequest):
                    self._on_bad(bad)
                return
            self._on_message(message, received_ns)
        except Exception as error:
            self.broken += 1
            asyncio.get_running_loop().call_exception_handler({"message": "a SIP message broke us", "exception": error})

    def down(self, why: str) -> None:
        self._on_down(why, now_ns())


class UdpFlow:
    """A UDP socket of the client's own; it is up as long as it is open."""

    transport: TransportName = "udp"
    pongs = 0

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
        return not_sent() if self._udp is None else self._udp.send(data, self._to)

    def ping(self) -> bool:
        """A CRLF keeps a NAT's entry open; nothing answers it."""
        self.send(b"\r\n\r\n")
        return False

    def close(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
            self._udp.close()
            self._udp = None

    def _read(self) -> None:
        if self._udp is None:
            return
        for _ in self._udp.refusals():
            pass
        for n, datagram in enumerate(self._udp.receive(), 1):
            if datagram.data.strip(b"\r\n\0"):  # a keep-alive (RFC 5626 3.5, RFC 6223) is no message
                self._inbox.take(datagram.data, datagram.received_ns)
            if self._udp is None or n == MOST_READS:
                return  # what is left makes the socket readable again


def not_sent(why: str = "the flow is down") -> Sent:
    """The send that did not happen."""
    now = now_ns()
    return Sent(before_ns=now, after_ns=now, error=why)

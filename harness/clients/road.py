"""How the attempts of a measuring probe reach the PBX: one UDP socket for all, or a connection for each.

A probe is the `Shots` that a road delivers to. `begin` opens the way for attempt n and calls `started` once with the
own address and a way to send, at once or later, or `failed`; `end` says that the attempt needs it no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from harness.clients.sip.message import Message
from harness.clients.sip.transport import Address, Sent, UdpSocket
from harness.results import TransportName

Send = Callable[[bytes], Sent]
Started = Callable[[int, Address, Send], None]
Failed = Callable[[int, int, str], None]
"""Attempt, when (CLOCK_MONOTONIC, ns), and why."""


class Shots(Protocol):
    """What comes in, and what goes wrong. `reply` sends back to where a thing came from."""

    def datagram(self, data: bytes, *, received_ns: int, seen_ns: int, reply: Send) -> None:
        """Something that came in, whole, as bytes."""

    def message(self, message: Message, *, received_ns: int, seen_ns: int, reply: Send) -> None: ...

    def refused(self, data: bytes, name: str, received_ns: int) -> None:
        """An ICMP error about a packet that was sent; `data` is as much of it as came back."""

    def failed(self, n: int, at_ns: int, error: str) -> None:
        """Attempt n lost its way."""

    def unusable(self, bad: int) -> None:
        """So many things came in on a connection that were no messages."""


class Road(Protocol):
    @property
    def transport(self) -> TransportName: ...

    def begin(self, n: int, *, started: Started, failed: Failed) -> None: ...

    def end(self, n: int) -> None: ...

    def read(self) -> None:
        """Take in everything that the kernel holds."""

    def close(self) -> None: ...


class UdpRoad:
    """One socket for all attempts, like a phone's."""

    transport: TransportName = "udp"

    def __init__(self, shots: Shots, *, udp: UdpSocket, to: Address) -> None:
        self._shots = shots
        self._udp = udp
        self._to = to
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(udp.fileno(), self.read)

    def begin(self, n: int, *, started: Started, failed: Failed) -> None:
        self._refusals()
        started(n, self._udp.local, partial(self._udp.send, to=self._to))

    def end(self, n: int) -> None:
        pass

    def read(self) -> None:
        for datagram in self._udp.receive():
            reply = partial(self._udp.send, to=datagram.source)
            self._shots.datagram(datagram.data, received_ns=datagram.received_ns, seen_ns=datagram.seen_ns, reply=reply)
        self._refusals()

    def close(self) -> None:
        self._loop.remove_reader(self._udp.fileno())
        self._udp.close()

    def _refusals(self) -> None:
        for refusal in self._udp.refusals():
            self._shots.refused(refusal.data, refusal.name, refusal.received_ns)
